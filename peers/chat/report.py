"""What ``export``, ``import`` and ``doctor`` share in what they say."""

from datetime import UTC, datetime

from peers.chat.exits import Exit
from peers.chat.output import complain


class Failure(Exception):
    """The end of a command that can be expected.

    Args:
        text: what went wrong and what to do, in one line.
        exit_status: the status to exit with.
    """

    def __init__(self, text: str, exit_status: Exit = Exit.USAGE) -> None:
        super().__init__(text)
        self.exit_status = exit_status


def failed(text: str, exit_status: Exit, *, json: bool) -> Exit:
    """Print an error; returns the status."""
    complain(text, "error", json=json, exit=int(exit_status))
    return exit_status


def counted(number: int, thing: str) -> str:
    """Return a number with what it counts: ``1 contact``, ``2 contacts``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def rfc3339(moment: datetime) -> str:
    """Return a time in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
