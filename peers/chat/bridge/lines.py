"""Bytes cut into lines, and lines read as texts to somebody. Pure: nothing is read or sent here.

A line is data. There is no line that does anything but say something to a peer, whoever wrote it.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from peers.chat.text import clean, clean_line
from peers.store.contacts import LABEL_MAX, ContactRow

LINE_MAX: Final = 512 * 1024
"""Most bytes of a line: a text of 64 KiB in JSON, each byte of it written as ``\\u00xx``, and its recipient."""

_HEAD_MAX: Final = 4 * LABEL_MAX
"""Characters within which a label ends: with another case it may be longer than it is."""


class BadLine(Exception):
    """A line that cannot be sent. The text says why and what to do, and repeats nothing of the line."""


class Line(NamedTuple):
    """A line, or a part of one that is too long.

    Attributes:
        raw: as it came, with its end; the last one of a file may have none.
        whole: it is a line, not a part.
    """

    raw: bytes
    whole: bool


class Splitter:
    """Cuts bytes into lines, however they are cut when they come; holds a line at most, and never a longer one."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._within_long = False

    @property
    def waiting(self) -> int:
        """Bytes of a line whose end has not come yet."""
        return len(self._rest)

    def feed(self, piece: bytes) -> list[Line]:
        """Take what came next; returns the lines that this completes."""
        lines = []
        self._rest += piece
        start = 0
        while (end := self._rest.find(b"\n", start)) >= 0:
            lines.append(self._line(bytes(self._rest[start : end + 1])))
            self._within_long = False
            start = end + 1
        del self._rest[:start]
        if len(self._rest) > LINE_MAX:
            lines.append(Line(bytes(self._rest), whole=False))
            self._rest.clear()
            self._within_long = True
        return lines

    def end(self) -> list[Line]:
        """Return what is left when nothing more comes."""
        rest = bytes(self._rest)
        self._rest.clear()
        return [self._line(rest)] if rest else []

    def _line(self, raw: bytes) -> Line:
        return Line(raw, whole=not self._within_long and len(raw) <= LINE_MAX)


class Reader:
    """Tells for each line to whom it goes and what it says.

    With a single peer a line is the text, whatever stands in it. With several, ``LABEL: text`` goes to the peer of that
    label, and further lines without a label as well, until another one is named. With `json` a line is
    ``{"to": LABEL, "text": TEXT}``, and nothing in TEXT can name another recipient.

    Args:
        peers: those that can be named.
        json: whether lines are JSON.
    """

    def __init__(self, peers: Sequence[ContactRow], *, json: bool) -> None:
        self._json = json
        self._by_label = {peer.label.casefold(): peer.id for peer in peers}
        self._by_id = {peer.public.id.hex(): peer.id for peer in peers}
        self._only = peers[0].id if len(peers) == 1 else None
        self._chosen: int | None = None

    def read(self, line: Line) -> tuple[int, str] | None:
        """Return the row of the contact and the text; None for a line that says nothing.

        Raises:
            BadLine: it cannot be sent.
        """
        if not line.whole:
            raise BadLine(f"a line has more than {LINE_MAX} bytes: send it as a file")
        try:
            text = line.raw.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            raise BadLine("a line is not UTF-8") from None
        if not text.strip():
            return None
        return self._object(text) if self._json else self._plain(text)

    def _plain(self, text: str) -> tuple[int, str] | None:
        if self._only is not None:
            return self._only, text
        ends = (at for at, character in enumerate(text[:_HEAD_MAX]) if character == ":")
        # The longest first: a label may hold colons, and begin as another one ends.
        for end in reversed(list(ends)):
            contact = self._by_label.get(text[:end].casefold())
            if contact is not None:
                self._chosen, text = contact, text[end + 1 :].removeprefix(" ")
                break
        if self._chosen is None:
            raise BadLine("there are several peers and none is chosen: begin a line with LABEL: (or use --json)")
        return (self._chosen, text) if text.strip() else None

    def _object(self, text: str) -> tuple[int, str]:
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise BadLine('a line is not JSON: {"to": LABEL, "text": TEXT}') from None
        if not isinstance(value, dict) or not isinstance(value.get("text"), str) or value.keys() - {"to", "text"}:
            raise BadLine('a line is {"to": LABEL, "text": TEXT} and nothing else')
        to = value.get("to")
        if to is None:
            if self._only is None:
                raise BadLine('there are several peers: name one in "to"')
            return self._only, value["text"]
        name = to.casefold() if isinstance(to, str) else ""
        contact = self._by_label.get(name, self._by_id.get(name))
        if contact is None:
            raise BadLine('"to" is no peer of this bridge: use the label or the whole peer_id')
        return contact, value["text"]


def one_line(text: str) -> str:
    """Return a text of a peer as one line that acts on no terminal: line breaks as ``\\n``, other control characters
    left out. Backslashes stay as they are, so it cannot be turned back; JSON can."""
    return clean(text).replace("\n", "\\n")


def label_of(contact: ContactRow) -> str:
    """Return a label as it stands before a colon."""
    return clean_line(contact.label)
