"""How patient and how generous a carrier is."""

from dataclasses import dataclass, field
from typing import Final

from peers.client import ClientOptions
from peers.dropping.options import DroppingOptions

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MailOptions:
    """How mailboxes are used. Times in seconds.

    Attributes:
        dropping: how they are talked to.
        patience: how long a message may go unacknowledged until it is left in mailboxes; at once if its recipient is
            known to be offline.
        copies: in how many mailboxes of a contact each message is left, at most.
        every: how often ours are looked into.
        awaiting: the same while a message of ours lies in a mailbox, so that an acknowledgement may come.
        linger: how long a connection to a mailbox stays when there is nothing to do.
        backoff_min, backoff_max: how long a mailbox that failed is left alone: doubled at each failure.
        full: how long nothing more is left for a contact where a mailbox has no room for them or does not serve them.
    """

    dropping: DroppingOptions = field(default_factory=DroppingOptions)
    patience: float = 5.0
    copies: int = 3
    every: float = 300.0
    awaiting: float = 60.0
    linger: float = 20.0
    backoff_min: float = 5.0
    backoff_max: float = 900.0
    full: float = 600.0


@dataclass(frozen=True, slots=True)
class CarrierOptions:
    """Times in seconds.

    Attributes:
        client: how the connection to the relay is kept.
        window: messages to one contact that may be on their way unacknowledged: after a break so many are sent again.
        resend: how long an acknowledgement may take from a contact who is online; doubled at each attempt.
        resend_max: the longest that becomes.
        probe: how often a message is tried with a contact whom the relay does not call online: it tells of a limited
            number of contacts only.
        wake: ask the relay to wake contacts who are offline when something is written to them.
        wake_pause: how long after a wake of a contact there is no other.
        read_receipts: tell contacts what was read here.
        auto_accept: bytes of a file up to which it is taken without asking; of a stranger (they introduced themselves,
            and we never answered) bytes of all files together. A bigger one waits for a yes; where its sender does not
            wait for it, it is refused.
        spare: bytes of the disk that received files leave free.
        push_after: how long after an offer a file is sent unasked to a program that did not ask for it, and never has.
        stall: how long nothing may come of a file, while its sender is online, until it is given up.
        mail: how mailboxes are used.
    """

    client: ClientOptions = field(default_factory=ClientOptions)
    window: int = 64
    resend: float = 15.0
    resend_max: float = 300.0
    probe: float = 60.0
    wake: bool = True
    wake_pause: float = 30.0
    read_receipts: bool = True
    auto_accept: int = 64 * MIB
    spare: int = 256 * MIB
    push_after: float = 2.0
    stall: float = 600.0
    mail: MailOptions = field(default_factory=MailOptions)
