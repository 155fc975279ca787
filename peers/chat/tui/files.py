"""Files on the screen: how they look in a conversation, and what can be done with them."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from textual.content import Content

from peers.chat.session import Session
from peers.chat.text import clean_line
from peers.chat.tui import show
from peers.chat.tui.path_dialog import PathDialog
from peers.store import files
from peers.store.errors import NoSuchMessage
from peers.store.files import FileRow
from peers.store.message_rows import MessageRow

_BAR: Final = 16
"""Cells of a progress bar, so that it and its numbers fit into a narrow conversation."""
_DOWNLOADS: Final = "Downloads"

Show = Callable[[PathDialog], Awaitable[str | None]]
"""Shows a dialog and waits for its end."""


def body(row: FileRow) -> Content:
    """Return what a conversation shows of a file: its name, its size and how far it is, in words and as a bar."""
    name = Content.assemble("▤ ", (show.shown_text(row.name), "bold"))
    return Content.assemble(name, "\n", _state(row))


def _state(row: FileRow) -> Content:
    size = show.size(row.size)
    if row.state == "moving":
        return Content.assemble(progress(row.moved, row.size), f" of {size}")
    if row.state == "failed":
        return Content.assemble(f"{size} · ", ("✗ ", "bold $text-error"), row.why)
    if row.state == "offered":
        return (
            Content(f"{size} · offered")
            if row.outgoing
            else Content.assemble(f"{size} · ", ("waits for your yes: a accepts, x refuses", "bold"))
        )
    return Content(f"{size} · arrived" if row.outgoing else f"{size} · here: s saves a copy")


def progress(moved: int, size: int) -> Content:
    """Return a bar and a percentage. Only what is whole is full: 100 % is for nothing less."""
    part = min(moved / size, 1.0) if size else 1.0
    full = int(part * _BAR)
    return Content.assemble(
        ("█" * full, "$accent"), ("░" * (_BAR - full), "$foreground-muted"), f" {int(part * 100)} %"
    )


def read(db: sqlite3.Connection, wanted: Iterable[int]) -> dict[int, FileRow]:
    """Return the files of messages; those that have none are left out."""
    found = {}
    for message in wanted:
        try:
            found[message] = files.get(db, message)
        except NoSuchMessage:
            continue
    return found


class Files:
    """What can be done with files.

    Args:
        session: the profile.
        ask: see :data:`Show`.
        tell: tells the user that something was done.
    """

    def __init__(self, session: Session, ask: Show, tell: Callable[[str], None]) -> None:
        self._session, self._ask, self._tell = session, ask, tell

    async def bodies(self, rows: Iterable[MessageRow]) -> dict[int, Content]:
        """Return what is shown of those messages that are files."""
        wanted = [row.id for row in rows if row.kind == "file" and row.deleted_at is None]
        if not wanted:
            return {}
        found = await self._session.store.read(read, wanted)
        return {message: body(row) for message, row in found.items()}

    async def choices(self, message: MessageRow) -> list[tuple[str, str]]:
        """Return what can be done with a file as it is now."""
        row = (await self._session.store.read(read, [message.id])).get(message.id)
        return [] if row is None else list(_choices(row))

    async def act(self, action: str, message: MessageRow) -> bool:
        """Do something with a file; False if `action` is none of ours.

        Raises:
            BadFile: it cannot be done with this file as it is.
        """
        store, now = self._session.store, self._session.now()
        if action == "accept":
            await store.write(files.accept, now, message.id)
        elif action == "cancel":
            await store.write(files.cancel, now, message.id)
        elif action == "save":
            await self._save(await store.read(files.get, message.id))
        else:
            return False
        return True

    async def send(self, contact: int, name: str) -> None:
        """Ask for a path, and offer the file there to a contact."""

        async def offer(path: Path) -> None:
            await self._session.store.write(files.offer, self._session.now(), contact, path)

        await self._ask(PathDialog(f"Send a file to {name}", offer, value=_directory(Path.cwd())))

    async def _save(self, row: FileRow) -> None:
        async def save(path: Path) -> None:
            saved = await asyncio.to_thread(files.save, row, self._session.profile.files_path, path)
            self._tell(f"saved as {clean_line(str(saved))}")

        title = f"Save {clean_line(row.name)}: into which directory, or as what?"
        value = await asyncio.to_thread(_downloads)
        await self._ask(PathDialog(title, save, value=value, directories=True))


def _choices(row: FileRow) -> Iterator[tuple[str, str]]:
    if row.state == "offered" and not row.outgoing:
        yield "accept", "Accept  (a)"
    if row.state == "done" and not row.outgoing:
        yield "save", "Save a copy…  (s)"
    if row.open:
        yield "cancel", ("Cancel  (x)" if row.outgoing or row.state == "moving" else "Refuse  (x)")


def _downloads() -> str:
    directory = Path.home() / _DOWNLOADS
    return _directory(directory if directory.is_dir() else Path.cwd())


def _directory(path: Path) -> str:
    return f"{path}/" if path != Path("/") else "/"
