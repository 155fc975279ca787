"""Files while things break: the network, the relay, either side, the disk, and the file."""

from __future__ import annotations

import os
import resource
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from keys.invite import RelayCard
from peers.carrier import CarrierOptions
from peers.client import ClientOptions
from peers.database import DatabaseError
from peers.store import contacts, file_rows, file_steps, files, messages
from peers.store.message_rows import State
from tests.peers.carrier import killed
from tests.peers.carrier.moving import MIB, arrived, left, make, offer, theirs, until_over, until_removed
from tests.support.clients import run_async
from tests.support.cutting import CuttingProxy
from tests.support.relay_process import RelayProcess
from wire.peer_commands import (
    CancelReason,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peers.store.file_rows import FileRow
    from tests.peers.carrier.conversation import Person

FAST = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2), resend=0.5)


BIG = 64 * MIB


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
