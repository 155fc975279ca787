"""How much one depositor, or one address, may cause in a time. Pure: `now` is passed in.

These are rates kept in memory and not sums of what is held: to know how much of what is held came from whom, the
mailbox would have to write down who deposited what, and that is what it is not to know. A restart forgives everybody.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from keys.primitives import KEY_SIZE, keyed_digest, random_bytes

_KEY_DIGEST: Final = 16
_SITE: Final = 8
"""Bytes of an IPv6 address that one customer of a network usually has for its own (a /64)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What may be caused: `items` and `size` (bytes) at once, and again within `period` seconds. 0 items: no bound."""

    items: int
    size: int
    period: float


class Budgets:
    """What is left to each key of its rate: two buckets, one for items and one for bytes, that fill evenly.

    At most `keys` are kept; the least recently used goes first, which forgives whoever was quiet longest. Keys are kept
    as digests under a random key of this process, for they name addresses and depositors.
    """

    def __init__(self, rate: Rate, keys: int, random: Callable[[int], bytes] = random_bytes) -> None:
        self._rate = rate
        self._keys = keys
        self._secret = random(KEY_SIZE)
        self._spent: OrderedDict[bytes, tuple[float, float, float]] = OrderedDict()

    def spend(self, key: bytes, size: int, now: float) -> bool:
        """Take one item of `size` bytes from the budget of `key`; tell whether it was there. `now` in seconds."""
        if not self._rate.items:
            return True
        digest = keyed_digest(self._secret, key, _KEY_DIGEST)
        items, used, since = self._spent.get(digest, (0.0, 0.0, now))
        share = max(0.0, now - since) / self._rate.period
        items = max(0.0, items - share * self._rate.items)
        used = max(0.0, used - share * self._rate.size)
        fits = items + 1 <= self._rate.items and used + size <= self._rate.size
        self._spent[digest] = (items + 1, used + size, now) if fits else (items, used, now)
        self._spent.move_to_end(digest)
        if len(self._spent) > self._keys:
            self._spent.popitem(last=False)
        return fits

    def __len__(self) -> int:
        return len(self._spent)


def address_key(address: str) -> bytes:
    """Return what an address counts as: IPv4 by itself, IPv6 by its /64, within which one host can have any.

    Raises:
        ValueError: it is no address.
    """
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        return ip.packed[:_SITE] if ip.ipv4_mapped is None else ip.ipv4_mapped.packed
    return ip.packed
