"""What protects the relay from repetition: replay memory, token buckets, tallies. Pure: `now` is passed in."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from keys.primitives import KEY_SIZE, keyed_digest, random_bytes

NONCE_DIGEST = 8
"""Bytes of the digest of a nonce."""
_KEY_DIGEST = 16
Value = TypeVar("Value")


class _Memory(Generic[Value]):
    """What is remembered of so many keys, the least recently used of which goes first.

    Keys name clients and addresses. They are kept as digests under a random key of this process, or under one that
    several processes have which remember together.
    """

    def __init__(self, keys: int, random: Callable[[int], bytes]) -> None:
        self._secret = random(KEY_SIZE)
        self._keys = keys
        self._tell: Callable[[bytes, bytes], None] | None = None
        self._held: OrderedDict[bytes, Value] = OrderedDict()

    def share(self, secret: bytes, tell: Callable[[bytes, bytes], None]) -> None:
        """Remember together with others who have this secret; `tell` is told what they have to know.

        What was remembered before, under a key that the others do not have, is forgotten.
        """
        self._secret = secret
        self._tell = tell
        self._held.clear()

    def alone(self) -> None:
        """Tell nobody any more."""
        self._tell = None

    def latest(self) -> list[bytes]:
        """Return the digests of all keys, the one used last first."""
        keys = list(self._held)
        keys.reverse()  # in half the time that it takes to walk through it the other way round
        return keys

    def digest(self, key: bytes) -> bytes:
        """Return under what a key is remembered: 16 bytes."""
        return keyed_digest(self._secret, key, _KEY_DIGEST)

    def _keep(self, digest: bytes, value: Value) -> None:
        self._held[digest] = value
        self._held.move_to_end(digest)
        if len(self._held) > self._keys:
            self._held.popitem(last=False)

    def _bound(self, keys: int) -> None:
        self._keys = keys
        while len(self._held) > keys:
            self._held.popitem(last=False)

    def __len__(self) -> int:
        return len(self._held)


class ReplayMemory(_Memory[bytes]):
    """Remembers nonces: a small ring per key, so that nobody can flush another's memory by filling it.

    What is kept are digests: a copy of the memory names no client and no nonce. Without others who remember the same
    the memory ends with the process, and a nonce older than its key's ring is forgotten; both are stated in
    PROTOCOL.md §8.4. Shared, `tell` is given the digests of each key and nonce.

    Args:
        ring: nonces per key.
        keys: keys in all; the least recently used goes first.
    """

    # Each value is a byte string of digests, oldest first.

    def __init__(self, ring: int, keys: int, random: Callable[[int], bytes] = random_bytes) -> None:
        super().__init__(keys, random)
        self._ring = ring

    def change(self, ring: int, keys: int) -> None:
        """Remember so many from now on; what is more than that goes as if it had come now, the oldest first."""
        self._ring = ring
        self._bound(keys)

    def first_time(self, x_pub: bytes, nonce: bytes) -> bool:
        """Remember a nonce of the owner of `x_pub`; tell whether it was not seen before.

        Call it only for bytes that were authenticated: else anybody could fill the ring of a key that is not theirs.
        """
        key = self.digest(x_pub)
        digest = keyed_digest(self._secret, x_pub + nonce, NONCE_DIGEST)
        if not self.remember(key, digest):
            self._held.move_to_end(key)
            return False
        if self._tell is not None:
            self._tell(key, digest)
        return True

    def remember(self, key: bytes, digest: bytes) -> bool:
        """Remember what another saw, by its digests; tell whether it was not seen before."""
        ring = self._held.get(key, b"")
        if digest in _digests(ring):
            return False
        self._keep(key, (ring + digest)[-self._ring * NONCE_DIGEST :])
        return True

    def inherit(self, key: bytes, ring: bytes) -> None:
        """Take over what another remembers of a key: as older than all that is here, and where there is room for it.

        Given with the key used last first, keys come to stand in the order in which the other has them.
        """
        known = self._held.get(key)
        if known is not None:
            here = set(_digests(known))
            older = b"".join(digest for digest in _digests(ring) if digest not in here)
            self._held[key] = (older + known)[-self._ring * NONCE_DIGEST :]
        elif len(self._held) < self._keys:
            self._held[key] = ring[-self._ring * NONCE_DIGEST :]
            self._held.move_to_end(key, last=False)

    def ring(self, key: bytes) -> bytes:
        """Return what is remembered of the key with this digest: 8 bytes for each nonce, the oldest first."""
        return self._held.get(key, b"")

    def known(self, more: Iterable[bytes] = ()) -> Callable[[bytes], bool]:
        """Return a test for the keys that are remembered now, and for `more`; what is remembered later is not in it."""
        secret = self._secret
        keys = frozenset(self._held).union(keyed_digest(secret, x_pub, _KEY_DIGEST) for x_pub in more)
        return lambda x_pub: keyed_digest(secret, x_pub, _KEY_DIGEST) in keys


def _digests(ring: bytes) -> Iterator[bytes]:
    return (ring[at : at + NONCE_DIGEST] for at in range(0, len(ring), NONCE_DIGEST))


class Buckets(_Memory[tuple[float, float]]):
    """Token buckets by key: `burst` at once, `rate` per second after that; a rate of 0 allows everything.

    At most `keys` buckets are kept; the least recently used goes first, which forgives whoever was quiet longest.
    Shared, `tell` is given the digest of a key for each token spent, and whose it is as :meth:`allow` was told.
    """

    # Each value is how many tokens there were, and when.

    def __init__(self, rate: float, burst: int, keys: int, random: Callable[[int], bytes] = random_bytes) -> None:
        super().__init__(keys, random)
        self._rate = rate
        self._burst = float(burst)

    @property
    def burst(self) -> float:
        """What may be spent at once."""
        return self._burst

    def remembers(self, digest: bytes) -> bool:
        """Whether there is a bucket for the key with this digest."""
        return digest in self._held

    def _tokens(self, digest: bytes, now: float) -> float:
        tokens, since = self._held.get(digest, (self._burst, now))
        return min(self._burst, tokens + (now - since) * self._rate)

    def spent_elsewhere(self, digest: bytes, count: int, now: float) -> None:
        """Take tokens that others let the owner of a digest spend; what there was not becomes a debt of one burst."""
        if self._rate > 0:
            self._keep(digest, (max(self._tokens(digest, now) - count, -self._burst), now))

    def missing(self, digest: bytes, now: float) -> float:
        """Return how many tokens the bucket with this digest lacks to be full."""
        return self._burst - self._tokens(digest, now) if self._rate > 0 else 0.0

    def missing_elsewhere(self, digest: bytes, count: float, now: float) -> None:
        """Let no more tokens be in a bucket than another left in it, which lacked so many to be full."""
        if self._rate > 0 and count > self.missing(digest, now):
            self._keep(digest, (max(self._burst - count, -self._burst), now))

    def change(self, rate: float, burst: int, keys: int) -> None:
        """Allow so much from now on. What was spent stays spent; what time has earned since goes by the new rate."""
        self._rate = rate
        self._burst = float(burst)
        self._bound(keys)

    def allow(self, key: bytes, now: float, owner: bytes = b"") -> bool:
        """Take one token from the bucket of `key`; tell whether there was one.

        Args:
            key: whose bucket it is.
            now: in seconds.
            owner: the client (its id) in whose session it is spent, if that is not another every time.
        """
        if self._rate <= 0:
            return True
        digest = self.digest(key)
        tokens = self._tokens(digest, now)
        allowed = tokens >= 1
        self._keep(digest, (tokens - 1 if allowed else tokens, now))
        if allowed and self._tell is not None:
            self._tell(digest, owner)
        return allowed

    def wait(self, key: bytes, now: float) -> float:
        """Return the seconds until there is a token for `key`, 0 if there is one; takes none."""
        if self._rate <= 0 or not self._held:
            return 0.0
        found = self._held.get(self.digest(key))
        if found is None:
            return 0.0
        tokens, since = found
        return max(0.0, (1 - tokens) / self._rate - (now - since))

    def forget_full(self, now: float) -> None:
        """Drop the oldest buckets that are full again: they say nothing that a new one would not."""
        if self._rate <= 0:
            return
        # Twice, for a bucket may be as much in debt as it holds.
        lifetime = self._burst / self._rate * (1 if self._tell is None else 2)
        while self._held:
            _, since = next(iter(self._held.values()))
            if now - since < lifetime:
                return
            self._held.popitem(last=False)


class Place:
    """How many connections one address has, and how many of them are sessions; shared by all of them."""

    __slots__ = ("count", "key", "sessions")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.count = 0
        self.sessions = 0


class Tally:
    """Counts open connections, together and by address.

    Addresses are kept as digests under a random key of this process, one for all connections that share it; in clear
    only where lists of addresses have to be applied to connections that are open already.

    Args:
        most: connections of one address; 0 for any number.
        clear: keep the addresses themselves.
    """

    def __init__(self, most: int, random: Callable[[int], bytes] = random_bytes, *, clear: bool = False) -> None:
        self._most = most
        self._secret = None if clear else random(KEY_SIZE)
        self._places: dict[bytes, Place] = {}
        self._nobody = Place(b"")
        self.total = 0
        self._shared: bytes | None = None
        self._tell: Callable[[bytes, int, int], None] | None = None
        self._elsewhere: dict[bytes, dict[bytes, int]] = {}

    def change(self, most: int) -> None:
        """Allow so many of one address from now on; those that are open stay."""
        self._most = most

    def share(self, secret: bytes, tell: Callable[[bytes, int, int], None]) -> None:
        """Count together with others who have this secret.

        Args:
            secret: for the digests of addresses.
            tell: is given the digest of an address, how many connections of it there are, and how many there may be.
        """
        self._shared = secret
        self._tell = tell
        if self._secret is not None:
            # Nobody is counted yet.
            self._secret = secret

    def alone(self) -> None:
        """Count alone again."""
        self._shared = self._tell = None
        self._elsewhere.clear()

    def elsewhere(self, who: bytes, digest: bytes, count: int) -> None:
        """Note how many connections an address has with another."""
        counts = self._elsewhere.setdefault(digest, {})
        counts[who] = count
        if not count:
            del counts[who]
            if not counts:
                del self._elsewhere[digest]

    def forget_elsewhere(self, who: bytes) -> None:
        """Another is gone, and all connections with it."""
        for digest in [digest for digest, counts in self._elsewhere.items() if who in counts]:
            self.elsewhere(who, digest, 0)

    def _told(self, place: Place) -> int:
        """Return the connections that the address of a place has with others."""
        if self._shared is None or not self._elsewhere:
            return 0
        return sum(self._elsewhere.get(self._digest(self._shared, place), {}).values())

    def _changed(self, place: Place) -> None:
        if self._tell is not None and self._shared is not None and self._most and place.key:
            self._tell(self._digest(self._shared, place), place.count, self._most)

    def _digest(self, shared: bytes, place: Place) -> bytes:
        return place.key if self._secret is not None else keyed_digest(shared, place.key, _KEY_DIGEST)

    def take(self, address: bytes) -> Place | None:
        """Count a connection more of `address`; None when it has too many. b"" is nobody's, and never too many."""
        if not address:
            place = self._nobody
        else:
            secret = self._secret
            key = address if secret is None else keyed_digest(secret, address, _KEY_DIGEST)
            place = self._places.get(key) or Place(key)
            if self._most and place.count + self._told(place) >= self._most:
                return None
            self._places[key] = place
        place.count += 1
        self.total += 1
        self._changed(place)
        return place

    def release(self, place: Place) -> None:
        """Count a connection less."""
        place.count -= 1
        self.total -= 1
        self._changed(place)
        if not place.count and place.key:
            del self._places[place.key]

    def __len__(self) -> int:
        return len(self._places)


class Seldom:
    """Lets something be said once in a while: the first time, and then no sooner than `pause` seconds later."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._next = float("-inf")

    def due(self, now: float) -> bool:
        """Tell whether it may be said now; if so, it counts as said."""
        if now < self._next:
            return False
        self._next = now + self._pause
        return True


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
