"""A big file in constant memory, at both ends: each is a process of its own here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from keys.invite import RelayCard
from peers.store import files
from tests.peers.carrier import killed
from tests.peers.carrier.conversation import Person
from tests.peers.carrier.moving import MIB, offer, theirs, until_over
from tests.support.clients import run_async
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

    from peers.store.file_rows import FileRow

SIZE = 256 * MIB
GROWTH = 64 * MIB


def start(person: Person, relay: RelayProcess) -> ForkServerProcess:
    card = RelayCard(relay.public, relay.url)
    return killed.start(person.keys.identity.seeds, person.keys.nickname, person.path, card.text, 0)


def memory(process: ForkServerProcess) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


def moved_on(since: int, row: FileRow) -> bool:
    return not row.open or row.moved > since


@pytest.mark.timeout(300)
@run_async
async def test_a_big_file_in_constant_memory(tmp_path: Path) -> None:
    (tmp_path / "relay").mkdir()
    relay = RelayProcess(tmp_path / "relay")
    alice, bob = Person(tmp_path / "alice", "Alice"), Person(tmp_path / "bob", "Bob")
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(SIZE)
        file.seek(SIZE // 2)
        file.write(b"in the middle of nothing")
    processes = [start(alice, relay), start(bob, relay)]
    await alice.until_delivered(await alice.says(to_bob, "both are there"))
    before = [memory(each) for each in processes]
    row = await offer(alice, to_bob, tmp_path / "big.bin")
    here = await theirs(bob, to_alice, row)
    assert here.state == "offered"  # 64 MiB are taken without asking
    await bob.store.write(files.accept, bob.now(), here.message)
    most = [0, 0]
    while here.open:
        here = await bob.until(files.get, partial(moved_on, here.moved), here.message)
        most = [max(pair) for pair in zip(most, map(memory, processes), strict=True)]
    assert here.state == "done"
    assert (await until_over(alice, row)).state == "done"
    with files.content_path(bob.files_dir, here).open("rb") as file:
        file.seek(SIZE // 2)
        assert file.read(24) == b"in the middle of nothing"
        assert file.seek(0, 2) == SIZE
    assert [high - low < GROWTH for low, high in zip(before, most, strict=True)] == [True, True], (before, most)
    for each in processes:
        each.kill()
        each.join()
    relay.check()
