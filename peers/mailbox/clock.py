"""The mailbox's time: it never jumps, whatever the machine's clock does.

Deposits end at a time of day that outlives the process, so the machine's clock decides. But that clock may be set
wrong, by hours or by years, and a mailbox that believed it at once would erase in a second what it promised to keep
for weeks; one that never looked at it again after a start would, after a wrong one, keep things for ever. So the
mailbox has a time of its own, which is saved and

- goes forward only,
- runs beside the machine's monotonic clock, between half as fast and twice as fast, until it agrees with the clock.

Whatever that clock says, a deposit with a ttl is therefore held for at least half of it and for at most twice of it,
counted while the mailbox runs (half and twice are reached only if the clock is off for all that time). A clock that
is five hours ahead and put right after one has cost every deposit an hour of its time; one that is behind has given
them at most as much as it was behind.

The same holds across a restart, for nothing tells a mailbox that was off for a day from one whose clock was put
forward by a day: it goes on from the time it saved, and catches up. What ended while it was off is then erased later
than promised, by at most the time that it was off. Nobody is handed more for it: only less is erased at once.

What lasts seconds (leases, challenges, rates) ends with the process anyway, and goes by the monotonic clock alone.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

SLOWEST: Final = 0.5
FASTEST: Final = 2.0
"""How fast the mailbox's time may run. Not nearer to 1: a month off is made good in a month, and not in years."""


class Moment(NamedTuple):
    """The time, by both clocks.

    Attributes:
        now: the mailbox's time, milliseconds since 1970. For what outlives the process.
        tick: seconds of the monotonic clock. For what does not.
    """

    now: int
    tick: float


@dataclass(slots=True)
class MailboxClock:
    """Makes moments of the machine's two clocks. Pure: both are passed in.

    Args:
        now: the time that was saved last, or the machine's where none was; milliseconds since 1970.
        tick: the monotonic clock, seconds.
    """

    now: float
    tick: float

    def at(self, wall: float, tick: float) -> Moment:
        """Return the moment at which the machine's clocks say `wall` (milliseconds since 1970) and `tick`."""
        passed = max(0.0, tick - self.tick) * 1000
        self.tick = max(self.tick, tick)
        self.now += min(max(wall - self.now, passed * SLOWEST), passed * FASTEST)
        return Moment(int(self.now), self.tick)
