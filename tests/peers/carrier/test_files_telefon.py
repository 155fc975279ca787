"""Files to and from programs that never ask for chunks: telefon v2 and its like."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from peers.carrier import CarrierOptions, sending
from peers.carrier.departure import Departure
from peers.client import ClientOptions
from peers.store import contacts, feed, file_rows, files, messages
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier.conversation import WAIT, Person
from tests.peers.carrier.moving import CHUNK, MIB, left, make, offer, until_over, until_removed
from tests.peers.carrier.scripted_peer import ScriptedPeer
from tests.support.clients import run_async
from tests.support.relay_process import RelayProcess
from wire.peer_commands import (
    CancelReason,
    DeliveryAck,
    FileChunk,
    FileEnd,
    FileOffer,
    FileWant,
    Text,
)

if TYPE_CHECKING:
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from peers.store.file_rows import FileRow

FAST = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2), resend=5.0, push_after=0.1)


@pytest.fixture
def theirs() -> Identity:
    return Identity.generate()


async def added(alice: Person, theirs: Identity) -> ContactRow:
    return await alice.store.write(contacts.add, alice.now(), theirs.public, nickname="Tele")


def app(relay: RelayProcess, theirs: Identity, alice: Person, queue: int = 1024) -> ScriptedPeer:
    return ScriptedPeer(relay, theirs, alice.keys.identity.public, queue)


# --- To them ----------------------------------------------------------------------------------------------------------


async def whole(peer: ScriptedPeer, row: FileRow) -> tuple[bytes, bytes]:
    """What comes until the end of a file: its content, if it comes in order and once, and the uuid."""
    content = b""
    while True:
        match await peer.any():
            case FileChunk(row.file_id, index, data):
                assert index * CHUNK == len(content)
                content += data
            case FileEnd(row.file_id, uuid):
                return content, uuid


@pytest.mark.parametrize("size", [0, 1, CHUNK, 3 * CHUNK + 5, 5 * MIB])
@run_async
async def test_all_is_sent_unasked(
    relay: RelayProcess, alice: Person, theirs: Identity, tmp_path: Path, size: int
) -> None:
    contact = await added(alice, theirs)
    content = make(tmp_path / "photo.jpg", size)
    async with app(relay, theirs, alice) as peer, alice.at(relay, FAST):
        await peer.until_there()
        row = await offer(alice, contact, tmp_path / "photo.jpg")
        offered = await peer.next(FileOffer)
        assert (offered.file_id, offered.name, offered.mime) == (row.file_id, "photo.jpg", "image/jpeg")
        assert offered.size == size
        assert await whole(peer, row) == (content, row.uuid)
        assert (await alice.store.read(files.get, row.message)).state == "moving"
        await peer.say(DeliveryAck(row.uuid))
        assert (await until_over(alice, row)).state == "done"
        assert (await alice.store.read(messages.get, row.message)).state is State.DELIVERED


@run_async
async def test_texts_go_beside_it(relay: RelayProcess, alice: Person, theirs: Identity, tmp_path: Path) -> None:
    contact = await added(alice, theirs)
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(512 * MIB)  # takes so long that no text waits for its end by chance
    async with app(relay, theirs, alice) as peer, alice.at(relay, FAST):
        await peer.until_there()
        row = await offer(alice, contact, tmp_path / "a.bin")
        for _ in range(3):
            await peer.next(FileChunk)
            said = await alice.says(contact, "meanwhile")
            while not isinstance(body := await peer.any(), Text):
                assert isinstance(body, FileChunk)
            await peer.say(DeliveryAck(body.uuid))
            await alice.until_delivered(said)
        await alice.store.write(files.cancel, alice.now(), row.message)
        await until_over(alice, row)


@run_async
async def test_whoever_went_is_sent_all_of_it_when_they_are_back(
    relay: RelayProcess, alice: Person, theirs: Identity, tmp_path: Path
) -> None:
    contact = await added(alice, theirs)
    content = make(tmp_path / "a.bin", 16 * MIB)
    async with alice.at(relay, FAST):
        async with app(relay, theirs, alice) as peer:
            await peer.until_there()
            row = await offer(alice, contact, tmp_path / "a.bin")
            while (await peer.next(FileChunk)).index < 20:
                continue
        await alice.until(contacts.get, lambda each: not each.online, contact.id)
        async with app(relay, theirs, alice) as peer:
            assert (await peer.next(FileOffer)).file_id == row.file_id
            assert await whole(peer, row) == (content, row.uuid)
            await peer.say(DeliveryAck(row.uuid))
            assert (await until_over(alice, row)).tries == 2


@run_async
async def test_a_slow_one_is_sent_from_where_the_relay_refused(
    alice: Person, theirs: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, original = asyncio.Event(), Departure.refused

    def noted(departure: Departure, index: int) -> None:
        original(departure, index)
        refused.set()

    monkeypatch.setattr(Departure, "refused", noted)
    contact = await added(alice, theirs)
    content = make(tmp_path / "a.bin", 48 * MIB)
    (tmp_path / "relay").mkdir()
    relay = RelayProcess(
        tmp_path / "relay", limits={"queue_size": 512 * 1024, "queue_share": 64 * 1024, "flush_size": 64 * 1024}
    )
    async with app(relay, theirs, alice, queue=8) as peer, alice.at(relay, FAST):
        await peer.until_there()
        row = await offer(alice, contact, tmp_path / "a.bin")
        came: dict[int, bytes] = {}
        offers = 0
        async with asyncio.timeout(WAIT):
            await refused.wait()  # nothing is taken until then, and so nothing read
        while True:
            body = await peer.any()
            offers += isinstance(body, FileOffer)
            if isinstance(body, FileChunk):
                came[body.index] = body.data
            if isinstance(body, FileEnd):
                break
        assert offers == 1
        assert b"".join(came[index] for index in sorted(came)) == content
        await peer.say(DeliveryAck(row.uuid))
        await until_over(alice, row)
    relay.check()
    assert relay.stopped["refusals"]


@run_async
async def test_whoever_never_acknowledges_is_not_sent_it_for_ever(
    relay: RelayProcess, alice: Person, theirs: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_PUSHES", 2)
    contact = await added(alice, theirs)
    content = make(tmp_path / "a.bin", 3 * CHUNK)
    async with alice.at(relay, FAST):
        row = await offer(alice, contact, tmp_path / "a.bin")
        for _ in range(2):
            async with app(relay, theirs, alice) as peer:
                assert await whole(peer, row) == (content, row.uuid)
            await alice.until(contacts.get, lambda each: not each.online, contact.id)
        async with app(relay, theirs, alice) as peer:
            await peer.next(FileOffer)
            assert (await until_over(alice, row)).reason == CancelReason.GIVEN_UP
    assert (await alice.store.read(messages.get, row.message)).state is State.FAILED


@run_async
async def test_whoever_knows_how_to_ask_is_sent_nothing_unasked(
    relay: RelayProcess, alice: Person, theirs: Identity, tmp_path: Path
) -> None:
    contact = await added(alice, theirs)
    make(tmp_path / "a.bin", 3 * CHUNK)
    async with app(relay, theirs, alice) as peer, alice.at(relay, replace(FAST, push_after=0.01, resend=0.05)):
        await peer.until_there()
        await peer.say(FileWant(os.urandom(16), 0, 1))
        await alice.until(contacts.get, lambda each: each.extended, contact.id)
        await offer(alice, contact, tmp_path / "a.bin")
        offers = 0
        while offers < 5:
            body = await peer.any()
            assert not isinstance(body, FileChunk | FileEnd)
            offers += isinstance(body, FileOffer)


@run_async
async def test_asking_in_the_middle_ends_what_comes_unasked(
    relay: RelayProcess, alice: Person, theirs: Identity, tmp_path: Path
) -> None:
    contact = await added(alice, theirs)
    content = make(tmp_path / "a.bin", 64 * MIB)
    async with app(relay, theirs, alice) as peer, alice.at(relay, FAST):
        await peer.until_there()
        row = await offer(alice, contact, tmp_path / "a.bin")
        await peer.next(FileChunk)
        await peer.say(FileWant(row.file_id, 2047, 1))
        came = [0]
        while came[-1] != 2047:
            body = await peer.any()
            assert not isinstance(body, FileEnd)
            if isinstance(body, FileChunk):
                came.append(body.index)
        assert body == FileChunk(row.file_id, 2047, content[-CHUNK:])
        assert len(came) < 2000


# --- From them --------------------------------------------------------------------------------------------------------


class Sent:
    """A file as such a program sends it."""

    def __init__(self, content: bytes, chunk: int, name: str = "photo.jpg") -> None:
        self.content = content
        self.file_id, self.uuid = messages.uuid(), messages.uuid()
        self.offer = FileOffer(self.file_id, name, "image/jpeg", len(content))
        self.chunks = [
            FileChunk(self.file_id, index, content[index * chunk :][:chunk])
            for index in range(-(-len(content) // chunk))
        ]
        self.end = FileEnd(self.file_id, self.uuid)


def some(rows: list[FileRow]) -> bool:
    return bool(rows)


def some_came(rows: list[FileRow]) -> bool:
    return any(row.moved for row in rows)


async def the_file(alice: Person, contact: ContactRow) -> FileRow:
    (row,) = await alice.store.read(files.list_of, contact.id)
    return row


@pytest.mark.parametrize("order", ["forwards", "backwards", "last first", "twice"])
@pytest.mark.parametrize(("size", "chunk"), [(0, 1), (1, 65536), (40000, 16000), (64000, 16000), (300000, 16384)])
@run_async
async def test_what_comes_unasked_is_kept(
    relay: RelayProcess, alice: Person, theirs: Identity, size: int, chunk: int, order: str
) -> None:
    contact = await added(alice, theirs)
    sent = Sent(os.urandom(size), chunk)
    chunks = {
        "forwards": sent.chunks,
        "backwards": sent.chunks[::-1],
        "last first": sent.chunks[-1:] + sent.chunks[:-1],
        "twice": [each for each in sent.chunks for _ in range(2)],
    }[order]
    async with app(relay, theirs, alice) as peer, alice.at(relay, FAST):
        await peer.until_there()
        await peer.say(sent.offer, *chunks, sent.end)
        assert await peer.next(DeliveryAck) == DeliveryAck(sent.uuid)
        row = await the_file(alice, contact)
        assert (row.state, row.name, row.mime, row.uuid) == ("done", "photo.jpg", "image/jpeg", sent.uuid)
        assert files.content_path(alice.files_dir, row).read_bytes() == sent.content
        message = await alice.store.read(messages.get, row.message)
        assert (message.kind, message.uuid) == ("file", sent.uuid)


@run_async
async def test_what_is_missing_is_waited_for_and_comes_when_it_is_sent_again(
    relay: RelayProcess, alice: Person, theirs: Identity
) -> None:
    contact = await added(alice, theirs)
    sent = Sent(os.urandom(100_000), 16384)
    async with alice.at(relay, FAST):
        async with app(relay, theirs, alice) as peer:
            await peer.until_there()
            await peer.say(sent.offer, *sent.chunks[:3], *sent.chunks[4:], sent.end, Text(sent.file_id, "after it"))
            assert await peer.next(DeliveryAck) == DeliveryAck(sent.file_id)  # of the text, and none of the file
            row = await the_file(alice, contact)
            assert row.state == "moving"
            assert left(alice) == [file_rows.part_name(row.message)]
        async with app(relay, theirs, alice) as peer:
            await peer.until_there()
            await peer.say(sent.offer, *sent.chunks, sent.end)
            assert await peer.next(DeliveryAck) == DeliveryAck(sent.uuid)
        row = await the_file(alice, contact)
        assert files.content_path(alice.files_dir, row).read_bytes() == sent.content
        events = [each for each in await alice.store.read(feed.read, 0) if each.kind is Kind.MESSAGE]
        assert len(events) == 2  # the file and the text, told of once


@run_async
async def test_what_is_never_whole_fails_and_leaves_nothing(
    relay: RelayProcess, alice: Person, theirs: Identity
) -> None:
    contact = await added(alice, theirs)
    sent = Sent(os.urandom(100_000), 16384)
    async with app(relay, theirs, alice) as peer, alice.at(relay, replace(FAST, stall=1.0)):
        await peer.until_there()
        await peer.say(sent.offer, *sent.chunks[:-1], sent.end)
        rows = await alice.until(files.list_of, some, contact.id)
        row = await until_over(alice, rows[0])
        assert (row.state, row.reason) == ("failed", CancelReason.GIVEN_UP)
        await until_removed(alice)
        await peer.say(sent.offer, *sent.chunks, sent.end)  # they could not know, and send it again
        assert await peer.next(DeliveryAck) == DeliveryAck(sent.uuid)
        assert files.content_path(alice.files_dir, row).read_bytes() == sent.content


@run_async
async def test_what_is_too_big_is_refused(relay: RelayProcess, alice: Person, theirs: Identity) -> None:
    contact = await added(alice, theirs)
    sent = Sent(os.urandom(5000), 1024)
    async with app(relay, theirs, alice) as peer, alice.at(relay, replace(FAST, auto_accept=4999)):
        await peer.until_there()
        await peer.say(sent.offer, *sent.chunks, sent.end, Text(sent.file_id, "after it"))
        assert await peer.next(DeliveryAck) == DeliveryAck(sent.file_id)
        row = await the_file(alice, contact)
        assert (row.state, row.reason) == ("failed", CancelReason.REFUSED)
        assert left(alice) == []


@run_async
async def test_we_are_restarted_while_it_comes(relay: RelayProcess, alice: Person, theirs: Identity) -> None:
    contact = await added(alice, theirs)
    sent = Sent(os.urandom(200_000), 16384)
    async with app(relay, theirs, alice) as peer:
        async with alice.at(relay, FAST):
            await peer.until_there()
            await peer.say(sent.offer, *sent.chunks[:5])
            await alice.until(files.list_of, some_came, contact.id)
        async with alice.at(relay, FAST):
            await peer.until_there()
            await peer.say(*sent.chunks[5:], sent.end)
            assert await peer.next(DeliveryAck) == DeliveryAck(sent.uuid)
    row = await the_file(alice, contact)
    assert files.content_path(alice.files_dir, row).read_bytes() == sent.content


@run_async
async def test_an_acknowledgement_that_was_lost(relay: RelayProcess, alice: Person, theirs: Identity) -> None:
    contact = await added(alice, theirs)
    sent = Sent(os.urandom(20_000), 16384)
    async with app(relay, theirs, alice) as peer, alice.at(relay, FAST):
        await peer.until_there()
        for _ in range(3):
            await peer.say(sent.offer, *sent.chunks, sent.end)
            assert await peer.next(DeliveryAck) == DeliveryAck(sent.uuid)
        again = Sent(sent.content, 16384)  # after a restart of theirs: the same message under another id of the file
        await peer.say(again.offer, *again.chunks, FileEnd(again.file_id, sent.uuid))
        assert await peer.next(DeliveryAck) == DeliveryAck(sent.uuid)
        row = await the_file(alice, contact)
        assert files.content_path(alice.files_dir, row).read_bytes() == sent.content
        await alice.until(lambda _: left(alice), lambda names: len(names) == 1)


@run_async
async def test_chunks_of_senseless_sizes_come_to_nothing(relay: RelayProcess, alice: Person, theirs: Identity) -> None:
    contact = await added(alice, theirs)
    tiny, mixed, long = Sent(bytes(5000), 1), Sent(os.urandom(50_000), 16384), Sent(bytes(100), 200)
    mixed.chunks[1] = FileChunk(mixed.file_id, 1, mixed.chunks[1].data[:-1])
    long.chunks[0] = FileChunk(long.file_id, 0, bytes(101))
    async with app(relay, theirs, alice) as peer, alice.at(relay, FAST):
        await peer.until_there()
        for sent in (tiny, mixed, long):
            await peer.say(sent.offer, *sent.chunks[:100], sent.end)
        await peer.say(Text(tiny.file_id, "after it"))
        assert await peer.next(DeliveryAck) == DeliveryAck(tiny.file_id)
        rows = await alice.store.read(files.list_of, contact.id)
        assert [row.state for row in rows] == ["moving"] * 3
