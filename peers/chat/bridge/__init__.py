"""``blindrelay-chat bridge``: lines of a program to peers, and lines of peers to a program (docs/agents.md)."""

from peers.chat.bridge.main import BridgeOptions, run

__all__ = ["BridgeOptions", "run"]
