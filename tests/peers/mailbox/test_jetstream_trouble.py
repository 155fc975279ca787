"""The stream when NATS fails, when two write to it, and as operators have it."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from peers.mailbox.jetstream_link import ApiError, Changed, Put
from peers.mailbox.jetstream_settings import JetStreamSettings
from peers.mailbox.jetstream_store import JetStreamStore
from peers.mailbox.rules import Refused
from peers.mailbox.store import StoreError
from tests.peers.mailbox import killed, test_killed
from tests.peers.mailbox.lab import BOB, CAROL, START, Box, asked, contents, limits
from tests.peers.mailbox.nats import SECRET, Nats, check_stream, cluster
from tests.peers.mailbox.streams import a_box, item, secret_file
from tests.support.clients import run_async
from wire import mailbox_commands as asks
from wire.mailbox_codes import ItemKind, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")


ROOT = Path(__file__).resolve().parents[3]


ALL = frozenset(ItemKind)


# --- NATS fails -------------------------------------------------------------------------------------------------------


@run_async
async def test_nats_is_killed_and_nothing_confirmed_is_lost(tmp_path: Path) -> None:
    server = Nats(tmp_path / "nats", sync="always")
    box = a_box(server, tmp_path / "box")
    try:
        async with box:
            kept: list[int] = []
            enough = asyncio.Event()

            async def depositor(lane: int) -> None:
                number = lane
                while True:
                    number += 8
                    await box.store.deposit(item(number), START)
                    kept.append(number)
                    if len(kept) >= 100:
                        enough.set()

            lanes = [asyncio.create_task(depositor(lane)) for lane in range(8)]
            await enough.wait()
            server.kill()
            ends = await asyncio.gather(*lanes, return_exceptions=True)
            assert all(isinstance(end, StoreError) for end in ends)
            # At once while it is away, and for everything.
            for call in _every_call(box.store):
                with pytest.raises(StoreError, match="no NATS server is connected"):
                    await call
            server.start()
            async with asyncio.timeout(60):
                await box.store._link.up.wait()
            assert (await box.store.counts(BOB.public.x_pub, 0.0)).items >= len(kept)
            there: list[int] = []
            while True:
                lease = await box.store.lease(BOB.public.x_pub, ALL, 64, 1 << 20, 17, START, 0.0)
                there += [int.from_bytes(one.content[:8], "little") for one in lease.items]
                if not lease.items:
                    break
                await box.store.acknowledge(BOB.public.x_pub, tuple(one.number for one in lease.items), 0)
            assert len(there) == len(set(there))
            assert set(kept) <= set(there)
            # What was not confirmed may be there as well: eight were under way.
            assert len(there) <= len(kept) + 8
            await box.store.tidy(0.0)
        await check_stream(server.settings(box.path), box.limits)
    finally:
        server.stop()


def _every_call(store: JetStreamStore) -> list[Coroutine[Any, Any, Any]]:
    bob = BOB.public.x_pub
    return [
        store.deposit(item(1), START),
        store.held(bob, b"d" * 16, b""),
        store.lease(bob, ALL, 1, 1000, 0, START, 0.0),
        store.acknowledge(bob, (1,), 0),
        store.set_aside(bob, 1, START),
        store.release(bob, 1, 0.0),
        store.restore(bob, START),
        store.drop(bob, b"d" * 16),
        store.counts(bob, 0.0),
        store.totals(),
        store.expire(START),
        store.saved_time(),
        store.save_time(START),
    ]


class Cut(Exception):
    """The process ends here, as far as the test is concerned."""


@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@run_async
async def test_cut_off_at_every_request(nats: Nats, tmp_path: Path, answered: bool) -> None:
    """At each request in turn the process ends, before it is sent or before its answer is heard."""
    for cut_at in range(1, 1000):
        box = a_box(nats, tmp_path / f"{answered}-{cut_at}")
        heard = await _until_cut(box, cut_at, answered)
        await test_killed.check(a_box(nats, box.path), heard)
        await check_stream(nats.settings(box.path), box.limits)
        if heard[-1] == ("done",):
            assert cut_at > 20
            return
    raise AssertionError("it is cut off for ever")


async def _until_cut(box: Box, cut_at: int, answered: bool) -> list[tuple[Any, ...]]:
    heard: list[tuple[Any, ...]] = []
    async with box:
        link = box.store._link
        _cut(link, cut_at, answered)

        def tell(what: tuple[Any, ...]) -> None:
            if link.cut:
                raise Cut
            heard.append(what)

        with suppress(Refused, StoreError, Cut, AssertionError):
            await killed.scenario(box, tell)
    return heard


def _cut(link: Any, cut_at: int, answered: bool) -> None:
    ask, asked_for, link.cut = link._ask, 0, False

    async def counted(request: Coroutine[Any, Any, Any]) -> Any:
        nonlocal asked_for
        asked_for += 1
        if asked_for < cut_at:
            return await ask(request)
        link.cut = True
        if answered and asked_for == cut_at:
            await ask(request)
        else:
            request.close()
        raise StoreError("cut off")

    link._ask = counted


@run_async
async def test_an_answer_that_is_lost_is_no_second_item(nats: Nats, tmp_path: Path) -> None:
    """And the process goes on with what is true."""
    box = a_box(nats, tmp_path / "box")
    async with box:
        await box.deposit(asked(1))
        commit = box.store._link.commit

        async def lost(puts: Any, last: int) -> int:
            box.store._link.commit = commit
            await commit(puts, last)
            raise StoreError("NATS does not answer in time")

        box.store._link.commit = lost
        with pytest.raises(Refused, match="FAILED"):
            await box.deposit(asked(2))
        await box.deposit(asked(2))
        assert contents(await box.fetch()) == [1, 2]
    await check_stream(nats.settings(box.path), box.limits)


@run_async
async def test_a_server_without_jetstream_for_us(tmp_path: Path) -> None:
    server = Nats(tmp_path / "nats", more='accounts { A { users: [{ user: "a", password: "b" }] } }')
    secret_file(tmp_path / "password", "b")
    try:
        with pytest.raises(StoreError, match="JetStream"):
            await server.open("a", limits(), user="a", password_file=tmp_path / "password")
    finally:
        server.stop()


# --- Two of them ------------------------------------------------------------------------------------------------------


@run_async
async def test_two_mailboxes_on_one_stream(nats: Nats, tmp_path: Path) -> None:
    """Both deposit, hand out and delete for the same people at the same time; nothing is lost, no quota exceeded."""
    bounds = limits(recipient_items=60)
    one, other = a_box(nats, tmp_path / "box", bounds), a_box(nats, tmp_path / "box", bounds)
    async with one, other:
        results = await asyncio.gather(
            *((one, other)[number % 2].deposit(asked(number, (BOB, CAROL)[number // 2 % 2])) for number in range(200)),
            return_exceptions=True,
        )
        kept = [number for number, result in enumerate(results) if not isinstance(result, BaseException)]
        assert {error.reason for error in results if isinstance(error, Refused)} == {Reason.FULL}
        assert len(kept) == 120
        assert (await one.store.totals()) == (await other.store.totals())
        # What one has taken the other does not hand out again; a retry at the other is known.
        first = await one.fetch(limit=20)
        await one.acknowledge(first)
        second = await other.fetch()
        assert set(contents(first)).isdisjoint(contents(second))
        assert len(second.items) == 40
        again = contents(second)[0]
        await one.deposit(asked(again))
        assert await other.acknowledge(second) == 40
        assert await one.acknowledge(second) == 0
        assert (await one.fetch()).items == ()
        await asyncio.gather(one.store.save_time(START + 5), other.store.save_time(START + 9))
        assert await one.store.saved_time() == START + 9
        box, counts = await asyncio.gather(one.says(asks.List(1), CAROL), other.says(asks.List(1), CAROL))
        assert box == counts
        assert (box.items, box.refusals) == (60, 40)
    await check_stream(nats.settings(one.path), bounds)


@run_async
async def test_leases_are_those_of_one_process(nats: Nats, tmp_path: Path) -> None:
    one, other = a_box(nats, tmp_path / "box"), a_box(nats, tmp_path / "box")
    async with one, other:
        await one.deposit(asked(1))
        assert contents(await one.fetch()) == contents(await other.fetch()) == [1]
        assert contents(await one.fetch()) == []


@run_async
async def test_a_commit_that_lost_hands_nothing_out(nats: Nats, tmp_path: Path) -> None:
    """A lease in the same group as a change that another process was faster than is made anew, not twice."""
    one, other = a_box(nats, tmp_path / "box"), a_box(nats, tmp_path / "box")
    async with one, other:
        for number in range(3):
            await one.deposit(asked(number))
        await other.deposit(asked(3))  # which `one` has not seen
        kept, lease = await asyncio.gather(one.deposit(asked(4)), one.fetch(limit=2))
        assert (kept.request, contents(lease), lease.left) == (4, [0, 1], 3)
        assert contents(await one.fetch()) == [2, 3, 4]


@run_async
async def test_a_commit_is_refused_when_somebody_wrote(nats: Nats) -> None:
    store = await nats.open("cas", limits())
    await store.save_time(START)
    link = store._link
    info = await link.info()
    assert info is not None
    last = info["state"]["last_seq"]
    puts = [Put(f"{link.settings.prefix}.x.{number}", b"x") for number in range(2)]
    with pytest.raises(Changed):
        await link.commit(puts, last - 1)
    with pytest.raises(Changed):
        await link.commit([puts[0]._replace(last=99), puts[1]], last)
    assert await link.commit([puts[0]], last) == last + 1
    with pytest.raises(ApiError):
        await link.api("STREAM.INFO.none")
    await store.close()


# --- As operators have it ---------------------------------------------------------------------------------------------


@run_async
async def test_the_configuration_that_we_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default settings work with it, with no more permissions than it gives."""
    monkeypatch.setenv("MAILBOX_NATS_PASSWORD", "apasswordofthetest")
    shipped = (ROOT / "deploy" / "nats" / "mailbox.conf").read_text()
    ours = re.sub(r"^(listen|http): .*$", "", shipped, flags=re.MULTILINE)
    ours = ours.replace("store_dir: /var/lib/nats", f'store_dir: "{tmp_path / "nats" / "store"}"')
    secret_file(tmp_path / "password", "apasswordofthetest\n")
    server = Nats(tmp_path / "nats", config=ours)
    try:
        usual = JetStreamSettings(user="mailbox", password_file=tmp_path / "password")
        assert usual.servers == "nats://" + re.search(r"^listen: (.*)$", shipped, re.MULTILINE)[1]  # type: ignore[index]
        settings = replace(usual, servers=server.url, monitoring=server.monitoring)
        box = Box(tmp_path / "box")
        box.open_store = lambda: JetStreamStore.open(settings, box.limits, SECRET)  # type: ignore[method-assign]
        async with box:
            await killed.scenario(box, lambda _: None)
        await check_stream(settings, box.limits)
        other = replace(settings, stream="OTHER")
        with pytest.raises(StoreError):
            await JetStreamStore.open(replace(other, timeout=0.5), limits(), SECRET)
    finally:
        server.stop()


@run_async
async def test_three_servers_and_one_is_stopped(tmp_path: Path) -> None:
    """The leader is stopped; the mailbox goes on with the other two, and nothing confirmed is lost."""
    servers = cluster(tmp_path, 3)
    path = tmp_path / "box"
    urls = ",".join(server.url for server in servers)
    changed: dict[str, Any] = {
        "servers": urls,
        "replicas": 3,
        "monitoring": ",".join(server.monitoring for server in servers),
    }
    try:
        box = a_box(servers[0], path, **changed, require_sync=True)
        await until(box.open)
        for number in range(10):
            await box.deposit(asked(number))
        info = await box.store._link.info()
        assert info is not None
        leader = next(server for server in servers if server.name == info["cluster"]["leader"])
        leader.stop()
        number = 10
        while number < 20:
            await until(partial(box.deposit, asked(number)))
            number += 1
        lease = await box.fetch()
        assert contents(lease) == list(range(20))
        assert await box.acknowledge(lease) == 20
        await box.store.close()
    finally:
        for server in servers:
            server.stop()


async def until(call: Callable[[], Awaitable[T]]) -> T:
    """Try again until it succeeds: nothing but trying tells when a cluster has a leader."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except (Refused, StoreError):
                await asyncio.sleep(0.05)
