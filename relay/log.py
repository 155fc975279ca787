"""Logging: structlog to standard error. Events, counts and reasons; no ids, keys or addresses of clients, ever.

An exception is logged as its type and the places it went through: its text and the values of its variables may hold
what a client sent.
"""

import asyncio
import logging
import sys
import traceback
from typing import Any, Final

import structlog

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_always: dict[str, object] = {}


def name_process(**fields: object) -> None:
    """Put these fields into every line from now on: of several processes that write to one place, which it was."""
    _always.update(fields)


def _add_always(
    _logger: structlog.typing.WrappedLogger, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event.update(_always)
    return event


def configure(level: str) -> None:
    """Set up logging for the process: for people on a terminal, JSON lines elsewhere."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _add_always,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        # A line in one write: those of several processes that write to one place must not run into each other.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        # Not cached: SIGHUP may change the level, and a logger that was used keeps the one it was made with.
        cache_logger_on_first_use=False,
    )


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
