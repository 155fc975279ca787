"""Refusals for want of room that could not be written down for want of room."""

from collections.abc import Awaitable, Callable
from typing import Final

_MOST: Final = 10_000
"""Recipients that wait, at most; of further ones it is not known that something was refused."""


class Unmarked:
    """Recipients of whom it is to be written down that something was refused, once there is room for that."""

    def __init__(self) -> None:
        self._when: dict[bytes, int] = {}

    def add(self, recipient: bytes, now: int) -> None:
        """Note one, with the time of the refusal."""
        if len(self._when) < _MOST:
            self._when[recipient] = now

    async def write(self, mark: Callable[[bytes, int], Awaitable[None]]) -> None:
        """Write all down; those that `mark` does not get to by an error are kept for the next time."""
        while self._when:
            recipient, when = next(iter(self._when.items()))
            await mark(recipient, when)
            self._when.pop(recipient, None)
