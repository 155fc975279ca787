"""Files from store to store, through a real relay."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from peers.carrier import CarrierOptions
from peers.client import ClientOptions
from peers.store import contacts, feed, files, messages
from peers.store.errors import NoSuchMessage
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier.moving import CHUNK, MIB, arrived, left, make, offer, theirs, until_over, until_removed
from tests.support.clients import run_async
from wire.peer_commands import CancelReason

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.carrier.conversation import Person
    from tests.support.relay_process import RelayProcess

FAST = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2), resend=1.0)
CAREFUL = replace(FAST, auto_accept=0)


@run_async
async def test_files_of_all_sizes_arrive_whole(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 100 * CHUNK, 3 * MIB + 5]
    contents = [make(tmp_path / f"{size}.bin", size) for size in sizes]
    async with alice.at(relay), bob.at(relay):
        rows = [await offer(alice, to_bob, tmp_path / f"{size}.bin") for size in sizes]
        for row, content in zip(rows, contents, strict=True):
            assert await arrived(bob, to_alice, row) == content
            assert (await until_over(alice, row)).moved == len(content)
            message = await alice.store.read(messages.get, row.message)
            assert message.state is State.DELIVERED
        assert len(left(bob)) == len(sizes)
        for row in await bob.store.read(files.list_of, to_alice.id):
            assert (row.name, row.mime, row.moved) == (f"{row.size}.bin", "application/octet-stream", row.size)
    path = files.content_path(bob.files_dir, row)
    assert path.stat().st_mode & 0o777 == 0o600
    assert bob.files_dir.stat().st_mode & 0o777 == 0o700


@run_async
async def test_three_at_once_beside_texts(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    contents = [make(tmp_path / f"{n}.bin", 8 * MIB + n) for n in range(3)]
    async with alice.at(relay), bob.at(relay):
        rows = [await offer(alice, to_bob, tmp_path / f"{n}.bin") for n in range(3)]
        back = await offer(bob, to_alice, tmp_path / "0.bin")
        texts = [f"text {n}" for n in range(30)]
        overtaken = 0
        for text in texts:
            await alice.until_delivered(await alice.says(to_bob, text))
            overtaken += any(row.open for row in [await alice.store.read(files.get, row.message) for row in rows])
        assert overtaken  # no text waited for the files to be through
        for row, content in zip(rows, contents, strict=True):
            assert await arrived(bob, to_alice, row) == content
        assert await arrived(alice, to_bob, back) == contents[0]
        heard = await bob.heard(to_alice)  # a file is digested before it is offered, and no text waits for that
        assert sorted(heard) == sorted([*(f"{n}.bin" for n in range(3)), *texts])
        assert [text for text in heard if text in texts] == texts


@run_async
async def test_progress_is_told_and_every_state_once(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    make(tmp_path / "a.bin", 48 * MIB)
    async with alice.at(relay), bob.at(relay):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        await arrived(bob, to_alice, row)
        await until_over(alice, row)
    for person in (alice, bob):
        events = [event for event in await person.store.read(feed.read, 0) if event.kind is Kind.FILE]
        states = [event.detail for event in events if event.detail != files.PROGRESS]
        assert states == (["offered", "moving", "done"] if person is alice else ["moving", "done"])
        times = [event.at for event in events if event.detail == files.PROGRESS]
        # The people of these tests count their own time, but a carrier has the real one.
        assert all(later - sooner >= 400 for sooner, later in pairwise(times))


@run_async
async def test_more_than_may_be_offered_at_once(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    paths = [tmp_path / f"{n}.bin" for n in range(80)]
    contents = [make(path, 1000) for path in paths]
    async with alice.at(relay), bob.at(relay):
        rows = [await offer(alice, to_bob, path) for path in paths]
        assert [await arrived(bob, to_alice, row) for row in rows] == contents


@run_async
async def test_a_big_one_waits_for_a_yes(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", MIB)
    async with alice.at(relay, FAST), bob.at(relay, CAREFUL):
        wanted, unwanted = [await offer(alice, to_bob, tmp_path / "a.bin") for _ in range(2)]
        for row in (wanted, unwanted):
            assert (await theirs(bob, to_alice, row)).state == "offered"
        assert (await alice.store.read(files.get, wanted.message)).state == "offered"
        await bob.store.write(files.accept, bob.now(), (await theirs(bob, to_alice, wanted)).message)
        await bob.store.write(files.refuse, bob.now(), (await theirs(bob, to_alice, unwanted)).message)
        assert await arrived(bob, to_alice, wanted) == content
        refused = await until_over(alice, unwanted)
        assert (refused.state, refused.reason) == ("failed", CancelReason.REFUSED)
        assert (await alice.store.read(messages.get, unwanted.message)).state is State.FAILED
        assert (await until_over(alice, wanted)).state == "done"


@pytest.mark.parametrize("who", ["sender", "receiver"])
@run_async
async def test_cancelled_in_the_middle(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, who: str
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(1024 * MIB)
    async with alice.at(relay), bob.at(relay, replace(FAST, auto_accept=1 << 40)):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        here = await theirs(bob, to_alice, row)
        await bob.until(files.get, lambda each: each.moved > MIB, here.message)
        assert left(bob) == [f"{here.message:016x}.part"]
        person, message = (alice, row.message) if who == "sender" else (bob, here.message)
        await person.store.write(files.cancel, person.now(), message)
        at_alice, at_bob = await until_over(alice, row), await until_over(bob, here)
        assert (at_alice.state, at_bob.state) == ("failed", "failed")
        assert at_alice.reason == at_bob.reason
        await until_removed(bob)


@pytest.mark.parametrize("how", ["message", "contact"])
@run_async
async def test_deleted_in_the_middle_and_afterwards(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path, how: str
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    make(tmp_path / "small.bin", 1000)
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(1024 * MIB)
    async with alice.at(relay), bob.at(relay, replace(FAST, auto_accept=1 << 40)):
        small, big = [await offer(alice, to_bob, tmp_path / f"{name}.bin") for name in ("small", "big")]
        await arrived(bob, to_alice, small)
        here = await theirs(bob, to_alice, big)
        await bob.until(files.get, lambda each: each.moved > MIB, here.message)
        if how == "contact":
            await bob.store.write(contacts.remove, bob.now(), to_alice.id)
            with pytest.raises(NoSuchMessage):
                await bob.store.read(files.get, here.message)
        else:
            for row in await bob.store.read(files.list_of):
                await bob.store.write(messages.delete, bob.now(), row.message, for_both=False)
            assert (await until_over(alice, big)).reason == CancelReason.REFUSED
        await until_removed(bob)


@run_async
async def test_taken_back_by_its_author(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    make(tmp_path / "a.bin", 1000)
    async with alice.at(relay), bob.at(relay):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        await arrived(bob, to_alice, row)
        here = await theirs(bob, to_alice, row)
        await until_over(alice, row)
        await alice.store.write(messages.delete, alice.now(), row.message, for_both=True)
        await bob.until(messages.get, lambda message: message.deleted_at is not None, here.message)
        await until_removed(bob)


@run_async
async def test_nothing_comes_from_somebody_who_is_blocked(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", 1000)
    await bob.store.write(contacts.set_blocked, bob.now(), to_alice.id, blocked=True)
    async with alice.at(relay, FAST), bob.at(relay, FAST):
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        await alice.until(messages.get, lambda message: message.state is State.SENT, row.message)
        assert await bob.store.read(files.list_of) == []
        await bob.store.write(contacts.set_blocked, bob.now(), to_alice.id, blocked=False)
        assert await arrived(bob, to_alice, row) == content
