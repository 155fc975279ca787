"""Histograms as plain integers. Pure: nothing here knows a metrics library."""

import itertools
from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts of observations by upper bound.

    Args:
        bounds: upper bounds, inclusive and ascending; one more bucket takes what is above the last.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        if not bounds or any(low >= high for low, high in itertools.pairwise(bounds)):
            raise ValueError("the bounds of a histogram ascend")
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def observed(self) -> int:
        """How many observations were counted."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return each bound with how many observations were at or below it; the last bound is infinite."""
        found = []
        count = 0
        for bound, here in zip((*self.bounds, float("inf")), self.counts, strict=True):
            count += here
            found.append((bound, count))
        return found
