"""Logging: structlog to standard error, JSON unless that is a terminal. No ids, tokens, endpoints or hosts, ever.

An exception is logged as its type and the places it went through: its text and the values of its variables may hold
what a client registered.
"""

import asyncio
import logging
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import structlog

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_SAY_AGAIN: Final = 60.0
"""Seconds between two lines about the same event."""


def configure(level: str) -> None:
    """Set up logging for the process.

    The standard library's loggers are silenced: those of the HTTP client and of the push libraries name hosts and
    tokens in their lines.
    """
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    root = logging.getLogger()
    root.handlers[:] = [logging.NullHandler()]
    root.setLevel(logging.CRITICAL)


class Seldom:
    """Keeps what others can cause as often as they like from filling the log: each event is logged once a minute.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def may_say(self, event: str) -> bool:
        """Tell whether an event is to be logged now; if so, it was."""
        now = self._clock()
        if now - self._said.get(event, float("-inf")) < _SAY_AGAIN:
            return False
        self._said[event] = now
        return True

    def error(self, event: str, **fields: object) -> None:
        """Log an event as an error, or not."""
        if self.may_say(event):
            structlog.get_logger().error(event, **fields)


def where(error: BaseException) -> list[str]:
    """Return the places an exception went through, without any values."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


def log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop reports; its own handler would print the objects involved."""
    error = context.get("exception")
    structlog.get_logger().error(
        "internal_error",
        message=context.get("message"),
        error=None if error is None else type(error).__name__,
        where=[] if error is None else where(error),
    )
