"""What a link needs of the node that it belongs to."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from relay.backplane.seals import Seals
from wire.frames import Random

if TYPE_CHECKING:
    from relay.backplane.link import Peer


class Owner(Protocol):
    """The node, as its links see it."""

    random: Random
    seals: Seals
    digest: bytes
    """What all nodes of a cluster agree on (16 bytes)."""
    versions: tuple[int, int]
    """The newest and the oldest version of what goes between nodes that this one speaks."""
    chunk: int
    clock: Callable[[], float]
    records_out: int
    records_in: int

    def send(self, subject: str, *parts: bytes) -> bool:
        """Publish a message, the parts one after another; False if nothing can leave now."""

    def dirty(self, peer: "Peer") -> None:
        """Let a link be flushed at the end of the turn."""

    def owes(self, peer: "Peer") -> None:
        """Let a link be flushed within some milliseconds: it has something to acknowledge."""

    def frames(self, peer: "Peer", data: bytes, position: int) -> tuple[int, int]:
        """Take the whole records of clients' frames that stand one after another from `position` on, one at least.

        Returns where they end, and how many they were.
        """

    def record(self, peer: "Peer", kind: int, body: bytes) -> None:
        """Take any other record."""

    def established(self, peer: "Peer", *, fresh: bool, empty: bool, silent: float) -> None:
        """A link is up. `fresh`: the other knows nothing of before; `empty`: and has no sessions.

        `silent` is for how many seconds it was not heard.
        """

    def dropped(self, record: bytes, origin: object) -> None:
        """A frame will not be sent again; it may have arrived."""

    def is_empty(self) -> bool:
        """Whether this node has no sessions."""

    def count(self, refused: str) -> None:
        """Count a message that was refused."""

    def stranger(self, peer: "Peer") -> None:
        """Another node has the secret and is not of the same relay."""

    def misfit(self, peer: "Peer", newest: int, oldest: int) -> None:
        """Another node speaks none of our versions, but these."""
