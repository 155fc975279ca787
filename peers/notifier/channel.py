"""What every push channel looks like to the service: one interface, and the ways in which a push can end.

A push carries no sender, no text and no id: "something is there", and whether it is a call. What the push service
learns all the same stands in the docstring of each channel.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from wire.commands import PushKind


class PushType(Enum):
    """What a push is for; the value is what the device reads."""

    MESSAGE = "message"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Push:
    """One push. ``ttl``: seconds for which the service keeps it for a device that is offline; 0 is "now or never".

    ``known``: whether the last push to this token was taken; nothing of it is sent.
    """

    type: PushType
    ttl: int
    known: bool = field(default=False, compare=False)


class Result(Enum):
    """How a push ended; the value is the label of the metric."""

    SENT = "sent"  # the push service took it
    GONE = "gone"  # it knows this token no longer: forget it
    BUSY = "busy"  # it wants less of us altogether: pause the channel
    RETRY = "retry"  # a passing fault: try this push again
    HELD = "held"  # not sent: its server is left alone now, or had its share. Nothing is learned of the token
    REFUSED = "refused"  # our request or our credentials are wrong: tell the operator; try again if a time is named
    STRANGE = "strange"  # an answer that no push service gives: do not retry; it counts against the token
    UNUSABLE = "unusable"  # a token to which nothing can be sent: forget it


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a push ended. ``retry_after``: seconds that the service asked for, never negative.

    ``detail`` is for the operator's log. It never holds a token, an endpoint or an id, nor text that the service sent.
    """

    result: Result
    retry_after: float | None = None
    detail: str = ""


def kind_name(kind: int) -> str:
    """Return what the channel of a kind is called, also of one that is switched off."""
    try:
        return PushKind(kind).name.lower().replace("_", "")
    except ValueError:
        return f"kind {kind}"


class Channel(Protocol):
    """One kind of push service. Safe for many pushes at once, in one event loop."""

    kind: int
    """The kind in a PUSH_REGISTER (PROTOCOL.md §7.10)."""
    name: str
    """The label of its metrics: "fcm", "webpush", "unifiedpush" or "apns"."""

    def check_token(self, token: bytes) -> None:
        """Check a token before it is kept. No I/O.

        Raises:
            ValueError: nothing can ever be sent to it; the text does not repeat it.
        """

    async def push(self, token: bytes, push: Push) -> Outcome:
        """Send one push, in bounded time. Raises nothing but ``CancelledError``: every fault is an outcome."""

    async def close(self) -> None:
        """Let connections go. Pushes under way should have ended before."""
