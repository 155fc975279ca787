"""The registry: who can be pushed where, what is kept of it, and that the file alone tells nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from peers.database import DatabaseError
from peers.notifier.errors import NotifierError
from peers.notifier.registry import FAILING_DAYS, FAILURES, Added, Counts, Registered, Registry
from tests.integration.test_secrecy_process import find_spelling
from tests.support.clients import run_async
from wire.limits import MAX_PUSH_TOKEN

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))
ALICE, BOB = b"alice!!!", b"bob!!!!!"
DAY = 86400


class Calendar:
    """A clock that is set."""

    def __init__(self) -> None:
        self.day = 20_000

    def __call__(self) -> float:
        return self.day * DAY + 4711.0


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


async def opened(path: Path, calendar: Calendar | None = None, *, devices: int = 10, most: int = 1000) -> Registry:
    return await Registry.open(path / "notifier.db", KEY, devices=devices, most=most, clock=calendar or Calendar())


async def tokens(registry: Registry, client_id: bytes) -> list[tuple[int, bytes]]:
    found = await registry.find([client_id])
    return [(each.kind, each.token) for each in found.get(client_id, [])]


@run_async
async def test_an_id_has_a_token_for_each_device(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        assert await tokens(registry, ALICE) == []
        for kind, token in ((1, b"phone"), (2, b"laptop"), (1, b"tablet")):
            assert await registry.add(ALICE, kind, token) is Added.ADDED
        assert await registry.add(BOB, 1, b"bob's") is Added.ADDED
        assert await registry.add(ALICE, 1, b"phone") is Added.REFRESHED
        assert await tokens(registry, ALICE) == [(1, b"phone"), (2, b"laptop"), (1, b"tablet")]
        assert await tokens(registry, BOB) == [(1, b"bob's")]
        assert await registry.totals() == {1: 3, 2: 1}
        assert await registry.count() == Counts({1: 3, 2: 1}, 2)


@run_async
async def test_one_token_of_two_kinds_is_two(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        await registry.add(ALICE, 2, b"the same")
        assert await registry.add(ALICE, 3, b"the same") is Added.ADDED
        assert await tokens(registry, ALICE) == [(2, b"the same"), (3, b"the same")]


@pytest.mark.parametrize("token", [b"\0", b"x" * MAX_PUSH_TOKEN, os.urandom(237), b"y" * 256, b"tail\0\0\0"])
@run_async
async def test_any_token_comes_back_as_it_was(token: bytes, tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        await registry.add(ALICE, 255, token)
        assert await tokens(registry, ALICE) == [(255, token)]


@run_async
async def test_of_too_many_devices_the_one_goes_that_was_longest_away(tmp_path: Path, calendar: Calendar) -> None:
    async with await opened(tmp_path, calendar, devices=3) as registry:
        for name in (b"old", b"kept", b"other"):
            await registry.add(ALICE, 1, name)
            calendar.day += 1
        await registry.add(ALICE, 1, b"old")  # refreshed: now `kept` is the oldest
        assert await registry.add(ALICE, 1, b"new") is Added.ADDED
        assert await tokens(registry, ALICE) == [(1, b"old"), (1, b"other"), (1, b"new")]
        for number in range(10):
            await registry.add(ALICE, 1, b"same day %d" % number)
        assert await tokens(registry, ALICE) == [(1, b"same day %d" % number) for number in (7, 8, 9)]
        assert await registry.totals() == {1: 3}


@run_async
async def test_it_holds_so_many_and_no_more(tmp_path: Path) -> None:
    async with await opened(tmp_path, devices=2, most=3) as registry:
        for client_id, name in ((ALICE, b"1"), (ALICE, b"2"), (BOB, b"3")):
            assert await registry.add(client_id, 1, name) is Added.ADDED
        assert await registry.add(b"stranger", 1, b"4") is Added.FULL
        assert await registry.add(BOB, 1, b"5") is Added.FULL
        assert await registry.add(BOB, 1, b"3") is Added.REFRESHED
        assert await registry.add(ALICE, 1, b"6") is Added.ADDED, "in place of one of her own"
        assert await registry.totals() == {1: 3}
        await registry.remove(ALICE)
        assert await registry.add(BOB, 1, b"5") is Added.ADDED


@run_async
async def test_removal_of_all_and_of_one_kind(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        for client_id, kind, token in ((ALICE, 1, b"a"), (ALICE, 2, b"b"), (ALICE, 2, b"c"), (BOB, 2, b"b")):
            await registry.add(client_id, kind, token)
        digests = {each.token: each.token_hash for each in (await registry.find([ALICE]))[ALICE]}
        # Bob has `b` too, so pushes to it are not to be given up.
        assert await registry.remove(ALICE, 2) == (2, [digests[b"c"]])
        assert await tokens(registry, ALICE) == [(1, b"a")]
        assert await registry.remove(ALICE) == (1, [digests[b"a"]])
        assert await registry.remove(ALICE) == (0, [])
        assert await tokens(registry, BOB) == [(2, b"b")]
        assert await registry.totals() == {2: 1}


@run_async
async def test_a_token_that_is_gone_is_gone_for_everybody(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        await registry.add(ALICE, 1, b"shared")
        await registry.add(BOB, 1, b"shared")
        ((one,), (other,)) = (await registry.find([ALICE, BOB])).values()
        assert one == other
        assert await registry.forget_token(one.token_hash) == 2
        assert await registry.find([ALICE, BOB]) == {}


@run_async
async def test_what_pushes_say_of_tokens(tmp_path: Path, calendar: Calendar) -> None:
    async with await opened(tmp_path, calendar) as registry:
        await registry.add(ALICE, 1, b"a")

        async def seen() -> Registered:
            ((only,),) = (await registry.find([ALICE])).values()
            return only

        assert (await seen()).last_ok is None
        await registry.failed((await seen()).token_hash)
        await registry.failed((await seen()).token_hash)
        assert (await seen()).failures == 2
        await registry.worked((await seen()).token_hash)
        assert ((await seen()).failures, (await seen()).last_ok) == (0, calendar.day)
        await registry.failed((await seen()).token_hash)
        await registry.add(ALICE, 1, b"a")
        assert (await seen()).failures == 0, "the client says that it is there"


@run_async
async def test_pruning(tmp_path: Path, calendar: Calendar) -> None:
    async with await opened(tmp_path, calendar) as registry:
        for name in (b"forgotten", b"refreshed", b"failing", b"failing but new", b"works now and then"):
            await registry.add(ALICE, 1, name)
        digest = {each.token: each.token_hash for each in (await registry.find([ALICE]))[ALICE]}
        for name in (b"failing", b"failing but new", b"works now and then"):
            for _ in range(FAILURES):
                await registry.failed(digest[name])
        calendar.day += FAILING_DAYS - 1
        assert await registry.prune(180) == 0, "a push service may be down for days"
        calendar.day += 1
        await registry.add(ALICE, 1, b"failing but new")
        await registry.worked(digest[b"works now and then"])
        for _ in range(FAILURES):
            await registry.failed(digest[b"works now and then"])
        assert await registry.prune(180) == 1
        calendar.day += 100
        await registry.add(ALICE, 1, b"refreshed")
        calendar.day += 80
        assert await registry.prune(180) == 2
        assert await tokens(registry, ALICE) == [(1, b"refreshed"), (1, b"failing but new")]
        calendar.day += 1000
        assert await registry.prune(180) == 2
        assert await registry.totals() == {}


@run_async
async def test_it_is_all_there_after_another_start(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        await registry.add(ALICE, 1, b"a")
    async with await opened(tmp_path) as registry:
        assert await tokens(registry, ALICE) == [(1, b"a")]
        assert await registry.add(ALICE, 1, b"a") is Added.REFRESHED


@run_async
async def test_another_key_opens_nothing(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        await registry.add(ALICE, 1, b"a")
    with pytest.raises(NotifierError, match="another registry key"):
        await Registry.open(tmp_path / "notifier.db", bytes(32))
    (tmp_path / "other.db").write_bytes(b"no database, but long enough to look at" * 100)
    with pytest.raises(DatabaseError):
        await Registry.open(tmp_path / "other.db", KEY)
    with pytest.raises(NotifierError, match="32 bytes"):
        await Registry.open(tmp_path / "third.db", KEY[:-1])


@run_async
async def test_rows_that_somebody_moved_or_damaged_are_passed_over(tmp_path: Path) -> None:
    """Whoever can write the file must not be able to have one person's pushes sent to another."""
    async with await opened(tmp_path) as registry:
        for client_id in (ALICE, BOB):
            await registry.add(client_id, 1, client_id)
        with closing(sqlite3.connect(tmp_path / "notifier.db", isolation_level=None)) as other:
            sealed = [row[0] for row in other.execute("SELECT sealed_token FROM tokens ORDER BY row")]
            other.execute("UPDATE tokens SET sealed_token = ? WHERE row = 2", (sealed[0],))
        assert await registry.find([ALICE, BOB]) == (await registry.find([ALICE]))
        assert registry.unreadable == 1
        with closing(sqlite3.connect(tmp_path / "notifier.db", isolation_level=None)) as other:
            other.execute("UPDATE tokens SET kind = 2 WHERE row = 1")
            other.execute("UPDATE tokens SET sealed_token = x'' WHERE row = 2")
        assert await registry.find([ALICE, BOB]) == {}


