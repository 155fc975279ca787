"""How patient and how generous a carrier is."""

from dataclasses import dataclass, field

from peers.client import ClientOptions


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
    """

    client: ClientOptions = field(default_factory=ClientOptions)
    window: int = 64
    resend: float = 15.0
    resend_max: float = 300.0
    probe: float = 60.0
    wake: bool = True
    wake_pause: float = 30.0
    read_receipts: bool = True
