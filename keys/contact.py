"""A contact: somebody whose keys we have, and the secret that we share with them."""

from collections.abc import Callable

from keys import packet
from keys import primitives as p
from keys.errors import BadKey
from keys.identity import Identity, PublicIdentity
from keys.invite import Invite, display_name


class Contact:
    """Another party as one of our identities sees it. The shared secret is computed once, when this is made.

    Args:
        ours: the identity that talks to them.
        public: their keys.
        nickname: what they call themselves; not proven by anything.

    Raises:
        BadKey: their X25519 key is of low order, or one of their keys is ours.
    """

    __slots__ = ("_ours", "_shared", "nickname", "public")

    def __init__(self, ours: Identity, public: PublicIdentity, nickname: str = "") -> None:
        # Only the signing keys tell the two directions of a pair apart: with one key on both sides, a packet that is
        # sent back to its author would open as if the other had written it.
        if public.x_pub == ours.public.x_pub or public.ed_pub == ours.public.ed_pub:
            raise BadKey("these keys are our own")
        self.public = public
        self.nickname = nickname
        self._ours = ours
        self._shared = ours.shared_with(public.x_pub)

    @classmethod
    def from_invite(cls, ours: Identity, invite: Invite) -> "Contact":
        """Make a contact of an invite that was received.

        Raises:
            BadKey: the invite is our own.
        """
        return cls(ours, invite.public, invite.nickname)

    @property
    def id(self) -> bytes:
        """Their client id (8 bytes)."""
        return self.public.id

    @property
    def display_name(self) -> str:
        """Their nickname as it may be shown (see :func:`keys.invite.display_name`)."""
        return display_name(self.nickname)

    def seal(self, plaintext: bytes, random_bytes: Callable[[int], bytes] = p.random_bytes) -> bytes:
        """Return the packet that carries `plaintext` to them: 104 bytes longer (PROTOCOL.md §4)."""
        return packet.seal(plaintext, self._ours, self._shared, random_bytes)

    def open(self, sealed: bytes) -> bytes:
        """Return the plaintext of a packet from them.

        A packet opens as often as it is delivered: the caller remembers the nonces it has seen.

        Raises:
            OpenError: for any reason.
        """
        return packet.open_packet(sealed, self.public.ed_pub, self._shared)

    def __repr__(self) -> str:
        return "Contact(…)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a contact is not pickled: the shared secret would travel in clear")
