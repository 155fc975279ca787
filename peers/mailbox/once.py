"""What may be used once: the tickets of challenges, and stamps. Pure: `now` is passed in."""

import heapq
from collections.abc import Callable
from typing import Final

from keys.primitives import KEY_SIZE, keyed_digest, random_bytes

_DIGEST: Final = 16


class UsedOnce:
    """Remembers things that bear a time until they are too old to be used anyway.

    The memory is bounded. What is forgotten too early cannot come again for it: from then on nothing is taken that is
    as old, so that a flood shortens the time for which things can be used and never lets one be used twice. What is
    kept are digests under a random key of this process.

    Args:
        size: how many are remembered.
        lifetime: for how long the caller takes them, in the unit of `time` and `now`.
    """

    def __init__(self, size: int, lifetime: int, random: Callable[[int], bytes] = random_bytes) -> None:
        self._size = size
        self._lifetime = lifetime
        self._secret = random(KEY_SIZE)
        # Whether it is used: what was given back stays remembered, or using and giving back would fill the memory.
        self._seen: dict[bytes, bool] = {}
        self._by_time: list[tuple[int, bytes]] = []
        self._floor: int | None = None

    def too_old(self, time: int) -> bool:
        """Tell whether things of `time` are not taken any more, for others of it were forgotten."""
        return self._floor is not None and time <= self._floor

    def use(self, thing: bytes, time: int, now: int) -> bool:
        """Use a thing that bears `time`; tell whether that was right: it was not used before and is not too old.

        Call it only for things that were checked: else anybody could fill the memory.
        """
        digest = keyed_digest(self._secret, thing, _DIGEST)
        known = self._seen.get(digest)
        if known or self.too_old(time):
            return False
        self._seen[digest] = True
        if known is None:
            heapq.heappush(self._by_time, (time, digest))
        while self._by_time[0][0] < now - self._lifetime:
            self._forget()
        while len(self._by_time) > self._size:
            self._floor = self._forget()
        return True

    def unuse(self, thing: bytes) -> None:
        """Let `thing` be used again: what it was used for did not happen."""
        digest = keyed_digest(self._secret, thing, _DIGEST)
        if digest in self._seen:
            self._seen[digest] = False

    def _forget(self) -> int:
        time, digest = heapq.heappop(self._by_time)
        del self._seen[digest]
        return time

    def __len__(self) -> int:
        return len(self._by_time)
