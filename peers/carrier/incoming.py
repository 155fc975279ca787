"""The way in: packets opened, kept, and only then acknowledged."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from keys.errors import OpenError
from keys.primitives import NONCE_SIZE
from peers.carrier.lane import CardsTag, ChangeTag, Lane
from peers.carrier.post import Post
from peers.carrier.transfers import Transfers
from peers.client import NotConnected, PeerPacket
from peers.dropping.places import is_near
from peers.store import Connection, contacts, file_steps, mailboxes, messages, owing, parcels, unsettled
from peers.store.errors import NoSuchContact
from wire.commands import Body
from wire.errors import WireError
from wire.inner import parse_inner
from wire.peer_commands import (
    Call,
    ChangeAck,
    Delete,
    DeliveryAck,
    Edit,
    FileCancel,
    FileChunk,
    FileEnd,
    FileOffer,
    FileWant,
    PeerBody,
    PeerCommand,
    ReadAck,
    Text,
    parse_from_peer,
)
from wire.peer_mailboxes import Acks, Mailboxes

B = TypeVar("B", bound=PeerBody)

_OURS_FROM: Final = 0x60
_ANSWERS: Final = 1024
"""Packets whose commit is still awaited; beyond that no more are read from the relay."""


class Incoming:
    """Takes packets in order. Their writes are put in line at once, and answered in that order once they are committed:
    so many packets share one commit, which on a memory card takes longer than all else."""

    def __init__(self, post: Post, transfers: Transfers) -> None:
        self._post = post
        self._transfers = transfers
        self._answers: asyncio.Queue[tuple[asyncio.Future[Any], Lane, Body | None]] = asyncio.Queue(_ANSWERS)

    async def take(self, event: PeerPacket) -> None:
        """Take one packet. What does not open, or makes no sense, is dropped: the relay could have made it up."""
        lane = self._post.by_peer_id.get(event.sender_id)
        if lane is None or lane.row.blocked:
            return
        try:
            inner = parse_inner(lane.contact.open(event.packet))
            body = parse_from_peer(inner.command, inner.body)
        except (OpenError, WireError):
            return
        await self._met(lane, inner.command, body)
        with suppress(NoSuchContact):  # removed by another process, of which the feed will tell us
            await self._act(lane, event.packet[:NONCE_SIZE], body)

    async def take_left(self, lane: Lane, packet: bytes) -> "asyncio.Future[Any] | None":
        """Take one packet that was left in a mailbox; returns what is done once it is in the store, if anything is.

        What it asks for an acknowledgement is owed from then on, in the same transaction: the way on which it came
        leads nobody back. Nothing of it is done twice, however many copies come, and on whatever ways.
        """
        if lane.row.blocked:
            return None
        try:
            inner = parse_inner(lane.contact.open(packet))
            body = parse_from_peer(inner.command, inner.body)
        except (OpenError, WireError):
            return None
        await self._met(lane, inner.command, body)
        post, contact, nonce = self._post, lane.row.id, packet[:NONCE_SIZE]
        match body:
            case Text() | Edit() | Delete() | Mailboxes():
                return post.store.submit(_left, post.now(), contact, nonce, self._usable(body))
            case DeliveryAck(uuid) | ReadAck(uuid):
                return self._note(lane, uuid, read=isinstance(body, ReadAck))
            case ChangeAck() | Acks():
                return await self._note_all(lane, body if isinstance(body, Acks) else Acks(changed=(body.nonce,)))
            case _:
                return None  # files and calls want both sides at once

    async def answer(self) -> None:
        """Acknowledge what was committed, for ever; raises what the store raises. What is no answer to anything, as an
        acknowledgement of theirs, is only waited for: whoever floods us with these must not fill the line of writes."""
        while True:
            written, lane, answer = await self._answers.get()
            try:
                if await written and answer is not None:
                    await self._post.send(lane, answer)
            except NotConnected:
                pass  # they send it again, and it is acknowledged then
            except NoSuchContact:
                pass  # removed meanwhile: nobody is answered
            finally:
                self._answers.task_done()

    async def settled(self) -> None:
        """Return when all that came was answered."""
        await self._answers.join()

    async def _act(self, lane: Lane, nonce: bytes, body: PeerBody) -> None:
        post, contact = self._post, lane.row.id
        match body:
            case Text(uuid, text):
                await self._then(post.store.submit(_received, post.now(), contact, uuid, text), lane, DeliveryAck(uuid))
            case DeliveryAck(uuid) | ReadAck(uuid):
                await self._then(self._note(lane, uuid, read=isinstance(body, ReadAck)), lane, None)
            case Acks():
                noted = await self._note_all(lane, body)
                if noted is not None:
                    await self._then(noted, lane, None)
            case Mailboxes():
                written = post.store.submit(_heard, post.now(), contact, self._usable(body))
                await self._then(written, lane, ChangeAck(nonce))
            case Edit(uuid, text):
                written = post.store.submit(messages.receive_edit, post.now(), contact, nonce, uuid, text)
                await self._then(written, lane, ChangeAck(nonce))
            case Delete(uuid):
                written = post.store.submit(_deleted, post.now(), contact, nonce, uuid)
                await self._then(written, lane, ChangeAck(nonce))
            case ChangeAck(changed):
                await self._changed(lane, changed)
            case Call(PeerCommand.CALL_REQUEST):
                written = post.store.submit(_called, post.now(), contact, nonce)
                # Nothing here can take a call, and a caller who knows does not let it ring.
                await self._then(written, lane, Call(PeerCommand.CALL_REJECT))
            case FileOffer() | FileChunk() | FileEnd() | FileWant() | FileCancel():
                await self._transfers.take(lane, nonce, body)
            case _:
                pass  # of no concern to us: another program's codes

    async def _met(self, lane: Lane, command: int, body: PeerBody) -> None:
        extended = command >= _OURS_FROM or (isinstance(body, FileOffer) and body.pull is not None)
        if not lane.row.knows_us or (extended and not lane.row.extended):
            await self._post.store.write(contacts.met, lane.row.id, extended=extended)
            # Not read again: while that takes, the row may be replaced by one that says more, such as that they are
            # blocked.
            lane.row = replace(lane.row, knows_us=True, extended=lane.row.extended or extended)

    def _note(self, lane: Lane, uuid: bytes, *, read: bool) -> "asyncio.Future[int | None]":
        post = self._post
        noted = post.store.submit(file_steps.acknowledged, post.now(), lane.row.id, uuid, read=read)
        noted.add_done_callback(lambda done: self._acknowledged(done, lane, uuid))
        return noted

    async def _note_all(self, lane: Lane, acks: Acks) -> "asyncio.Future[int | None] | None":
        # The last commit of several is that of all: writes are committed in order.
        noted = None
        for uuid in acks.delivered:
            noted = self._note(lane, uuid, read=False)
        for uuid in acks.read:
            noted = self._note(lane, uuid, read=True)
        for nonce in acks.changed:
            await self._changed(lane, nonce)
        return noted

    def _usable(self, body: B) -> B:
        """Return a list of mailboxes without those that no contact may have us connect to."""
        if not isinstance(body, Mailboxes) or self._post.loopback:
            return body
        listed = tuple(each for each in body.listed if not is_near(each.card.url))
        return replace(body, listed=listed)

    def _acknowledged(self, noted: "asyncio.Future[int | None]", lane: Lane, uuid: bytes) -> None:
        # Off the way only now: until the commit the store has it as one that is to be sent.
        if noted.cancelled() or noted.exception() is not None:
            return
        file = noted.result()
        if file is not None:
            self._transfers.arrived(file)
        if lane.acknowledged(uuid):
            lane.patience = self._post.options.resend
            self._post.stirred.set()

    async def _changed(self, lane: Lane, nonce: bytes) -> None:
        found = self._post.tag_of(nonce)
        # The nonce must be one of a packet to this very contact: nobody answers for another.
        if found is None or found[0] is not lane:
            await self._post.store.write(parcels.answered, lane.row.id, nonce)
            return
        tag = found[1]
        if isinstance(tag, CardsTag):
            await self._post.store.write(mailboxes.tell_settled, lane.row.id, tag.serial)
        elif isinstance(tag, ChangeTag):
            await self._post.store.write(unsettled.changes_settled, [(tag.message, tag.revision)])
            lane.changes.pop(tag.message, None)

    async def _then(self, written: "asyncio.Future[Any]", lane: Lane, answer: Body | None) -> None:
        # Of a store that fails, the first of these tells whoever carries; the others need not tell the terminal.
        written.add_done_callback(lambda done: done.cancelled() or done.exception())
        await self._answers.put((written, lane, answer))


def _received(db: Connection, now: int, contact: int, uuid: bytes, text: str) -> bool:
    messages.receive(db, now, contact, uuid, text)
    return True  # acknowledged also if it was here before: then the last acknowledgement was lost


def _heard(db: Connection, now: int, contact: int, body: Mailboxes) -> bool:
    mailboxes.heard(db, now, contact, body.serial, body.listed, body.nickname)
    return True


def _left(db: Connection, now: int, contact: int, nonce: bytes, body: Text | Edit | Delete | Mailboxes) -> None:
    # One packet has a copy in each mailbox. Another packet that says the same was sealed because no acknowledgement
    # came: for that one there is another.
    if messages.remembered(db, contact, nonce):
        return
    match body:
        case Text(uuid, text):
            messages.first_time(db, contact, nonce)
            messages.receive(db, now, contact, uuid, text)
            owing.owe(db, contact, DeliveryAck.command, uuid)
            return
        case Edit(uuid, text):
            if not messages.receive_edit(db, now, contact, nonce, uuid, text):
                return  # of what is not here: its author says it again when both are online
        case Delete(uuid):
            messages.receive_delete(db, now, contact, nonce, uuid)
        case Mailboxes():
            messages.first_time(db, contact, nonce)
            _heard(db, now, contact, body)
    owing.owe(db, contact, ChangeAck.command, nonce)


def _deleted(db: Connection, now: int, contact: int, nonce: bytes, uuid: bytes) -> bool:
    messages.receive_delete(db, now, contact, nonce, uuid)
    return True


def _called(db: Connection, now: int, contact: int, nonce: bytes) -> bool:
    if not messages.first_time(db, contact, nonce):
        return False
    messages.receive(db, now, contact, messages.uuid(), "", "call")
    return True
