"""Lines in the log for each session, under pseudonyms: only with `--log-pseudonyms` (SECURITY.md says what that costs).

They tell what an operator needs to find a client that misbehaves: that it comes, why it goes or is refused, for how
long it stayed, and whether it sent too fast or what is no frame. How much anybody sends, and to whom, is not told.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from relay.guard import Allowance
from relay.pseudonyms import Pseudonyms
from relay.reasons import Ending

_LINES_PER_SECOND: Final = 20.0
_LINES_BURST: Final = 1000
"""Clients cause these lines: beyond this rate they are counted and left out, so that nobody fills a disk."""

_DURATIONS: Final = ((10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"), (86400.0, "1 d"))


class Named(Protocol):
    """What is told of here: something with a client id (8 bytes)."""

    id: bytes


class Journal:
    """Writes the lines.

    Args:
        now: a monotonic time, for the rate of lines.
        pseudonyms: gives the names.
        wall: gives seconds since 1970, for the day of the names.
    """

    def __init__(self, now: float, pseudonyms: Pseudonyms | None = None, wall: Callable[[], float] = time.time) -> None:
        self._pseudonyms = pseudonyms or Pseudonyms()
        self._wall = wall
        self._lines = Allowance(_LINES_PER_SECOND, _LINES_BURST, now)
        self._slowed: set[object] = set()
        self._left_out = 0

    def started(self, client: Named, now: float) -> None:
        """A client was let in."""
        if self._may_write(now):
            structlog.get_logger().info("session_started", client=self._name(client), **self._gap())

    def refused(self, client: Named, reason: Ending, now: float) -> None:
        """A client whose handshake was read was not let in."""
        if self._may_write(now):
            structlog.get_logger().info("session_refused", client=self._name(client), reason=str(reason), **self._gap())

    def slowed(self, client: object) -> None:
        """A connection spent more than it may, and is not read from for a while; told when its session ends."""
        self._slowed.add(client)

    def ended(self, client: Named, reason: Ending, seconds: float, malformed: int, now: float) -> None:
        """The session of a client is over, which lasted so long and sent so many frames that are none."""
        slowed = client in self._slowed
        self._slowed.discard(client)
        if self._may_write(now):
            structlog.get_logger().info(
                "session_ended",
                client=self._name(client),
                reason=str(reason),
                lasted=duration(seconds),
                malformed=malformed,
                slowed=slowed,
                **self._gap(),
            )

    def forget(self, client: object) -> None:
        """A connection is gone."""
        self._slowed.discard(client)

    def _name(self, client: Named) -> str:
        return self._pseudonyms.name(client.id, self._wall())

    def _may_write(self, now: float) -> bool:
        self._lines.debt(now)  # adds what time has earned
        if self._lines.left < 1:
            self._left_out += 1
            return False
        self._lines.left -= 1
        return True

    def _gap(self) -> dict[str, int]:
        left_out, self._left_out = self._left_out, 0
        return {"left_out": left_out} if left_out else {}


def duration(seconds: float) -> str:
    """Return the class of a duration, such as `under 10 min`."""
    for bound, text in _DURATIONS:
        if seconds < bound:
            return f"under {text}"
    return "1 d or more"
