"""The session of a service with its relay, as its client tells of it: counted, logged, and known to those who ask."""

from typing import Protocol

import structlog

from peers.client import Connected, Disconnected, IdInUse, Reason


class SessionCounts(Protocol):
    """What counts sessions."""

    def connected(self) -> None:
        """Count a session with the relay."""

    def disconnected(self, reason: Reason) -> None:
        """Count the end of one, or an attempt that failed."""


class RelaySession:
    """Whether there is a session with the relay.

    Args:
        service: what we are, for people.
    """

    def __init__(self, service: str, counts: SessionCounts) -> None:
        self._service = service
        self._counts = counts
        self.connected = False
        """Whether there is one now."""

    def take(self, event: Connected | Disconnected | IdInUse) -> None:
        """Take what the client tells of it."""
        log = structlog.get_logger()
        match event:
            case Connected():
                self.connected = True
                self._counts.connected()
                log.info("connected")
            case Disconnected(reason, text, retry_in):
                self.connected = False
                self._counts.disconnected(reason)
                log.warning("disconnected", reason=reason.value, text=text, retry_in=round(retry_in, 1))
            case IdInUse():
                log.error(
                    "id_in_use",
                    advice=f"another {self._service} runs with these keys: end it, or give it keys of its own",
                )
