"""How long mailboxes that failed are left alone. Pure."""

from collections.abc import Callable
from typing import Final

from keys.primitives import random_bytes

_SPREAD: Final = 0.25
"""Share of a rest that is drawn: clients that a mailbox lost together need not come back together."""


class Rests:
    """Rests that grow with each failure.

    Args:
        least, most: seconds.
    """

    def __init__(self, least: float, most: float, random: Callable[[int], bytes] = random_bytes) -> None:
        self._least = least
        self._most = most
        self._random = random
        self._failures: dict[int, int] = {}
        self._until: dict[int, float] = {}

    def until(self, mailbox: int) -> float:
        """Return the time before which a mailbox is left alone."""
        return self._until.get(mailbox, 0.0)

    def failed(self, mailbox: int, now: float) -> float:
        """A mailbox failed; returns until when it rests."""
        count = self._failures[mailbox] = self._failures.get(mailbox, 0) + 1
        rest = min(self._most, self._least * 2 ** min(count - 1, 30))
        rest *= 1 - _SPREAD * self._random(1)[0] / 255
        self._until[mailbox] = now + rest
        return self._until[mailbox]

    def at_least(self, mailbox: int, until: float) -> None:
        """Have a mailbox rest until then, or for longer."""
        self._until[mailbox] = max(self.until(mailbox), until)

    def went_well(self, mailbox: int) -> None:
        """A mailbox did what was asked."""
        self._failures.pop(mailbox, None)
        self._until.pop(mailbox, None)

    def forgive(self, mailbox: int) -> None:
        """Somebody wants it to be tried now."""
        self._until.pop(mailbox, None)
