"""Who uses the subjects of a cluster and cannot be of it: an operator's mistake, which is said once, and clearly."""

from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from relay.backplane.link import Peer
    from relay.backplane.node import Backplane

_KEYS: Final = (
    "a relay with other keys, or with another notifier, uses the same cluster secret and subjects: give all "
    "relays of one cluster the same key file, and another relay a secret of its own"
)


class Outsiders:
    """What a node met that is no node of its cluster.

    Args:
        node: this node.
    """

    def __init__(self, node: "Backplane") -> None:
        self._node = node
        self._unsealed = False
        self._said: set[str] = set()
        self.refusal: str | None = None
        """Why this node cannot be one of those that it met, if it cannot: a text for an operator."""

    def unsealed(self) -> None:
        """Somebody announces itself under another secret."""
        # No error: two relays that have nothing to do with each other may use one NATS. Whoever meant them to be one
        # finds both healthy and each alone, and nothing else to tell why.
        if not self._unsealed:
            self._unsealed = True
            structlog.get_logger().warning(
                "cluster_other_secret",
                node=self._node.label,
                advice="somebody uses these subjects with another cluster secret; relays of one cluster have the same",
            )

    def stranger(self, peer: "Peer") -> None:
        """A node of another relay has our secret, and clients would not trust it."""
        self._node.count("other_relay")
        if self._first("other_relay", _KEYS):
            structlog.get_logger().error(
                "cluster_other_relay",
                node=self._node.label,
                advice="all relays of one cluster have the same key file; another relay needs another cluster secret",
            )
            self._node.linked()
        peer.gone()

    def misfit(self, peer: "Peer", newest: int, oldest: int) -> None:
        """A node speaks none of our versions: an upgrade that cannot be done node by node."""
        self._node.count("other_version")
        ours, theirs = spoken(*self._node.versions), spoken(newest, oldest)
        refusal = (
            "a relay of this cluster is of another version, and the two cannot work together (between relays it speaks "
            f"version {theirs}, this one {ours}): stop all relays of the cluster, and start them with one version"
        )
        if self._first("other_version", refusal):
            structlog.get_logger().error(
                "cluster_other_version",
                node=self._node.label,
                speaks=ours,
                other=theirs,
                advice="stop all relays of the cluster, and start them with one version",
            )
            self._node.linked()
        peer.gone()

    def _first(self, what: str, refusal: str) -> bool:
        self.refusal = self.refusal or refusal
        first = what not in self._said
        self._said.add(what)
        return first


def spoken(newest: int, oldest: int) -> str:
    """Return the versions that a node speaks as a text for people."""
    return str(newest) if newest == oldest else f"{oldest} to {newest}"
