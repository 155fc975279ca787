"""Who is to be watched, and who of them is online, as the relay last told. Pure."""

from collections.abc import Iterable
from typing import Final

from keys.primitives import KEY_SIZE
from wire.errors import LocalError

WATCHED_MOST: Final = 65536
"""Keys that can be watched: 2 MiB, far above what relays take (1,024 by default)."""
PER_FRAME: Final = 512
"""Keys in one frame (16 KiB): small beside a frame to a peer, so that none waits long behind it."""


class Presence:
    """The watched keys of one client."""

    def __init__(self) -> None:
        self._wanted: dict[bytes, None] = {}  # a set that keeps its order
        self._online: set[bytes] = set()

    @property
    def wanted(self) -> list[bytes]:
        """The watched keys, oldest first."""
        return list(self._wanted)

    def watch(self, x_pubs: Iterable[bytes]) -> list[bytes]:
        """Add keys; returns those that are new.

        Raises:
            LocalError: one that is no key, or too many; then none is added.
        """
        fresh = [x_pub for x_pub in dict.fromkeys(_checked(x_pubs)) if x_pub not in self._wanted]
        if len(self._wanted) + len(fresh) > WATCHED_MOST:
            raise LocalError(f"{WATCHED_MOST} keys are the most that a client watches")
        self._wanted.update(dict.fromkeys(fresh))
        return fresh

    def unwatch(self, x_pubs: Iterable[bytes]) -> list[bytes]:
        """Take keys away; returns those that were watched.

        Raises:
            LocalError: one that is no key; then none is taken away.
        """
        gone = [x_pub for x_pub in dict.fromkeys(_checked(x_pubs)) if x_pub in self._wanted]
        for x_pub in gone:
            del self._wanted[x_pub]
        self._online.difference_update(gone)
        return gone

    def came(self, x_pubs: Iterable[bytes]) -> tuple[bytes, ...]:
        """Take what the relay tells; returns the keys that we watch. Others it may not make us remember."""
        ours = tuple(x_pub for x_pub in x_pubs if x_pub in self._wanted)
        self._online.update(ours)
        return ours

    def went(self, x_pubs: Iterable[bytes]) -> tuple[bytes, ...]:
        """Likewise, for those who went."""
        ours = tuple(x_pub for x_pub in x_pubs if x_pub in self._wanted)
        self._online.difference_update(ours)
        return ours

    def wants(self, x_pub: bytes) -> bool:
        """Whether this key is watched now."""
        return x_pub in self._wanted

    def is_online(self, x_pub: bytes) -> bool:
        """Whether the relay last told that its owner is online."""
        return x_pub in self._online

    def forget(self) -> None:
        """Nobody is known to be online."""
        self._online.clear()


def _checked(x_pubs: Iterable[bytes]) -> list[bytes]:
    keys = [bytes(x_pub) for x_pub in x_pubs]
    if any(len(key) != KEY_SIZE for key in keys):
        raise LocalError(f"an X25519 public key has {KEY_SIZE} bytes")
    return keys


def in_frames(x_pubs: list[bytes]) -> list[list[bytes]]:
    """Return the keys in parts that each fit a frame."""
    return [x_pubs[at : at + PER_FRAME] for at in range(0, len(x_pubs), PER_FRAME)]
