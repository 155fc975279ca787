"""Tools that look: list_contacts, read_messages, acknowledge_messages, wait_for_reply, get_status."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

from mcp.server.mcpserver import Context
from pydantic import Field

from peers.chat.agent.desk import Desk, Refused
from peers.chat.agent.shapes import (
    Acknowledged,
    Contact,
    Contacts,
    Message,
    Messages,
    Reply,
    message,
    party,
)
from peers.chat.views import stamp
from peers.store import Connection, contacts, messages, readers
from peers.store.contacts import ContactRow
from peers.store.errors import NoSuchContact, NoSuchMessage
from peers.store.message_rows import MessageRow

PAGE: Final = 50
WAIT_MAX: Final = 600.0
_CURSOR: Final = re.compile(r"[0-9]{1,18}:[0-9]{1,18}(,[0-9]{1,18}:[0-9]{1,18}){0,9999}")

Name = Annotated[str, Field(description="The label of a contact, or its peer_id: see list_contacts.", max_length=256)]


class _Found(NamedTuple):
    contacts: list[ContactRow]
    rows: list[MessageRow]
    more: bool


class Reading:
    """The tools."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._store = desk.session.store

    async def list_contacts(self) -> Contacts:
        """List the contacts you may talk with."""
        async with self._desk.call("list_contacts") as facts:
            await self._begin()
            listed = await self._store.read(self._list)
            facts["count"] = len(listed)
            return Contacts(contacts=listed)

    async def read_messages(
        self,
        contact: Annotated[Name | None, Field(description="Only of this contact; without it, of all.")] = None,
        limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE,
    ) -> Messages:
        """Return messages you have not acknowledged, the oldest first. They come again until you acknowledge them."""
        async with self._desk.call("read_messages") as facts:
            rows = None if contact is None else [await self._desk.contact(contact, facts)]
            found = await self._waiting(rows, limit)
            facts["count"] = len(found.rows)
            return Messages(messages=_shown(found), cursor=_cursor(found.rows), more=found.more)

    async def acknowledge_messages(
        self, cursor: Annotated[str, Field(description="As read_messages or wait_for_reply gave it.", max_length=65536)]
    ) -> Acknowledged:
        """Say that you are done with messages: they are not returned again, and their senders see them as read."""
        async with self._desk.call("acknowledge_messages") as facts:
            up_to = _parse(cursor)
            seen = await self._store.write(self._acknowledge, up_to)
            facts["count"] = seen
            return Acknowledged(marked_read=seen)

    async def wait_for_reply(
        self,
        contact: Name,
        context: Context[Any, Any],
        timeout_seconds: Annotated[float, Field(ge=1, le=WAIT_MAX)] = 60,
        after: Annotated[
            int | None,
            Field(description="Only what came after this message: the id that send_message returned.", ge=0),
        ] = None,
    ) -> Reply:
        """Wait until a contact has written something you have not acknowledged, and return it."""
        async with self._desk.call("wait_for_reply", timeout=timeout_seconds) as facts:
            row = await self._desk.contact(contact, facts)
            await self._begin()
            found = await self._desk.wait(
                context, timeout_seconds, lambda db: self._read(db, [row], PAGE, after or 0), lambda now: bool(now.rows)
            )
            found = found or _Found([row], [], more=False)
            facts |= {"count": len(found.rows), "outcome": "done" if found.rows else "timed_out"}
            return Reply(messages=_shown(found), cursor=_cursor(found.rows), more=found.more, timed_out=not found.rows)

    async def count(self) -> tuple[int, int]:
        """Return how many contacts there are, and how many messages wait."""
        await self._begin()
        listed = await self._store.read(self._list)
        return len(listed), sum(contact.unacknowledged for contact in listed)

    async def _begin(self) -> None:
        """Whoever became a contact since begins too."""
        ids = [row.id for row in await self._store.read(self._desk.access.everyone)]
        await self._store.write(readers.begin, self._desk.reader, ids)

    async def _waiting(self, rows: list[ContactRow] | None, limit: int) -> _Found:
        await self._begin()
        return await self._store.read(self._read, rows, limit, 0)

    def _read(self, db: Connection, rows: list[ContactRow] | None, limit: int, after: int) -> _Found:
        them = self._desk.access.everyone(db) if rows is None else rows
        found = readers.waiting(db, self._desk.reader, [row.id for row in them], limit + 1, after=after)
        return _Found(them, found[:limit], len(found) > limit)

    def _list(self, db: Connection) -> list[Contact]:
        last = messages.latest(db)
        listed = []
        for row in self._desk.access.everyone(db):
            waiting = readers.count(db, self._desk.reader, row.id)
            at = stamp(last[row.id].at) if row.id in last else None
            listed.append(Contact(contact=party(row), online=row.online, unacknowledged=waiting, last_message_at=at))
        return listed

    def _acknowledge(self, db: Connection, up_to: dict[int, int]) -> int:
        for contact, number in up_to.items():
            try:
                row, last = contacts.get(db, contact), messages.get(db, number)
            except (NoSuchContact, NoSuchMessage):
                raise Refused("that cursor is about messages that are gone: call read_messages again") from None
            if not self._desk.access.allows(row.public) or last.contact != contact or last.outgoing:
                raise Refused("that is no cursor of read_messages or wait_for_reply")
        session = self._desk.session
        seen = readers.acknowledge(db, session.now(), self._desk.reader, up_to, tell=session.settings.read_receipts)
        return sum(seen.values())


def _shown(found: _Found) -> list[Message]:
    by_row = {row.id: row for row in found.contacts}
    return [message(row, by_row[row.contact]) for row in found.rows]


def _cursor(rows: Sequence[MessageRow]) -> str:
    """The last message of each contact: what is not returned is not acknowledged with it."""
    last = {row.contact: row.id for row in rows}
    return ",".join(f"{contact}:{message}" for contact, message in sorted(last.items()))


def _parse(cursor: str) -> dict[int, int]:
    cursor = cursor.strip()
    if not cursor:
        return {}
    if not _CURSOR.fullmatch(cursor):
        raise Refused("that is no cursor of read_messages or wait_for_reply")
    pairs = (part.split(":") for part in cursor.split(","))
    return {int(contact): int(message) for contact, message in pairs}