@run_async
async def test_the_file_alone_tells_neither_ids_nor_tokens(tmp_path: Path) -> None:
    secrets = [os.urandom(8), os.urandom(8), b"https://push.example/wilhelmina-device", os.urandom(150)]
    async with await opened(tmp_path) as registry:
        for client_id in secrets[:2]:
            for token in secrets[2:]:
                await registry.add(client_id, 3, token)
        await registry.remove(secrets[0], 3)
        check_files(tmp_path, secrets)


def check_files(directory: Path, secrets: list[bytes]) -> None:
    files = {path.name: path for path in directory.iterdir()}
    assert {"notifier.db", "notifier.db-wal"} <= set(files)
    assert sum(len(path.read_bytes()) for path in files.values()) > 4096
    for path in files.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for secret in secrets:
            assert find_spelling(secret, path.read_bytes()) is None, path.name


@run_async
async def test_tokens_of_like_lengths_look_alike(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        for size in (1, 100, 237):
            await registry.add(ALICE, 1, b"x" * size)
        with closing(sqlite3.connect(tmp_path / "notifier.db")) as other:
            sizes = {row[0] for row in other.execute("SELECT length(sealed_token) FROM tokens")}
    assert len(sizes) == 1


@run_async
async def test_what_is_forgotten_leaves_the_file(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        await registry.add(ALICE, 1, b"a")
        with closing(sqlite3.connect(tmp_path / "notifier.db")) as other:
            ((sealed,),) = other.execute("SELECT sealed_token FROM tokens").fetchall()
        assert sealed[:64] in content(tmp_path)
        await registry.remove(ALICE)
    assert sealed[:64] not in content(tmp_path)


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


@run_async
async def test_two_processes_may_have_it_open(tmp_path: Path) -> None:
    async with await opened(tmp_path) as one, await opened(tmp_path) as other:
        await asyncio.gather(*(each.add(b"%08d" % n, 1, b"t") for n, each in enumerate((one, other) * 50)))
        assert await one.totals() == await other.totals() == {1: 100}


@run_async
async def test_an_import_happens_whole_and_once(tmp_path: Path) -> None:
    entries = [(ALICE, 1, b"a"), (ALICE, 2, b"b"), (BOB, 1, b"c"), (ALICE, 1, b"a")]
    async with await opened(tmp_path, most=2) as registry:
        assert await registry.import_once(b"/srv/registry.json", entries) == 3  # `c` found no room
        assert await tokens(registry, ALICE) == [(1, b"a"), (2, b"b")]
        await registry.remove(ALICE)
        assert await registry.import_once(b"/srv/registry.json", entries) is None
        assert await registry.totals() == {}
        assert await registry.import_once(b"/srv/other.json", entries[:1]) == 1
        with pytest.raises(ValueError, match="8 bytes"):
            await registry.import_once(b"/srv/bad.json", [(b"short", 1, b"x")])
        assert await registry.import_once(b"/srv/bad.json", []) == 0
