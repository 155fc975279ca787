"""How much an agent may send. Pure: the time comes in, in seconds of any clock that never goes back."""

import math
import re
from dataclasses import dataclass
from typing import Final, Self

_UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}
_TEXT: Final = re.compile(r"([0-9]{1,6})/(s|min|h|day)")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in a time; as many may come at once.

    Raises:
        ValueError: fewer than 1, or no time.
    """

    count: int
    seconds: float

    def __post_init__(self) -> None:
        if self.count < 1 or not self.seconds > 0:
            raise ValueError("a rate allows one or more")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``20/min``; the units are s, min, h and day.

        Raises:
            ValueError: it is no rate; the text says what one is.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None or int(found[1]) < 1:
            raise ValueError("a rate is a number of 1 or more per s, min, h or day, such as 20/min")
        return cls(int(found[1]), _UNITS[found[2]])

    def __str__(self) -> str:
        unit = next((name for name, seconds in _UNITS.items() if seconds == self.seconds), f"{self.seconds:g} s")
        return f"{self.count}/{unit}"


class Bucket:
    """A token bucket, full at first."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.count)
        self._at = now

    def wait(self, now: float) -> float:
        """Return the seconds until one may be taken; 0 if at once."""
        self._fill(now)
        return max(1 - self._tokens, 0.0) * self._rate.seconds / self._rate.count

    def take(self, now: float) -> None:
        """Take one; only where :meth:`wait` says 0."""
        self._fill(now)
        self._tokens -= 1

    def _fill(self, now: float) -> None:
        gained = (now - self._at) * self._rate.count / self._rate.seconds
        self._tokens = min(self._tokens + gained, float(self._rate.count))
        # What a float loses in these steps must not make somebody wait who has waited as long as he was told.
        if math.isclose(self._tokens, 1.0, abs_tol=1e-9):
            self._tokens = 1.0
        self._at = now


class Limit:
    """One rate for each contact, and one for all together."""

    def __init__(self, each: Rate, total: Rate, now: float) -> None:
        self._each = each
        self._contacts: dict[int, Bucket] = {}
        self._total = Bucket(total, now)

    def take(self, contact: int, now: float) -> float:
        """Take one for a contact and return 0, if both rates allow it; otherwise return the seconds until they do."""
        bucket = self._contacts.setdefault(contact, Bucket(self._each, now))
        seconds = max(bucket.wait(now), self._total.wait(now))
        if seconds == 0.0:
            bucket.take(now)
            self._total.take(now)
        return seconds
