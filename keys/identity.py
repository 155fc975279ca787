"""Identities: the key pairs that make a party, and the public halves by which others know it."""

from collections.abc import Callable
from typing import Final

from keys import primitives as p
from keys.errors import BadKey

ID_SIZE: Final = 8
"""Bytes of a client id: the first of the X25519 public key."""
SERVER_ID: Final = bytes(ID_SIZE)
"""The all-zero id: it means "the server" and belongs to nobody."""


class PublicIdentity:
    """The public halves of a party: an X25519 key and an Ed25519 key (32 bytes each). Checked when made, immutable.

    Raises:
        BadKey: wrong sizes, an X25519 key that is not canonical, or one whose id would be the server's.
    """

    __slots__ = ("ed_pub", "x_pub")

    x_pub: bytes
    ed_pub: bytes

    def __init__(self, x_pub: bytes, ed_pub: bytes) -> None:
        p.check_x25519_public(x_pub)
        if len(ed_pub) != p.KEY_SIZE:
            raise BadKey(f"an Ed25519 public key has {p.KEY_SIZE} bytes, not {len(ed_pub)}")
        if x_pub[:ID_SIZE] == SERVER_ID:
            raise BadKey("the all-zero id belongs to the server")
        object.__setattr__(self, "x_pub", bytes(x_pub))
        object.__setattr__(self, "ed_pub", bytes(ed_pub))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a public identity does not change")

    @property
    def id(self) -> bytes:
        """The client id (8 bytes)."""
        return self.x_pub[:ID_SIZE]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PublicIdentity):
            return NotImplemented
        return self.x_pub == other.x_pub and self.ed_pub == other.ed_pub

    def __hash__(self) -> int:
        return hash((self.x_pub, self.ed_pub))

    def __repr__(self) -> str:
        # Ids and keys say who talks; they stay out of logs and tracebacks.
        return "PublicIdentity(…)"

    def __reduce__(self) -> tuple[type["PublicIdentity"], tuple[bytes, bytes]]:
        # Copies and unpickled ones are made, and so checked, like any other.
        return PublicIdentity, (self.x_pub, self.ed_pub)


class Identity:
    """A party that we are: two seeds, the key pairs made from them, and the public halves.

    Args:
        x_seed: 32 bytes, the X25519 secret (clamped as it is used, RFC 7748 §5).
        ed_seed: 32 bytes, the Ed25519 seed (RFC 8032 §5.1.5).

    Raises:
        BadKey: wrong sizes, or the one seed in 2⁶⁴ whose id would be the server's.
    """

    __slots__ = ("_ed_seed", "_signing_key", "_x_seed", "public")

    def __init__(self, x_seed: bytes, ed_seed: bytes) -> None:
        ed_pub, self._signing_key = p.ed25519_keypair(ed_seed)
        self.public = PublicIdentity(p.x25519_public(x_seed), ed_pub)
        self._x_seed = bytes(x_seed)
        self._ed_seed = bytes(ed_seed)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes] = p.random_bytes) -> "Identity":
        """Make a new identity from 64 random bytes."""
        return cls(random_bytes(p.KEY_SIZE), random_bytes(p.KEY_SIZE))

    @property
    def id(self) -> bytes:
        """The client id (8 bytes)."""
        return self.public.id

    @property
    def seeds(self) -> tuple[bytes, bytes]:
        """``(x_seed, ed_seed)``, for those who store them. Never log or print them."""
        return self._x_seed, self._ed_seed

    def shared_with(self, x_pub: bytes) -> bytes:
        """Return the raw X25519 secret (32 bytes) shared with the owner of `x_pub`.

        Raises:
            BadKey: a key that is not canonical or of low order.
        """
        return p.x25519_shared(self._x_seed, x_pub)

    def sign(self, message: bytes) -> bytes:
        """Return our 64-byte Ed25519 signature over `message`."""
        return p.ed25519_sign(self._signing_key, message)

    def __repr__(self) -> str:
        return "Identity(…)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("an identity is not pickled: its seeds would travel in clear")
