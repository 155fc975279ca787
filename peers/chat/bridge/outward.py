"""From the peers to a program: what comes into the store is printed, a line each, and then marked as read.

In this order, so that a kill in between prints a line twice and loses none. In JSON each line has the number of its
event, the cursor, by which a program can tell.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

from peers.chat import happenings
from peers.chat.bridge.lines import label_of, one_line
from peers.chat.bridge.place import Place
from peers.chat.bridge.report import Report
from peers.chat.happenings import Happening
from peers.chat.output import as_json
from peers.chat.pipes import Output
from peers.store import Connection, contacts, feed, messages
from peers.store.contacts import ContactRow
from peers.store.feed import Kind
from peers.store.message_rows import MessageRow

CURSOR: Final = "bridge"
_SHOWN: Final = frozenset({Kind.MESSAGE, Kind.STATE, Kind.EDITED, Kind.DELETED})


class Outward:
    """Prints. Made by :meth:`begin`."""

    def __init__(
        self, place: Place, peers: Sequence[ContactRow], output: Output, report: Report, after: int, *, json: bool
    ) -> None:
        self._place = place
        self._store = place.session.store
        self._peers = {peer.public for peer in peers}  # not their rows, which others may get
        self._several = len(peers) > 1
        self._output = output
        self._report = report
        self._json = json
        self._after = after
        self._started = 0
        self._connection = ""
        self._ending = asyncio.Event()

    @classmethod
    async def begin(
        cls, place: Place, peers: Sequence[ContactRow], output: Output, report: Report, *, json: bool
    ) -> "Outward":
        """Make one that goes on where the last one ended; the first one of a profile begins with what is unread."""
        store = place.session.store
        after = await store.write(_begin, [peer.id for peer in peers])
        made = cls(place, peers, output, report, after, json=json)
        made._started = await store.read(feed.last)
        return made

    async def run(self) -> None:
        """Print until :meth:`finish` was called and all is printed that is here, or nobody reads any more."""
        ending = asyncio.create_task(self._ending.wait())
        version = -1
        try:
            while True:
                was_ending = self._ending.is_set()
                version = self._store.version()
                await self._print_all()
                if was_ending:
                    return
                changed = asyncio.create_task(self._store.changed(version))
                await asyncio.wait({changed, ending}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                await asyncio.gather(changed, return_exceptions=True)
        except BrokenPipeError:
            self._report.note("nobody reads stdout any more")
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    def finish(self) -> None:
        """Print what is here, and no more."""
        self._ending.set()

    async def _print_all(self) -> None:
        while found := await self._store.read(happenings.read, self._after):
            written: asyncio.Future[None] | None = None
            for each in found:
                line = self._line(each)
                if line is not None:
                    await self._output.write(line.encode("utf-8", "backslashreplace") + b"\n")
                    # Not awaited yet: further lines go out while this is committed, and several commits become one.
                    written = self._store.submit(
                        _printed,
                        self._place.session.now(),
                        each.event.seq,
                        each.message if each.is_incoming else None,
                        tell=self._place.session.settings.read_receipts,
                    )
                else:
                    await self._other(each)
                self._after = each.event.seq
            if written is not None:
                await written
            await self._store.write(feed.advance, CURSOR, self._after)

    def _line(self, happening: Happening) -> str | None:
        event, contact, message = happening.event, happening.contact, happening.message
        if event.kind not in _SHOWN or contact is None or message is None or contact.public not in self._peers:
            return None
        if self._json:
            # Of the states those of our own messages: that we read theirs is our own doing.
            if event.kind is Kind.STATE and not message.outgoing:
                return None
            return as_json({**happening.record(), "trust": contact.trust})
        if event.kind is not Kind.MESSAGE or message.outgoing or message.deleted_at is not None:
            return None
        if message.kind != "text":
            return None
        text = one_line(message.text)
        return f"{label_of(contact)}: {text}" if self._several else text

    async def _other(self, happening: Happening) -> None:
        """What a program's line cannot say, or what is not about messages."""
        event, contact, message = happening.event, happening.contact, happening.message
        fresh = event.seq > self._started
        if event.kind is Kind.MESSAGE and message is not None and contact is not None and not self._json:
            if contact.public in self._peers and not message.outgoing and message.kind != "text":
                self._report.note(f"{label_of(contact)}: a {message.kind} came, which the bridge does not print")
        elif event.kind is Kind.CONTACT and event.detail == "new" and self._place.given is not None:
            await self._shut_out(contact)
        elif event.kind is Kind.NOTICE and fresh:
            self._report.note(event.detail)
        elif event.kind is Kind.CONNECTION and fresh:
            self._tell_connection(json.loads(event.detail))

    async def _shut_out(self, contact: ContactRow | None) -> None:
        """Block who introduced themselves where only the peers of the environment are wanted: nothing of theirs is kept
        or acknowledged, which would say that somebody has it."""
        if contact is not None and contact.public not in self._peers and not contact.blocked:
            await self._store.write(contacts.set_blocked, self._place.session.now(), contact.id, blocked=True)

    def _tell_connection(self, connection: dict[str, Any]) -> None:
        state = connection["state"]
        line = "connected" if state == "connected" else f"no connection: {connection['text'] or state}"
        if state != "connecting" and line != self._connection:
            self._connection = line
            self._report.note(line)


def _begin(db: Connection, peers: Sequence[int]) -> int:
    """Return where to go on."""
    row = db.execute("SELECT seq FROM cursors WHERE name = ?", (CURSOR,)).fetchone()
    if row is not None:
        return int(row[0])
    marks = ", ".join("?" * len(peers))
    oldest = db.execute(
        "SELECT min(e.seq) FROM events e JOIN messages m ON m.id = e.message"  # noqa: S608
        f" WHERE e.kind = 'message' AND m.outgoing = 0 AND m.read_at IS NULL AND m.contact IN ({marks})",
        tuple(peers),
    ).fetchone()[0]
    after = feed.last(db) if oldest is None else int(oldest) - 1
    feed.advance(db, CURSOR, after)
    return after


def _printed(db: Connection, now: int, seq: int, message: MessageRow | None, *, tell: bool) -> None:
    feed.advance(db, CURSOR, seq)
    if message is not None:
        messages.mark_read(db, now, message.contact, message.id, since=message.id, tell=tell)
