"""Telling the operator of what went wrong, without ids, keys and addresses, and not for every request anew."""

from peers.mailbox.meter import Metrics
from peers.mailbox.store import StoreError
from peers.service.log import Seldom, where


class Trouble:
    """Logs an error of a kind once a minute at most, and counts each."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seldom = Seldom()

    def tell(self, error: BaseException) -> None:
        """Tell of an error."""
        if isinstance(error, StoreError):
            self._metrics.failed("store")
            # Its text names the file and what to do, and nothing of its content.
            self._seldom.error("store_trouble", reason=str(error))
        else:
            self._metrics.failed("internal")
            self._seldom.error("internal_error", error=type(error).__name__, where=where(error))
