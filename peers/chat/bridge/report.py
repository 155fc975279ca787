"""What a bridge says on stderr: to a person, or with JSON to a program. Never what peers wrote."""

import json
import sys
from typing import Final

from peers.chat.text import clean_line

_PROGRAM: Final = "blindrelay-chat"


class Report:
    """Says things, one line each.

    Args:
        json: as objects.
        quiet: nothing but what went wrong.
    """

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self._json = json
        self._quiet = quiet

    def trouble(self, text: str) -> None:
        """Say what went wrong."""
        self._say("warning", text)

    def note(self, text: str) -> None:
        """Say what happens."""
        if not self._quiet:
            self._say("note", text)

    def _say(self, kind: str, text: str) -> None:
        line = clean_line(text)
        print(json.dumps({kind: line}) if self._json else f"{_PROGRAM}: {line}", file=sys.stderr, flush=True)
