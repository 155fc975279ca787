"""What commands print: lines for people, or with ``--json`` one object per line for programs.

What peers wrote is cleaned before it gets here (:mod:`peers.chat.views`), and is never taken as markup. JSON is pure
ASCII: escaped, no control character and no bidirectional mark can act on a terminal.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from peers.chat import pipes
from peers.chat.text import clean_line

PROGRAM: Final = "blindrelay-chat"
_GAP: Final = 2
"""Cells of a terminal between two columns."""
_ROOM: Final = 8
"""Fewest cells of a terminal in which a column that is cut is worth showing."""


class Output:
    """Where a command prints.

    Args:
        json: objects instead of lines.
        quiet: neither hints nor confirmations; what was asked for and errors are printed all the same.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def show(self, record: dict[str, Any], text: str) -> None:
        """Print what was asked for: `record` as JSON, or `text`."""
        print(as_json(record) if self.json else text)

    def confirm(self, record: dict[str, Any], text: str) -> None:
        """Print what was done."""
        if not self.quiet:
            self.show(record, text)

    def hint(self, text: str) -> None:
        """Say something to a person; on stderr, so that it never mixes with what was asked for."""
        if not (self.quiet or self.json):
            print(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """Say on stderr what a person must know, and what does not keep the command from its work."""
        complain(text, "warning", json=self.json)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table that fits the terminal; where there is none, whole cells with tabs between and no heads.

        What matters least stands last: it is cut, or left out, if the terminal is narrow. The cells are lines as
        :func:`peers.chat.text.clean_line` gives them.
        """
        if not sys.stdout.isatty():
            for row in rows:
                print("\t".join(row))
            return
        # Here and not above: it takes longer to import than a message takes to arrive.
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False, markup=False, emoji=False)
        widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
        count, room = _fitting(widths, console.width)
        table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, _GAP, 0, 0))
        for head in heads[:count]:
            table.add_column(Text(head, style="bold"), overflow="ellipsis", no_wrap=True)
        for row in rows:
            cells = [Text(cell) for cell in row[:count]]
            # Rich would narrow all columns alike.
            cells[-1].truncate(room, overflow="ellipsis")
            table.add_row(*cells)
        console.print(table)

    def ask(self, question: str) -> bool | None:
        """Ask a person a question of yes or no; None if there is nobody to ask."""
        if self.json or not sys.stdin.isatty():
            return None
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().casefold() in ("y", "yes")


def _fitting(widths: Sequence[int], total: int) -> tuple[int, int]:
    """Return how many of these columns fit, and how many cells the last of them has."""
    count = len(widths)
    while True:
        room = total - sum(widths[: count - 1]) - _GAP * (count - 1)
        if count == 1 or room >= min(_ROOM, widths[count - 1]):
            return count, max(room, 1)
        count -= 1


def as_json(record: dict[str, Any]) -> str:
    """Return one line of JSON, in ASCII."""
    return json.dumps(record, separators=(",", ":"))


def complain(text: str, kind: str, *, json: bool, **more: Any) -> None:
    """Print an error or a warning: one line on stderr."""
    line = clean_line(text)
    print(as_json({kind: line, **more}) if json else f"{PROGRAM}: {line}", file=sys.stderr)


def leave_stdout() -> None:
    """Let what is left in the buffer of stdout go nowhere: its reader went away, and Python would try again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Lines:
    """Prints lines for a running event loop, each at once, and however long its reader rests (:mod:`peers.chat.pipes`):
    messages are carried all the same while somebody looks at ``| less``."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._encoding = sys.stdout.encoding or "utf-8"
        self._pipe = pipes.Output(sys.stdout.fileno())

    async def put(self, line: str) -> None:
        """Print a line; returns when the operating system has it.

        Raises:
            OSError: it cannot be printed; BrokenPipeError if nobody reads any more.
        """
        await self._pipe.write(f"{line}\n".encode(self._encoding, "backslashreplace"))
