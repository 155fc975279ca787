"""Sealing under a passphrase: Argon2id (RFC 9106) for the key, XSalsa20-Poly1305 for the content.

The salt is random for every sealing, so the key is new each time. Salt and cost stand beside the box in clear and need
no tag of their own: another salt or cost gives another key, under which the box does not open.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from keys import primitives as p

MAX_MEMORY: Final = 1 << 30
"""Most bytes of memory that opening may take (1 GiB, libsodium's "sensitive"), whatever a file says."""
MAX_WORK: Final = 4 << 30
"""Most bytes that opening may pass over, passes times memory (4 GiB, as well "sensitive"): some seconds."""
MIN_MEMORY: Final = 8192
"""Fewest bytes of memory that libsodium takes."""
MAX_PASSPHRASE: Final = 4096
"""Most bytes of a passphrase."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a guess at the passphrase costs: `opslimit` passes over `memlimit` bytes.

    Raises:
        ValueError: outside the bounds of this module. They are checked here because the values come from files, and a
            file must not decide how much memory or time we spend.
    """

    opslimit: int
    memlimit: int

    def __post_init__(self) -> None:
        if not MIN_MEMORY <= self.memlimit <= MAX_MEMORY:
            raise ValueError(f"memlimit must be between {MIN_MEMORY} and {MAX_MEMORY} bytes")
        if not 1 <= self.opslimit <= MAX_WORK // self.memlimit:
            raise ValueError(f"opslimit must be between 1 and {MAX_WORK // self.memlimit} with this memlimit")


DEFAULT_COST: Final = Cost(opslimit=3, memlimit=256 << 20)
"""libsodium's "moderate": about 0.7 s and 256 MiB a guess, which a small home server still has."""


@dataclass(frozen=True, slots=True, repr=False)
class SealedBox:
    """Something sealed under a passphrase, with all that opening it needs except the passphrase.

    Raises:
        ValueError: a salt that has not 16 bytes.
    """

    cost: Cost
    salt: bytes
    box: bytes
    """``nonce(24) ciphertext tag(16)``, 40 bytes more than the content."""

    def __post_init__(self) -> None:
        if len(self.salt) != p.SALT_SIZE:
            raise ValueError(f"the salt must have {p.SALT_SIZE} bytes")

    def open(self, passphrase: bytes) -> bytes:
        """Return the content.

        Raises:
            OpenError: the passphrase is wrong, or anything was changed.
            MemoryError: `cost.memlimit` bytes cannot be had.
        """
        return p.secretbox_open(_key(passphrase, self.salt, self.cost), self.box)

    def __repr__(self) -> str:
        return "SealedBox(…)"


def seal(
    content: bytes,
    passphrase: bytes,
    cost: Cost = DEFAULT_COST,
    random_bytes: Callable[[int], bytes] = p.random_bytes,
) -> SealedBox:
    """Return `content` sealed under `passphrase`.

    Raises:
        ValueError: the passphrase is empty.
        MemoryError: `cost.memlimit` bytes cannot be had.
    """
    if not passphrase:
        raise ValueError("the passphrase is empty")
    salt = random_bytes(p.SALT_SIZE)
    key = _key(passphrase, salt, cost)
    return SealedBox(cost, salt, p.secretbox_seal(key, random_bytes(p.NONCE_SIZE), content))


def encode(passphrase: str) -> bytes:
    """Return a typed passphrase as bytes: UTF-8 of its composed form (NFC), the same from every keyboard and system."""
    return unicodedata.normalize("NFC", passphrase).encode()


def encode_typed(passphrase: str) -> bytes:
    """Return :func:`encode` of what a person typed or put into a file, once it is clear that it can serve.

    Raises:
        ValueError: it is empty, too long, or holds what UTF-8 cannot carry; the text says which and does not repeat it.
    """
    try:
        encoded = encode(passphrase)
    except UnicodeEncodeError:
        raise ValueError("the passphrase is not UTF-8 text") from None
    if not encoded:
        raise ValueError("the passphrase is empty")
    if len(encoded) > MAX_PASSPHRASE:
        raise ValueError(f"the passphrase is longer than {MAX_PASSPHRASE} bytes")
    return encoded


def _key(passphrase: bytes, salt: bytes, cost: Cost) -> bytes:
    return p.passphrase_key(passphrase, salt, opslimit=cost.opslimit, memlimit=cost.memlimit)
