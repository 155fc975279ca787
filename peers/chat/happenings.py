"""What happened in a store, as ``listen`` tells it: events of the feed, with whom and what they are about."""

import json
from dataclasses import dataclass
from typing import Any, Final

from peers.chat.text import clean_line
from peers.chat.views import contact_record, content, file_line, indented, label, local, message_record, stamp
from peers.store import Connection, contacts, feed, files, messages
from peers.store.contacts import ContactRow
from peers.store.errors import StoreError
from peers.store.feed import EventRow, Kind
from peers.store.file_rows import PROGRESS, FileRow
from peers.store.message_rows import MessageRow

_ABOUT_MESSAGES: Final = frozenset({Kind.MESSAGE, Kind.STATE, Kind.EDITED, Kind.DELETED, Kind.FILE})

_FILE_NEWS: Final = frozenset({"offered", "done", "failed"})


@dataclass(frozen=True, slots=True)
class Happening:
    """An event, with what it is about as that stands now."""

    event: EventRow
    contact: ContactRow | None
    message: MessageRow | None
    file: FileRow | None

    @property
    def is_incoming(self) -> bool:
        """Whether it is a message of theirs."""
        return self.event.kind is Kind.MESSAGE and self.message is not None and not self.message.outgoing

    @property
    def is_news(self) -> bool:
        """Whether it is of interest to whoever waits for what others say and do."""
        match self.event.kind:
            case Kind.MESSAGE | Kind.EDITED | Kind.DELETED:
                return self.message is not None and not self.message.outgoing
            case Kind.FILE:
                return self.file is not None and not self.file.outgoing and self.event.detail in _FILE_NEWS
            case Kind.CONTACT:
                return self.event.detail == "new" and self.contact is not None
            case Kind.NOTICE:
                return True
        return False

    def record(self) -> dict[str, Any]:
        """Return it for programs."""
        event = self.event
        record: dict[str, Any] = {"cursor": event.seq, "event": event.kind.value, "happened_at": stamp(event.at)}
        if event.kind is Kind.CONNECTION:
            return {**record, **_parsed(event.detail)}
        if event.detail:
            record["detail"] = event.detail
        if self.message is not None and self.contact is not None:
            return {**record, **message_record(self.message, self.contact, self.file)}
        if self.contact is not None:
            return {**record, **contact_record(self.contact)}
        return record

    def line(self) -> str:
        """Return it for people."""
        event, message = self.event, self.message
        head = local(event.at)
        who = "somebody" if self.contact is None else label(self.contact)
        match event.kind:
            case Kind.MESSAGE if message is not None:
                return indented(f"{head}  {'me to ' if message.outgoing else ''}{who}: ", content(message, self.file))
            case Kind.FILE if message is not None and self.file is not None and event.detail != PROGRESS:
                return (
                    f"{head}  {'to ' if self.file.outgoing else ''}{who}, message {message.id}: {file_line(self.file)}"
                )
            case Kind.EDITED if message is not None:
                return indented(f"{head}  {who}, message {message.id} is now: ", content(message))
            case Kind.DELETED if message is not None:
                return f"{head}  {who}, message {message.id} was deleted"
            case Kind.CONTACT if self.contact is not None and event.detail == "new":
                return f"{head}  {who} is a new contact ({self.contact.trust})"
            case Kind.PRESENCE | Kind.STATE | Kind.FILE:
                what = "" if message is None else f", message {message.id}"
                return f"{head}  {who}{what}: {clean_line(event.detail)}"
            case Kind.CONNECTION:
                detail = _parsed(event.detail)
                return f"{head}  {detail['connection']}{': ' if detail['text'] else ''}{clean_line(detail['text'])}"
            case Kind.NOTICE:
                return f"{head}  {clean_line(event.detail)}"
        return f"{head}  {who}: {event.kind.value} {clean_line(event.detail)}".rstrip()


def read(db: Connection, after: int) -> list[Happening]:
    """Return what happened after a number of the feed, the oldest first; not all at once: see `feed.BATCH`."""
    known: dict[int, ContactRow | None] = {}
    return [_happening(db, event, known) for event in feed.read(db, after)]


def _happening(db: Connection, event: EventRow, known: dict[int, ContactRow | None]) -> Happening:
    contact = None
    if event.contact is not None:
        if event.contact not in known:
            known[event.contact] = _contact(db, event.contact)
        contact = known[event.contact]
    message = file = None
    if event.message is not None and event.kind in _ABOUT_MESSAGES:
        message = _message(db, event.message)
        file = None if message is None else file_of(db, message)
    return Happening(event, contact, message, file)


def file_of(db: Connection, message: MessageRow) -> FileRow | None:
    """Return the file that a message is, if it is one and was not deleted."""
    if message.kind != "file" or message.deleted_at is not None:
        return None
    try:
        return files.get(db, message.id)
    except StoreError:
        return None


def _contact(db: Connection, contact: int) -> ContactRow | None:
    try:
        return contacts.get(db, contact)
    except StoreError:
        return None  # removed since


def _message(db: Connection, message: int) -> MessageRow | None:
    try:
        return messages.get(db, message)
    except StoreError:
        return None  # gone with its contact


def _parsed(detail: str) -> dict[str, Any]:
    value = json.loads(detail)
    return {"connection": value["state"], "text": value["text"], "retry_in": value["retry_in"]}
