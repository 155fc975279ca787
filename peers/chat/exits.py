"""The exit statuses of ``blindrelay-chat``. They do not change: scripts rely on them (docs/chat.md)."""

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    UNEXPECTED = 1
    """A bug, or something that nobody thought of."""
    USAGE = 2
    """Wrong usage, or input that makes no sense."""
    NOT_FOUND = 3
    """No such profile, contact, message or file."""
    NOT_IN_TIME = 4
    """Not in time, or no connection. What was written is kept, and goes out later."""
    REFUSED = 5
    """The relay does not serve us, or is not the one whose keys we know."""
    FAILED_THERE = 6
    """It failed at the other side: a file that was refused, or arrived damaged; or safety numbers that differ."""
    INTERRUPTED = 130
