"""What protects the relay from repetition: replay memory and token buckets. Pure: `now` is passed in."""

from collections import OrderedDict
from collections.abc import Callable

from keys.primitives import KEY_SIZE, keyed_digest, random_bytes

_DIGEST = 8
_KEY_DIGEST = 16


class ReplayMemory:
    """Remembers nonces: a small ring per key, so that nobody can flush another's memory by filling it.

    What is kept are digests under a random key of this process: a copy of the memory names no client and no nonce.
    The memory ends with the process, and a nonce older than its key's ring is forgotten; both are stated in
    PROTOCOL.md §8.4.

    Args:
        ring: nonces per key.
        keys: keys in all; the least recently used goes first.
    """

    def __init__(self, ring: int, keys: int, random: Callable[[int], bytes] = random_bytes) -> None:
        self._ring = ring
        self._keys = keys
        self._secret = random(KEY_SIZE)
        # Each value is a byte string of digests, oldest first.
        self._seen: OrderedDict[bytes, bytes] = OrderedDict()

    def change(self, ring: int, keys: int) -> None:
        """Remember so many from now on; what is more than that goes as if it had come now, the oldest first."""
        self._ring = ring
        self._keys = keys
        while len(self._seen) > keys:
            self._seen.popitem(last=False)

    def first_time(self, x_pub: bytes, nonce: bytes) -> bool:
        """Remember a nonce of the owner of `x_pub`; tell whether it was not seen before.

        Call it only for bytes that were authenticated: else anybody could fill the ring of a key that is not theirs.
        """
        key = keyed_digest(self._secret, x_pub, _KEY_DIGEST)
        digest = keyed_digest(self._secret, x_pub + nonce, _DIGEST)
        ring = self._seen.get(key, b"")
        for at in range(0, len(ring), _DIGEST):
            if ring[at : at + _DIGEST] == digest:
                self._seen.move_to_end(key)
                return False
        self._seen[key] = (ring + digest)[-self._ring * _DIGEST :]
        self._seen.move_to_end(key)
        if len(self._seen) > self._keys:
            self._seen.popitem(last=False)
        return True

    def __len__(self) -> int:
        return len(self._seen)


class Buckets:
    """Token buckets by key: `burst` at once, `rate` per second after that; a rate of 0 allows everything.

    At most `keys` buckets are kept; the least recently used goes first, which forgives whoever was quiet longest.
    Keys are kept as digests under a random key of this process, for they name addresses and who wrote to whom.
    """

    def __init__(self, rate: float, burst: int, keys: int, random: Callable[[int], bytes] = random_bytes) -> None:
        self._secret = random(KEY_SIZE)
        self._rate = rate
        self._burst = float(burst)
        self._keys = keys
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def change(self, rate: float, burst: int, keys: int) -> None:
        """Allow so much from now on. What was spent stays spent; what time has earned since goes by the new rate."""
        self._rate = rate
        self._burst = float(burst)
        self._keys = keys
        while len(self._buckets) > keys:
            self._buckets.popitem(last=False)

    def allow(self, key: bytes, now: float) -> bool:
        """Take one token from the bucket of `key`; tell whether there was one."""
        if self._rate <= 0:
            return True
        key = keyed_digest(self._secret, key, _KEY_DIGEST)
        tokens, since = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
        return allowed

    def forget_full(self, now: float) -> None:
        """Drop the oldest buckets that are full again: they say nothing that a new one would not."""
        if self._rate <= 0:
            return
        lifetime = self._burst / self._rate
        while self._buckets:
            _, since = next(iter(self._buckets.values()))
            if now - since < lifetime:
                return
            self._buckets.popitem(last=False)

    def __len__(self) -> int:
        return len(self._buckets)


def carried(left: float, rate: float, burst: float) -> float:
    """Return what is left of a session's allowance when its rate and burst change: without a rate it has no end."""
    return float("inf") if rate <= 0 else min(left, burst)


class Allowance:
    """One session's allowance of something, spent in any amounts and never refused: debt is paid by waiting."""

    __slots__ = ("_burst", "_rate", "_since", "left")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._since = now
        self.left = burst if rate > 0 else float("inf")

    def change(self, rate: float, burst: float, now: float) -> None:
        """Earn at another rate from now on, up to another burst; a debt stays one, unless the rate is off."""
        self.debt(now)
        self._rate = rate
        self._burst = burst
        self._since = now
        self.left = carried(self.left, rate, burst)

    def debt(self, now: float) -> float:
        """Add what time has earned; return the seconds until the allowance is no longer overdrawn, 0 if it is not."""
        if self._rate <= 0:
            return 0.0
        self.left = min(self._burst, self.left + (now - self._since) * self._rate)
        self._since = now
        return -self.left / self._rate if self.left < 0 else 0.0
