"""Waiting for what was written to get somewhere, and saying why it has not."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from peers.chat.commands.frame import NotInTime
from peers.chat.session import Session
from peers.chat.views import label, unwelcome
from peers.client.errors import RelayRefused
from peers.store import Connection, contacts, feed, files, mailboxes, messages, parcels, unsettled
from peers.store.contacts import ContactRow
from peers.store.file_rows import FileRow
from peers.store.message_rows import MessageRow, State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a message of ours stands.

    Attributes:
        message: the message.
        contact: its recipient.
        connected: somebody has a connection to the relay, which has told who is online.
        untold: how often a change of the message was sent without an answer; None if there is nothing to be told.
        leaving: something about it is about to be left in mailboxes of its recipient, or dropped there.
    """

    message: MessageRow
    contact: ContactRow
    connected: bool
    untold: int | None
    leaving: bool

    @property
    def offline(self) -> bool:
        """Whether its recipient is known to be offline."""
        return self.connected and not self.contact.online

    @property
    def settled(self) -> bool:
        """Whether it was acknowledged, or nothing can be done until its recipient comes."""
        if self.message.state >= State.DELIVERED:
            return True
        return not self.leaving and (self.offline or (self.message.left > 0 and not self.contact.online))

    @property
    def told(self) -> bool:
        """Whether its recipient has acknowledged the last change, or nothing can be done until they come."""
        return not self.leaving and (self.untold is None or self.offline)


def standing(message: int) -> Callable[[Connection], Standing]:
    """Return what reads how a message stands."""

    def read(db: Connection) -> Standing:
        row = messages.get(db, message)
        connected = feed.connection(db)["state"] == "connected"
        tries, leaving = unsettled.change_tries(db, message), parcels.pending(db, message)
        return Standing(row, contacts.get(db, row.contact), connected, tries, leaving)

    return read


@dataclass(frozen=True, slots=True)
class FileStanding:
    """How a file stands.

    Attributes:
        file: the file.
        message: its message.
        contact: whose it is, or who is to have it.
        connected: as in :class:`Standing`.
    """

    file: FileRow
    message: MessageRow
    contact: ContactRow
    connected: bool

    @property
    def offline(self) -> bool:
        """Whether the other side is known to be offline."""
        return self.connected and not self.contact.online


def file_standing(message: int) -> Callable[[Connection], FileStanding]:
    """Return what reads how the file of a message stands."""

    def read(db: Connection) -> FileStanding:
        row = messages.get(db, message)
        connected = feed.connection(db)["state"] == "connected"
        return FileStanding(files.get(db, message), row, contacts.get(db, row.contact), connected)

    return read


async def within(
    session: Session, seconds: float | None, read: Callable[[Connection], T], holds: Callable[[T], bool]
) -> T | None:
    """Return what `read` gives of the store once it is as wanted; None if it is not within so many seconds, if
    these are given."""
    try:
        async with asyncio.timeout(seconds):
            return await session.until_store(read, holds)
    except TimeoutError:
        return None


def unwelcome_mailboxes(db: Connection, contact: int | None = None) -> list[str]:
    """Return a sentence about each mailbox of a contact, or of all, that does not take the token that we show."""
    return [unwelcome(each) for each in mailboxes.unwelcome(db, contact)]


async def raise_why(session: Session, contact: ContactRow, what: str, seconds: float) -> None:
    """Raise for what did not happen in time, and say why as far as is known.

    Raises:
        RelayRefused: the relay does not serve us now, because our id is in use there.
        NotInTime: any other reason.
    """
    link = await session.store.read(feed.connection)
    row = await session.store.read(contacts.get, contact.id)
    if link["state"] == "refused":
        raise RelayRefused(f"{what}: {link['text']}; it is kept")
    if link["state"] != "connected":
        text = f": {link['text']}" if link["text"] else ""
        why = f"there is no connection to the relay{text}"
    elif not row.online:
        why = f"{label(row)} is offline"
    else:
        why = f"nothing came back from {label(row)}"
    raise NotInTime(
        f"{what} within {seconds:g} s: {why}; it is kept, and goes out while a program of this profile is connected"
    )
