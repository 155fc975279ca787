"""From a program to the peers: lines of stdin and of a watched file become messages in the store."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from keys.identity import PublicIdentity
from peers.chat.bridge.lines import BadLine, Line, Reader, Splitter
from peers.chat.bridge.place import Place, keep
from peers.chat.bridge.report import Report
from peers.chat.bridge.watch import Position, Tail, Unwatchable
from peers.chat.pipes import Input
from peers.profile import ProfileError
from peers.store import Connection, contacts, messages, status
from peers.store.contacts import ContactRow
from peers.store.errors import NoSuchContact, StoreError
from peers.store.message_rows import MessageRow

UNDELIVERED_MAX: Final = 10_000
"""Messages that may wait for their recipients. Beyond that no lines are read, and whoever writes them waits: a program
that never rests and a peer who never comes must not fill the disk."""
_LOOK: Final = 0.25
"""Seconds between looks at a watched file: other programs' writes can be awaited only by other means on each system."""


class Inward:
    """Sends lines.

    Attributes:
        refused: a line could not be sent.
    """

    def __init__(self, place: Place, peers: Sequence[ContactRow], report: Report, *, json: bool) -> None:
        self._place = place
        self._store = place.session.store
        self._peers = list(peers)
        self._keys = {peer.id: peer.public for peer in peers}
        self._report = report
        self._json = json
        self._first = 0
        self._tail: Tail | None = None
        self.refused = False

    async def take_all(self, source: Input) -> None:
        """Send the lines of stdin, to its end."""
        reader, splitter = Reader(self._peers, json=self._json), Splitter()
        while piece := await source.read():
            await self._send(reader, splitter.feed(piece))
        await self._send(reader, splitter.end())

    async def follow(self, path: Path) -> None:
        """Send the new lines of a file, an absolute path, for ever.

        Raises:
            ProfileError: it is none that can be followed.
        """
        loop = asyncio.get_running_loop()
        reader = Reader(self._peers, json=self._json)
        name = f"watch:{path}"
        known = await self._store.read(status.get, name)
        tail = self._tail = Tail(path, None if known is None else Position.parse(known))
        told = ""
        while True:
            try:
                batch = await loop.run_in_executor(None, tail.look)
            except Unwatchable as error:
                if not told and known is None:
                    raise ProfileError(str(error)) from None
                if told != str(error):
                    told = str(error)
                    self._report.trouble(f"{told}; trying again")
                batch = None
            else:
                known, told = "", ""
            if batch is None:
                await asyncio.sleep(_LOOK)
                continue
            if batch.note:
                self._report.trouble(batch.note)
            await self._send(reader, batch.lines, (name, batch.position.encode()))

    async def delivered(self) -> None:
        """Return as soon as everything that was sent since the start has arrived, or lies in a mailbox."""
        if self._first:
            await self._place.session.until_store(
                lambda db: _undelivered(db, [peer.id for peer in self._peers], self._first, left=False),
                lambda count: count == 0,
            )

    def close(self) -> None:
        """Let the watched file go."""
        if self._tail is not None:
            self._tail.close()

    async def _send(self, reader: Reader, lines: Sequence[Line], position: tuple[str, str] | None = None) -> None:
        """Write lines to the store in one transaction, with the place in the file where they end."""
        if not lines and position is None:
            return
        items: list[tuple[int, str, bytes]] = []
        for line in lines:
            try:
                read = reader.read(line)
            except BadLine as error:
                await self._keep(line.raw, str(error))
            else:
                if read is not None:
                    items.append((*read, line.raw))
        await self._room()
        written = await self._store.write(_compose, self._place.session.now(), self._keys, items, position)
        for (_, _, raw), result in zip(items, written, strict=True):
            if isinstance(result, MessageRow):
                self._first = self._first or result.id
            else:
                await self._keep(raw, str(result))

    async def _keep(self, raw: bytes, why: str) -> None:
        """Put a line that cannot be sent aside. It is said where, never what: stderr often goes to a log."""
        self.refused = True
        path = self._place.unsent
        try:
            await asyncio.get_running_loop().run_in_executor(None, keep, path, raw)
        except OSError as error:
            self._report.trouble(f"{why}. The line is lost: cannot write {path}: {error.strerror}")
        else:
            self._report.trouble(f"{why}. The line was kept in {path}")

    async def _room(self) -> None:
        ids = [peer.id for peer in self._peers]
        if await self._store.read(_undelivered, ids) < UNDELIVERED_MAX:
            return
        self._report.trouble(f"{UNDELIVERED_MAX} messages wait for their recipients: no more lines are read")
        await self._place.session.until_store(
            lambda db: _undelivered(db, ids), lambda count: count < UNDELIVERED_MAX // 2
        )


def _compose(
    db: Connection,
    now: int,
    keys: Mapping[int, PublicIdentity],
    items: Sequence[tuple[int, str, bytes]],
    position: tuple[str, str] | None,
) -> list[MessageRow | StoreError]:
    results: list[MessageRow | StoreError] = []
    for contact, text, _ in items:
        try:
            if contacts.get(db, contact).public != keys[contact]:
                # They were removed, and somebody who came after got their row.
                raise NoSuchContact("that contact was removed")
            results.append(messages.compose(db, now, contact, text))
        except StoreError as error:  # raised before anything is written
            results.append(error)
    if position is not None:
        status.put(db, now, *position)
    return results


def _undelivered(db: Connection, peers: Sequence[int], first: int = 0, *, left: bool = True) -> int:
    """Count messages that have not arrived; with `left`, also those that lie in mailboxes."""
    return sum(
        db.execute(
            "SELECT count(*) FROM messages m WHERE contact = ? AND outgoing = 1 AND state < 2 AND deleted_at IS NULL"
            " AND id >= ? AND (? OR NOT EXISTS"
            " (SELECT 1 FROM parcels p WHERE p.message = m.id AND p.what = 'text' AND p.state = 'kept'))",
            (contact, first, left),
        ).fetchone()[0]
        for contact in peers
    )
