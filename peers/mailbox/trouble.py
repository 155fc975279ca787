"""Telling the operator of what went wrong, without ids, keys and addresses, and not for every request anew."""

import time
from typing import Final

import structlog

from peers.mailbox.meter import Metrics
from peers.mailbox.store import StoreError
from peers.service.log import where

_SAY_AGAIN: Final = 60.0


class Trouble:
    """Logs an error of a kind once a minute at most, and counts each."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._said: dict[str, float] = {}

    def tell(self, error: BaseException) -> None:
        """Tell of an error."""
        if isinstance(error, StoreError):
            self._metrics.failed("store")
            # Its text names the file and what to do, and nothing of its content.
            self.say("store_trouble", reason=str(error))
        else:
            self._metrics.failed("internal")
            self.say("internal_error", error=type(error).__name__, where=where(error))

    def say(self, event: str, **fields: object) -> None:
        """Log an event."""
        now = time.monotonic()
        if now - self._said.get(event, float("-inf")) >= _SAY_AGAIN:
            self._said[event] = now
            structlog.get_logger().error(event, **fields)
