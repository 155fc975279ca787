"""What a deposit costs, in bits of a stamp. Pure: `tick` is passed in.

    price = base + 1 for each doubling of the rate of deposits beyond `busy`, + 2, 4, 8 where 1/2, 3/4, 9/10 are full

Both are what a flood makes: many at once, or few for long. A person's next deposit then takes seconds instead of none;
that of a flood the same, each. A stamp that is worth less than the price is still taken when it is worth what was told
within the last minutes, or nobody could ever pay a price that rises while they work for it.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from keys.stamp import BITS_MAX
from peers.service.errors import BadValues

TOLD: Final = 120.0
"""Seconds for which a price is good after a higher one has come."""
_WINDOW: Final = 60.0
"""Seconds over which the rate of deposits is taken."""
_FULL: Final = ((0.9, 8), (0.75, 4), (0.5, 2))


@dataclass(frozen=True, slots=True)
class PriceList:
    """How prices are made.

    Attributes:
        base: bits when nothing is going on; 0 asks for no stamp.
        most: bits that are never exceeded: 22 are some seconds of a telephone.
        busy: deposits per minute from which on the price rises.

    Raises:
        BadValues: they contradict each other.
    """

    base: int = 0
    most: int = 22
    busy: int = 600

    def __post_init__(self) -> None:
        if not 0 <= self.base <= self.most <= BITS_MAX:
            reason = f"prices go from 0 to {BITS_MAX} bits, and the lowest is not above the highest"
            raise BadValues(reason, "base", "most")
        if self.busy < 1:
            raise BadValues("a mailbox is busy from one deposit a minute at least", "busy")


class Price:
    """The price of one mailbox, as it goes up and down."""

    def __init__(self, prices: PriceList) -> None:
        self._prices = prices
        self._rate = 0.0
        self._at: float | None = None
        self._history: deque[tuple[float, int]] = deque()

    def count(self, tick: float) -> None:
        """A deposit was asked for."""
        self._rate = self._per_minute(tick) + 1
        self._at = tick

    def bits(self, tick: float, full: float) -> int:
        """Return the price now. `full` is the fullest share (0 to 1) of all that bounds what is held."""
        prices = self._prices
        rate = int(self._per_minute(tick))
        bits = prices.base + (rate // prices.busy).bit_length()
        bits = min(prices.most, bits + next((more for share, more in _FULL if full >= share), 0))
        while self._history and self._history[0][0] < tick - TOLD:
            self._history.popleft()
        # Of those told before, only what is lower than all that came after can still be the lowest of any time.
        while self._history and self._history[-1][1] >= bits:
            self._history.pop()
        self._history.append((tick, bits))
        return bits

    def least(self, tick: float, full: float) -> int:
        """Return the lowest price that was told within the last minutes: what a stamp has to be worth."""
        now = self.bits(tick, full)
        return min(now, self._history[0][1])

    def _per_minute(self, tick: float) -> float:
        # A count that leaks: what it holds is about what came within the last minute.
        if self._at is None:
            return 0.0
        return self._rate * max(0.0, 1 - (tick - self._at) / _WINDOW)
