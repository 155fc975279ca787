"""The errors of a mailbox's client. Their texts are for people, and hold the address of a mailbox at most.

MailboxError
├── Unreachable      it cannot be reached, or did not answer: another time it may
├── NotAMailbox      what answers is none, or is not the one whose keys are known
├── MailboxRefused   it did not do what was asked, and said why
└── TooDear          it asks for more work than its user allows
"""

from typing import Final

from wire.mailbox_codes import Reason

_TEXTS: Final = {
    Reason.FAILED: "the mailbox could not: it may another time",
    Reason.FULL: "the mailbox is full for this recipient, or in all",
    Reason.TOO_BIG: "it is too big for the mailbox",
    Reason.BAD_DEPOSIT: "the mailbox calls the deposit malformed",
    Reason.TOO_FAST: "the mailbox was asked too often: it wants a pause",
    Reason.STAMP_CHEAP: "the mailbox asks for a stamp",
    Reason.STAMP_WRONG: "the mailbox calls the stamp wrong",
    Reason.STAMP_TIME: "the mailbox's clock and the stamp's time differ",
    Reason.STAMP_USED: "the mailbox had it before, and holds it no more",
    Reason.NOT_SERVED: "the mailbox does not serve this recipient",
    Reason.TOKEN: "the mailbox asks for a token, or does not take the one that it was shown",
    Reason.BAD_REQUEST: "the mailbox did not accept the request or the proof of the key",
}


class MailboxError(Exception):
    """Base of what a mailbox's client raises."""


class Unreachable(MailboxError):
    """It cannot be reached now."""


class NotAMailbox(MailboxError):
    """What answers there is no mailbox, or another one."""


class MailboxRefused(MailboxError):
    """It was not done.

    Attributes:
        reason: :class:`wire.mailbox_codes.Reason`; FAILED for one that is not known.
        bits: the price of a deposit, as it said.
    """

    def __init__(self, reason: int, bits: int = 0) -> None:
        known = Reason(reason) if reason in Reason._value2member_map_ else Reason.FAILED
        super().__init__(_TEXTS[known])
        self.reason = known
        self.bits = bits


class TooDear(MailboxError):
    """It asks for more work than is allowed.

    Attributes:
        bits: what it asks for.
    """

    def __init__(self, bits: int, most: int) -> None:
        super().__init__(f"the mailbox asks for a stamp of {bits} bits; {most} are allowed (stamp_bits)")
        self.bits = bits
