"""Files while things break: the network, the relay, either side, the disk, the file, and the other's good will."""

from __future__ import annotations

import os
import resource
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from keys.invite import RelayCard
from keys.primitives import Digest
from peers.carrier import CarrierOptions
from peers.client import ClientOptions
from peers.database import DatabaseError
from peers.store import contacts, file_rows, file_steps, files, messages
from peers.store.message_rows import State
from tests.peers.carrier import killed
from tests.peers.carrier.moving import CHUNK, MIB, arrived, left, make, offer, theirs, until_over, until_removed
from tests.peers.carrier.scripted_peer import ScriptedPeer
from tests.support.clients import run_async
from tests.support.cutting import CuttingProxy
from tests.support.relay_process import RelayProcess
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
    from collections.abc import Iterator
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from peers.store.file_rows import FileRow
    from tests.peers.carrier.conversation import Person

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


def moved(least: int, row: FileRow) -> bool:
    return row.moved >= least


# --- The network, the relay, the processes ----------------------------------------------------------------------------


@run_async
async def test_the_network_is_cut_again_and_again(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", 24 * MIB)
    async with (
        CuttingProxy(relay.port, relay.public) as hers,
        CuttingProxy(relay.port, relay.public) as his,
        alice.at(hers, FAST),
        bob.at(his, FAST),
    ):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        here = await theirs(bob, to_alice, row)
        for cut in range(1, 7):
            await bob.until(files.get, partial(moved, cut * 2 * MIB), here.message)
            (hers if cut % 2 else his).cut()
        assert await arrived(bob, to_alice, row) == content
        assert (await until_over(alice, row)).state == "done"
        # What was on its way at each cut came twice, and no more.
        assert his.carried < len(content) + 6 * 4 * MIB


@run_async
async def test_the_relay_is_restarted_in_the_middle(alice: Person, bob: Person, tmp_path: Path) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", BIG)
    (tmp_path / "relay").mkdir()
    relay = RelayProcess(tmp_path / "relay")
    async with alice.at(relay, FAST), bob.at(relay, FAST):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        here = await theirs(bob, to_alice, row)
        await bob.until(files.get, lambda each: each.moved > 4 * MIB, here.message)
        relay.kill()
        again = RelayProcess(tmp_path / "relay", arguments=["--port", str(relay.port)])
        assert await arrived(bob, to_alice, row) == content
        assert (await until_over(alice, row)).state == "done"
    again.check()


@pytest.mark.parametrize("who", ["sender", "receiver"])
@run_async
async def test_killed_in_the_middle(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, who: str) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", BIG)
    doomed, other = (alice, bob) if who == "sender" else (bob, alice)
    seeds = doomed.keys.identity.seeds
    async with CuttingProxy(relay.port, relay.public) as proxy, other.at(relay, FAST):
        card = RelayCard(relay.public, proxy.url).text
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        process = killed.start(seeds, doomed.keys.nickname, doomed.path, card, 0)
        here = await theirs(bob, to_alice, row)
        at = await bob.until(files.get, lambda each: each.moved > 8 * MIB, here.message)
        process.kill()
        process.join()
        at = await bob.store.read(files.get, here.message)
        assert at.state == "moving"
        proxy.carried = 0
        process = killed.start(seeds, doomed.keys.nickname, doomed.path, card, 0)
        assert await arrived(bob, to_alice, row) == content
        assert (await until_over(alice, row)).state == "done"
        # It went on where it was.
        assert proxy.carried < len(content) - at.moved + 8 * MIB
        process.kill()
        process.join()


@run_async
async def test_chunks_that_the_relay_could_not_pass_on(alice: Person, bob: Person, tmp_path: Path) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", BIG)
    (tmp_path / "relay").mkdir()
    relay = RelayProcess(tmp_path / "relay")
    async with CuttingProxy(relay.port, relay.public) as his, alice.at(relay, FAST), bob.at(his, FAST):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        here = await theirs(bob, to_alice, row)
        for least in (4 * MIB, 12 * MIB, 20 * MIB):
            await bob.until(files.get, partial(moved, least), here.message)
            his.shut()
            await alice.until(contacts.get, lambda contact: not contact.online, to_bob.id)
            his.open()
        assert await arrived(bob, to_alice, row) == content
        assert (await until_over(alice, row)).state == "done"
    relay.check()
    assert relay.stopped["refusals"]["offline"] > 0


# --- The file and the disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["written", "removed", "replaced", "linked"])
@run_async
async def test_the_source_changes_in_the_middle(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, how: str
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    path = tmp_path / "a.bin"
    content = make(path, BIG)
    async with alice.at(relay), bob.at(relay):
        row = await offer(alice, to_bob, path)
        here = await theirs(bob, to_alice, row)
        await bob.until(files.get, lambda each: each.moved > MIB, here.message)
        other = tmp_path / "other"
        other.write_bytes(content)
        if how == "written":
            with path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"x")
        elif how == "removed":
            path.unlink()
        elif how == "replaced":
            other.replace(path)
        else:
            path.unlink()
            path.symlink_to(other)
        at_alice, at_bob = await until_over(alice, row), await until_over(bob, here)
        assert at_alice.reason == at_bob.reason == CancelReason.SOURCE_CHANGED
        assert (await alice.store.read(messages.get, row.message)).state is State.FAILED
        await until_removed(bob)


@run_async
async def test_a_source_that_is_gone_before_it_was_offered(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob = await alice.adds(bob)
    make(tmp_path / "a.bin", 10)
    row = await offer(alice, to_bob, tmp_path / "a.bin")
    (tmp_path / "a.bin").unlink()
    async with alice.at(relay):
        assert (await until_over(alice, row)).reason == CancelReason.SOURCE_CHANGED


@contextmanager
def files_may_have(size: int) -> Iterator[None]:
    """A disk that is full, to whoever writes beyond `size`: EFBIG in place of ENOSPC (Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@run_async
async def test_the_disk_is_full_in_the_middle(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    make(tmp_path / "a.bin", 32 * MIB)
    make(tmp_path / "small.bin", MIB)
    async with alice.at(relay), bob.at(relay):
        with files_may_have(16 * MIB):
            row = await offer(alice, to_bob, tmp_path / "a.bin")
            at_alice = await until_over(alice, row)
            here = await until_over(bob, await theirs(bob, to_alice, row))
        assert at_alice.reason == here.reason == CancelReason.NO_ROOM
        await until_removed(bob)
        await arrived(bob, to_alice, await offer(alice, to_bob, tmp_path / "small.bin"))


@run_async
async def test_no_room_is_said_before_anything_comes(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    make(tmp_path / "a.bin", MIB)
    async with alice.at(relay), bob.at(relay, replace(FAST, spare=1 << 60)):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        assert (await until_over(alice, row)).reason == CancelReason.NO_ROOM
        assert (await theirs(bob, to_alice, row)).moved == 0
        assert left(bob) == []


@run_async
async def test_a_directory_that_cannot_be_made_is_no_room(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob = await alice.adds(bob)
    await bob.adds(alice)
    make(tmp_path / "a.bin", 10)
    bob.files_dir.write_text("in the way")
    async with alice.at(relay), bob.at(relay):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        assert (await until_over(alice, row)).reason in (CancelReason.NO_ROOM, CancelReason.GIVEN_UP)
        await alice.until_delivered(await alice.says(to_bob, "texts go on"))


@run_async
async def test_a_store_that_fails_ends_the_carrier_with_its_error(
    relay: RelayProcess, alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(file_steps, "to_digest", broken)
    with pytest.raises(DatabaseError):
        async with alice.at(relay) as carrier:
            await carrier.failure()


@run_async
async def test_a_part_that_somebody_removed_comes_again(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", 24 * MIB)
    async with alice.at(relay, FAST):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        async with bob.at(relay, FAST):
            here = await theirs(bob, to_alice, row)
            await bob.until(files.get, lambda each: each.moved > MIB, here.message)
        (bob.files_dir / file_rows.part_name(here.message)).unlink()
        async with bob.at(relay, FAST):
            assert await arrived(bob, to_alice, row) == content


@run_async
async def test_killed_between_the_last_name_and_the_last_commit(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", 24 * MIB)
    async with alice.at(relay, FAST):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        async with bob.at(relay, FAST):
            here = await theirs(bob, to_alice, row)
            await bob.until(files.get, lambda each: each.moved > MIB, here.message)
        # As if all had come after the last word about it.
        (bob.files_dir / file_rows.part_name(here.message)).unlink()
        (bob.files_dir / file_rows.content_name(here.message)).write_bytes(content)
        async with bob.at(relay, FAST):
            assert await arrived(bob, to_alice, row) == content
        assert left(bob) == [file_rows.content_name(here.message)]


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
