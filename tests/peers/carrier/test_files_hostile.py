"""Files that are offered or taken without the other's good will."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from keys.primitives import Digest
from peers.carrier import CarrierOptions
from peers.client import ClientOptions
from peers.store import contacts, file_rows, files, messages
from tests.peers.carrier.moving import CHUNK, MIB, arrived, left, make, offer, until_over
from tests.peers.carrier.scripted_peer import ScriptedPeer
from tests.support.clients import run_async
from wire.peer_commands import (
    CancelReason,
    DeliveryAck,
    FileCancel,
    FileChunk,
    FileOffer,
    FileWant,
    Pull,
    Text,
)

if TYPE_CHECKING:
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from tests.peers.carrier.conversation import Person
    from tests.support.relay_process import RelayProcess

FAST = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2), resend=0.5)


BIG = 64 * MIB


@pytest.fixture
def mallory() -> Identity:
    return Identity.generate()


async def knows(bob: Person, peer: Identity) -> ContactRow:
    return await bob.store.write(contacts.add, bob.now(), peer.public, nickname="Mallory")


def digest_of(content: bytes) -> bytes:
    digest = Digest()
    digest.update(content)
    return digest.digest()


def offer_of(content: bytes, name: str = "a.bin", chunk: int = CHUNK) -> FileOffer:
    return FileOffer(messages.uuid(), name, "", len(content), Pull(messages.uuid(), chunk, digest_of(content)))


def chunks_of(asked: FileWant, content: bytes, chunk: int = CHUNK) -> list[FileChunk]:
    indexes = range(asked.first, asked.first + asked.count)
    return [FileChunk(asked.file_id, index, content[index * chunk :][:chunk]) for index in indexes]


async def asked(peer: ScriptedPeer) -> FileWant:
    """The next request for chunks; one for none of them says that the offer is kept."""
    while not (want := await peer.next(FileWant)).count:
        continue
    return want


# --- The other side ---------------------------------------------------------------------------------------------------


@run_async
async def test_a_corrupt_chunk_is_fetched_again_once(relay: RelayProcess, bob: Person, mallory: Identity) -> None:
    contact = await knows(bob, mallory)
    content = os.urandom(5 * CHUNK + 7)
    offers = [offer_of(content, "mended.bin"), offer_of(content, "corrupt.bin")]
    async with ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer, bob.at(relay):
        await peer.until_there()
        for offered in offers:
            await peer.say(offered)
            for attempt in range(2):
                chunks: list[FileChunk] = []
                while len(chunks) < 6:
                    chunks += chunks_of(await asked(peer), content)
                if attempt == 0 or offered is offers[1]:
                    chunks[2] = FileChunk(offered.file_id, 2, bytes(CHUNK))
                await peer.say(*chunks)
            if offered is offers[0]:
                assert offered.pull is not None
                assert (await peer.next(DeliveryAck)).uuid == offered.pull.uuid
            else:
                assert await peer.next(FileCancel) == FileCancel(offered.file_id, CancelReason.CORRUPT)
        mended, corrupt = await bob.store.read(files.list_of, contact.id)
        assert files.content_path(bob.files_dir, mended).read_bytes() == content
        assert (corrupt.state, corrupt.reason) == ("failed", CancelReason.CORRUPT)
        assert left(bob) == [file_rows.content_name(mended.message)]


@run_async
async def test_what_was_lost_is_asked_for_again(relay: RelayProcess, bob: Person, mallory: Identity) -> None:
    contact = await knows(bob, mallory)
    content = os.urandom(20 * CHUNK)
    offered = offer_of(content)
    async with ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer, bob.at(relay, FAST):
        await peer.until_there()
        await peer.say(offered)
        sent: set[int] = set()
        dropped: set[int] = set()
        while len(sent) < 20:
            for chunk in chunks_of(await asked(peer), content):
                if chunk.index % 3 == 0 and chunk.index not in dropped:
                    dropped.add(chunk.index)  # lost on the way
                else:
                    sent.add(chunk.index)
                    await peer.say(chunk, chunk)
        assert (await peer.next(DeliveryAck)).uuid
        (row,) = await bob.store.read(files.list_of, contact.id)
        assert files.content_path(bob.files_dir, row).read_bytes() == content


@run_async
async def test_a_sender_who_never_sends_is_given_up(relay: RelayProcess, bob: Person, mallory: Identity) -> None:
    contact = await knows(bob, mallory)
    offered = offer_of(os.urandom(CHUNK))
    async with ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer, bob.at(relay, replace(FAST, stall=1.5)):
        await peer.until_there()
        await peer.say(offered)
        requests = 0
        while isinstance(body := await peer.any(), FileWant):
            requests += body.count > 0
        assert requests > 1
        assert body == FileCancel(offered.file_id, CancelReason.GIVEN_UP)
        (row,) = await bob.store.read(files.list_of, contact.id)
        assert row.state == "failed"
        await peer.say(offered)  # who offers it again learns the same
        assert await peer.next(FileCancel) == FileCancel(offered.file_id, CancelReason.GIVEN_UP)


@run_async
async def test_who_offers_and_never_sends_does_not_hold_others_up(
    relay: RelayProcess, alice: Person, bob: Person, mallory: Identity, tmp_path: Path
) -> None:
    await knows(bob, mallory)
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", MIB)
    # She would send it unasked very soon, were she not told that he knows how to ask.
    hers = replace(FAST, push_after=0.5)
    async with ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer, alice.at(relay, hers), bob.at(relay):
        await peer.until_there()
        offers = [offer_of(os.urandom(100), f"{n}") for n in range(33)]
        await peer.say(*offers)
        assert await peer.next(FileCancel) == FileCancel(offers[32].file_id, CancelReason.REFUSED)
        assert await arrived(bob, to_alice, await offer(alice, to_bob, tmp_path / "a.bin")) == content


@run_async
async def test_chunks_that_nobody_asked_for_or_that_do_not_fit_are_dropped(
    relay: RelayProcess, bob: Person, mallory: Identity
) -> None:
    contact = await knows(bob, mallory)
    content = os.urandom(3 * CHUNK + 1)
    offered = offer_of(content, "../../evil")
    file_id = offered.file_id
    async with ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer, bob.at(relay):
        await peer.until_there()
        await peer.say(FileChunk(file_id, 0, content[:CHUNK]))
        await peer.say(offered)
        wanted = await asked(peer)
        await peer.say(
            FileChunk(os.urandom(16), 0, content[:CHUNK]),
            FileChunk(file_id, 4, b"x"),
            FileChunk(file_id, 0xFFFF_FFFF, b"x"),
            FileChunk(file_id, 0, b"x"),
            FileChunk(file_id, 1, content[:CHUNK] + b"x"),
            FileChunk(file_id, 3, b""),
            *reversed(chunks_of(wanted, content)),
        )
        await peer.next(DeliveryAck)
        (row,) = await bob.store.read(files.list_of, contact.id)
        assert files.content_path(bob.files_dir, row).read_bytes() == content
        assert row.name == "evil"
        assert left(bob) == [file_rows.content_name(row.message)]


@run_async
async def test_offers_and_cancellations_that_are_played_again(
    relay: RelayProcess, bob: Person, mallory: Identity
) -> None:
    contact = await knows(bob, mallory)
    content = os.urandom(10)
    offered = offer_of(content)
    assert offered.pull is not None
    async with ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer, bob.at(relay):
        await peer.until_there()
        await peer.say(offered)
        await peer.say(*chunks_of(await asked(peer), content))
        await peer.next(DeliveryAck)
        await peer.say(FileCancel(offered.file_id, 0), offered, Text(os.urandom(16), "after"))
        assert await peer.next(DeliveryAck) == DeliveryAck(offered.pull.uuid)  # again: the first may have been lost
        await peer.next(DeliveryAck)
        (row,) = await bob.store.read(files.list_of, contact.id)
        assert row.state == "done"


@run_async
async def test_requests_that_make_no_sense(
    relay: RelayProcess, alice: Person, mallory: Identity, tmp_path: Path
) -> None:
    contact = await knows(alice, mallory)
    content = make(tmp_path / "a.bin", 3 * CHUNK)
    async with ScriptedPeer(relay, mallory, alice.keys.identity.public) as peer, alice.at(relay):
        await peer.until_there()
        row = await offer(alice, contact, tmp_path / "a.bin")
        offered = await peer.next(FileOffer)
        assert offered.pull is not None
        assert offered.pull.digest == digest_of(content)
        unknown = os.urandom(16)
        await peer.say(FileWant(unknown, 0, 1))
        assert await peer.next(FileCancel) == FileCancel(unknown, CancelReason.UNKNOWN_FILE)
        await peer.say(FileWant(row.file_id, 0xFFFF_FFFF, 0xFFFF_FFFF), FileWant(row.file_id, 1, 0xFFFF_FFFF))
        assert [(await peer.next(FileChunk)).index for _ in range(2)] == [1, 2]
        await peer.say(FileWant(row.file_id, 0, 1))
        assert (await peer.next(FileChunk)).data == content[:CHUNK]
        await peer.say(DeliveryAck(row.uuid))
        assert (await until_over(alice, row)).state == "done"
        await peer.say(FileWant(row.file_id, 0, 1))
        assert (await peer.next(FileCancel)).reason == CancelReason.UNKNOWN_FILE


@run_async
async def test_an_offer_that_was_answered_is_not_repeated(
    relay: RelayProcess, alice: Person, mallory: Identity, tmp_path: Path
) -> None:
    contact = await knows(alice, mallory)
    make(tmp_path / "a.bin", 3 * CHUNK)
    impatient = replace(FAST, resend=0.05, push_after=60.0)
    async with ScriptedPeer(relay, mallory, alice.keys.identity.public) as peer, alice.at(relay, impatient):
        await peer.until_there()
        row = await offer(alice, contact, tmp_path / "a.bin")
        for _ in range(3):
            assert (await peer.next(FileOffer)).file_id == row.file_id  # until it is answered, it is
        await peer.say(FileWant(row.file_id, 0, 0))
        last = await alice.says(contact, "not answered")
        repeated = 0
        while repeated < 5:
            body = await peer.any()
            repeated += isinstance(body, Text) and body.uuid == last.uuid
            late = isinstance(body, FileOffer)
            assert not (late and repeated > 1)
