"""What a command says: lines for people, or one JSON object per line for programs."""

import json
import sys
from datetime import UTC, datetime
from typing import Any, Final

from peers.chat.exits import Exit
from peers.chat.text import clean_line

_PROGRAM: Final = "blindrelay-chat"


class Failure(Exception):
    """The end of a command that can be expected.

    Args:
        text: what went wrong and what to do, in one line.
        exit_status: the status to exit with.
    """

    def __init__(self, text: str, exit_status: Exit = Exit.USAGE) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class Report:
    """Where a command prints: what was asked for on stdout, all else on stderr.

    Args:
        json: objects instead of lines.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def show(self, text: str, **fields: Any) -> None:
        """Print what was done or found: `text`, or `fields` as JSON."""
        print(json.dumps(fields) if self.json else text, flush=True)

    def warn(self, text: str) -> None:
        """Print what a person must know, and what does not keep the command from its work."""
        self._complain("warning", text)

    def fail(self, text: str, exit_status: Exit) -> Exit:
        """Print an error; returns the status."""
        self._complain("error", text, exit=int(exit_status))
        return exit_status

    def _complain(self, kind: str, text: str, **more: Any) -> None:
        line = clean_line(text)
        print(json.dumps({kind: line, **more}) if self.json else f"{_PROGRAM}: {line}", file=sys.stderr, flush=True)


def rfc3339(moment: datetime) -> str:
    """Return a time in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
