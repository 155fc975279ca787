"""The stream: who may use it, what NATS sees, and what is left of what was deleted."""

from __future__ import annotations

import asyncio
import base64
import builtins
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keys.deposit import drop_digest
from keys.identity import Identity
from peers.mailbox.jetstream_link import Link
from peers.mailbox.jetstream_rows import BadRow, Meta, Names, Post
from peers.mailbox.jetstream_settings import JetStreamSettings, stream_secret
from peers.mailbox.jetstream_store import JetStreamStore
from peers.mailbox.rules import Refused
from peers.mailbox.store import NewItem, StoreError, StoreFull
from tests.peers.mailbox.lab import ALICE, BOB, CAROL, START, asked, content, contents, limits, secret
from tests.peers.mailbox.nats import SECRET, Nats, check_stream, messages
from tests.peers.mailbox.streams import a_box, item, secret_file
from tests.support.clients import run_async
from wire import mailbox_commands as asks
from wire.mailbox_codes import ItemKind, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = frozenset(ItemKind)


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server as operators are to have it."""
    server = Nats(tmp_path_factory.mktemp("synced"), sync="always")
    yield server
    server.stop()


# --- Settings and the stream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"servers": ""}, "servers"),
        ({"servers": "http://a"}, "servers"),
        ({"servers": "nats://user:password@a"}, "no passwords in URLs"),
        ({"stream": "a.b"}, "stream"),
        ({"prefix": "a..b"}, "prefix"),
        ({"prefix": "a.>"}, "prefix"),
        ({"replicas": 2}, "replicas"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"monitoring": "file:///etc/passwd"}, "monitoring"),
        ({"certificate": "x"}, "certificate, key: both or none"),
        ({"password_file": "x"}, "of which user"),
        ({"timeout": 0}, "timeout"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        JetStreamSettings(**changed)


@run_async
async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "nats":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(StoreError, match=r"blindrelay\[mailbox-nats\]"):
        await JetStreamStore.open(JetStreamSettings(), limits(), SECRET)


@run_async
async def test_no_server() -> None:
    settings = JetStreamSettings("nats://127.0.0.1:1", timeout=0.2)
    with pytest.raises(StoreError, match=r"cannot connect to NATS at nats://127\.0\.0\.1:1"):
        await JetStreamStore.open(settings, limits(), SECRET)


@run_async
async def test_a_server_that_lets_nobody_in(tmp_path: Path) -> None:
    more = 'authorization { user: "box", password: "a password of the test" }'
    server = Nats(tmp_path / "nats", more=more)
    try:
        with pytest.raises(StoreError, match="does it let this mailbox in"):
            await server.open("a", limits(), timeout=1.0)
        secret_file(tmp_path / "password", "a password of the test\n")
        store = await server.open("a", limits(), user="box", password_file=tmp_path / "password")
        assert (await store.totals()).items == 0
        await store.close()
    finally:
        server.stop()


@run_async
async def test_servers_must_sync_what_they_confirm(nats: Nats, synced: Nats) -> None:
    with pytest.raises(StoreError, match="name the monitoring URLs of 1"):
        await nats.open("sync", limits(), require_sync=True)
    with pytest.raises(StoreError, match=r"confirms what a power cut takes away: set `sync_interval: always`"):
        await nats.open("sync", limits(), require_sync=True, monitoring=nats.monitoring)
    with pytest.raises(StoreError, match="cannot be read"):
        await nats.open("sync", limits(), require_sync=True, monitoring="http://127.0.0.1:1")
    store = await synced.open("sync", limits(), require_sync=True, monitoring=synced.monitoring)
    await store.close()


@run_async
async def test_a_stream_that_is_kept_in_another_way(nats: Nats) -> None:
    settings = nats.settings("other")
    link = await Link.open(settings)
    await link.api(
        f"STREAM.CREATE.{settings.stream}",
        {"name": settings.stream, "subjects": [f"{settings.prefix}.>"], "max_age": 10**12, "storage": "memory"},
    )
    await link.close()
    with pytest.raises(StoreError, match="not kept as a mailbox needs it") as error:
        await nats.open("other", limits())
    for wrong in ("discard is", "max_msgs_per_subject is -1 and must be 1", "max_age is", "storage is", "allow_atomic"):
        assert wrong in str(error.value)
    assert "replicas" not in str(error.value)


@run_async
async def test_more_replicas_than_servers(nats: Nats) -> None:
    with pytest.raises(StoreError, match="cannot make the stream"):
        await nats.open("replicas", limits(), replicas=3)


@run_async
async def test_a_stream_of_another_mailbox(nats: Nats) -> None:
    await (await nats.open("mine", limits())).close()
    store = await nats.open("mine", limits())
    await store.save_time(START)
    await store.close()
    theirs = stream_secret(Identity(b"x" * 32, b"X" * 32))
    with pytest.raises(StoreError, match="of a mailbox with another key file"):
        await JetStreamStore.open(nats.settings("mine"), limits(), theirs)


@run_async
async def test_a_stream_with_something_else_in_it(nats: Nats) -> None:
    await (await nats.open("used", limits())).close()
    link = await Link.open(nats.settings("used"))
    await link._client.request(f"{nats.settings('used').prefix}.else", b"hello", timeout=5)
    await link.close()
    with pytest.raises(StoreError, match="used for something else"):
        await nats.open("used", limits())


@run_async
async def test_limits_that_do_not_fit_a_message(nats: Nats) -> None:
    with pytest.raises(StoreError, match="raise max_payload of the servers, or lower"):
        await nats.open("large", limits(recipient_items=50_000))


@run_async
async def test_a_stream_that_somebody_deletes(nats: Nats) -> None:
    store = await nats.open("deleted", limits())
    await store.deposit(item(1), START)
    await store._link.api(f"STREAM.DELETE.{nats.settings('deleted').stream}")
    with pytest.raises(StoreError):
        await store.deposit(item(2), START)
    with pytest.raises(StoreError, match="is gone; start the mailbox again"):
        await store.totals()
    await store.close()


# --- What NATS sees ---------------------------------------------------------------------------------------------------


@run_async
async def test_what_nats_sees(nats: Nats, tmp_path: Path) -> None:
    """No key of anybody, no digest, no end, no kind; of a recipient always the same name, which means nothing."""
    box = a_box(nats, tmp_path / "box")
    async with box:
        await box.deposit(asked(1))
        await box.deposit(asked(2, CAROL))
        await box.mailbox.store.deposit(
            NewItem(BOB.public.x_pub, ItemKind.ENVELOPE, START, b"d" * 16, ALICE.public.x_pub + b"p" * 99), START
        )
        settings = nats.settings(box.path)
        found = await messages(settings)
        left = nats.bytes_on_disk()
    for hidden in (
        *(who.public.x_pub for who in (ALICE, BOB, CAROL)),
        drop_digest(secret(1)),
        content(1)[:64],
        BOB.public.x_pub.hex().encode(),
        SECRET,
    ):
        assert hidden not in left
    shapes = [re.sub(r"[\w-]{22}", "D", subject.removeprefix(f"{settings.prefix}.")) for subject, _, _ in found]
    shapes = [re.sub(r"\d{6}", "H", re.sub(r"(?<=D\.)[0-9a-f]+", "N", shape)) for shape in shapes]
    # When CAROL's is to be looked at, and BOB's: first the one end and then, of the envelope, the other.
    assert sorted(shapes) == ["e.H.D", "e.H.D", "e.H.D", "i.D.N", "i.D.N", "i.D.N", "m", "r.D", "r.D"]
    assert [body for subject, _, body in found if ".e." in subject].count(b"") == 1
    digests = {subject.split(".")[3] for subject, _, _ in found if ".i." in subject}
    assert len(digests) == 2
    assert digests.isdisjoint({Names("p", b"y" * 32).digest(who.public.x_pub) for who in (BOB, CAROL)})


def test_bodies_are_bound_to_their_subjects() -> None:
    names, other = Names("p", SECRET), Names("p", b"y" * 32)
    sealed = names.seal("p.i.a.1", b"content")
    assert names.open("p.i.a.1", sealed) == b"content"
    for wrong in (
        lambda: names.open("p.i.a.2", sealed),
        lambda: other.open("p.i.a.1", sealed),
        lambda: names.open("p.i.a.1", sealed[:-1]),
        lambda: names.open("p.i.a.1", b""),
        lambda: Post.decode("d", 1, b""),
        lambda: Post.decode("d", 1, b"\2" + Post("d").encode()[1:]),
        lambda: Post.decode("d", 1, Post("d").encode() + b"x"),
        lambda: Meta.decode(1, b"\1"),
        lambda: Meta.decode(1, b"\2" + Meta().encode()[1:]),
        lambda: Meta.decode(1, Meta().encode() + b"x"),
    ):
        with pytest.raises(BadRow):
            wrong()


# --- What is left of what was deleted ---------------------------------------------------------------------------------


@run_async
async def test_what_was_deleted_is_overwritten(nats: Nats, tmp_path: Path) -> None:
    """Sealed contents are looked for as they stand in the stream."""
    box = a_box(nats, tmp_path / "box")
    async with box:
        for number in range(6):
            await box.deposit(asked(number, ttl=60 if number == 3 else 0))
        bodies = {subject: body for subject, _, body in await messages(nats.settings(box.path)) if ".i." in subject}
        assert all(body[:64] in nats.bytes_on_disk() for body in bodies.values())
        await box.acknowledge(await box.fetch(limit=3))
        await box.says(asks.Drop(1, BOB.public.x_pub, secret(4)))
        box.passes(7200)
        await box.tend()
        await box.store.tidy(box.tick)
        left = nats.bytes_on_disk()
        assert sum(body[100:164] in left for body in bodies.values()) == 1
        assert contents(await box.fetch()) == [5]
    await check_stream(nats.settings(box.path), box.limits)


@run_async
async def test_what_a_killed_process_did_not_overwrite_the_next_one_does(nats: Nats, tmp_path: Path) -> None:
    box = a_box(nats, tmp_path / "box")
    async with box:
        for number in range(3):
            await box.deposit(asked(number))
        await box.store._eraser.close()  # dead from here on
        await box.acknowledge(await box.fetch(limit=2))
        assert len(box.store._writer.erasing) == 2
        await box.store._writer.close()
        await box.store._link.close()
        assert len([subject for subject, _, _ in await messages(nats.settings(box.path)) if ".i." in subject]) == 3
        await box.open()
        await box.store.tidy(box.tick)
        assert len([subject for subject, _, _ in await messages(nats.settings(box.path)) if ".i." in subject]) == 1


@run_async
async def test_without_overwriting(nats: Nats, tmp_path: Path) -> None:
    box = a_box(nats, tmp_path / "box", overwrite=False)
    async with box:
        await asyncio.gather(*(box.deposit(asked(number)) for number in range(300)))
        lease = await box.fetch()
        assert await box.acknowledge(lease) == 64
        assert not box.store._writer.erasing
        assert (await box.store.totals()).items == 236
    await check_stream(nats.settings(box.path), box.limits)


@run_async
async def test_deleting_waits_for_overwriting(nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peers.mailbox.jetstream_store.ERASING_MAX", 5)
    box = a_box(nats, tmp_path / "box")
    async with box:
        await asyncio.gather(*(box.deposit(asked(number)) for number in range(40)))
        seen = 0
        for item_ in (await box.fetch()).items:
            await box.says(asks.Ack(1, (item_.number,)), BOB)
            seen = max(seen, len(box.store._writer.erasing))
        assert 0 < seen <= 6
        assert (await box.store.totals()).items == 0


@run_async
async def test_nats_deletes_what_no_mailbox_does(nats: Nats, tmp_path: Path) -> None:
    """Contents end by NATS' clock too, much later; the sums come right when it shows."""
    box = a_box(nats, tmp_path / "box")
    async with box:
        for number in range(3):
            await box.deposit(asked(number, ttl=3600))
        link = box.store._link
        for subject, seq, _ in await messages(nats.settings(box.path)):
            if ".i." in subject:
                raw = await link.api(f"STREAM.MSG.GET.{link.settings.stream}", {"seq": seq})
                headers = base64.b64decode(raw["message"]["hdrs"]).decode()
                ttl = int(re.search(r"Nats-TTL: (\d+)", headers)[1])  # type: ignore[index]
                assert ttl == 2 * 86400
                await link.erase(seq)
                break
        lease = await box.fetch()
        assert contents(lease) == [1, 2]
        assert (await box.store.totals()).items == 2
        await box.deposit(asked(0))
        assert contents(await box.fetch()) == [0]
    await check_stream(nats.settings(box.path), box.limits)


# --- No room ----------------------------------------------------------------------------------------------------------


@run_async
async def test_room_in_the_stream_is_left(nats: Nats, tmp_path: Path) -> None:
    box = a_box(nats, tmp_path / "box", limits(disk_reserve=1 << 16), max_bytes=1 << 17)
    async with box:
        kept = 0
        with pytest.raises(Refused) as refused:
            while True:
                await box.deposit(asked(kept))
                kept += 1
        assert refused.value.reason is Reason.FULL
        assert 20 < kept < 64
        lease = await box.fetch()
        assert (len(lease.items), lease.refusals) == (kept, 1)
        assert await box.acknowledge(lease) == kept  # deleting goes on
        await box.store.tidy(box.tick)
        await box.tend()
        await box.deposit(asked(1000))


@run_async
async def test_a_full_stream(nats: Nats, tmp_path: Path) -> None:
    """NATS refuses the commit: the depositors are told, those who only look are served, and the marker comes later."""
    box = a_box(nats, tmp_path / "box", max_bytes=1 << 15)
    async with box:
        kept = 0
        try:
            while True:
                await box.deposit(asked(kept))
                kept += 1
        except Refused as refused:
            assert refused.reason is Reason.FULL
            assert isinstance(refused.__cause__, StoreFull) or box.store._writer._room is not None
        results = await asyncio.gather(box.deposit(asked(999)), box.fetch(), return_exceptions=True)
        assert isinstance(results[0], Refused)
        assert len(results[1].items) == kept  # type: ignore[union-attr]


# --- In memory --------------------------------------------------------------------------------------------------------


@run_async
async def test_the_cache_is_bounded(nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peers.mailbox.jetstream_writer.CACHE", 50)
    monkeypatch.setattr("peers.mailbox.jetstream_writer.PACKED", 5 * 700)
    box = a_box(nats, tmp_path / "box")
    async with box:
        people = [Identity(bytes((number,)) * 32, b"E" * 32) for number in range(1, 31)]
        for number in range(90):
            await box.deposit(asked(number, people[number % 30]))
        writer = box.store._writer
        assert sum(4 + len(post.entries) for post in writer._cache.values()) == writer._weight <= 50
        assert set(writer._weights) == set(writer._cache)
        assert 0 < sum(400 + len(body) for _, body in writer._packed.values()) == writer._packed_size <= 5 * 700
        assert set(writer._packed).isdisjoint(writer._cache)
        for number, who in enumerate(people):
            assert contents(await box.fetch(who)) == [number, number + 30, number + 60]
        for who in people:
            await box.acknowledge(await box.fetch(who), who)
        assert writer._weight == sum(4 + len(post.entries) for post in writer._cache.values())


@run_async
async def test_no_request_of_a_call_looks_at_more_than_it_is_about(nats: Nats, tmp_path: Path) -> None:
    """A look through the stream would show here: requests by kind do not grow with what is held."""
    box = a_box(nats, tmp_path / "box")
    async with box:
        await box.tend()
        seen: list[list[str]] = []
        for round_ in range(2):
            asked_for: list[str] = []
            client = box.store._link._client
            request = client.request

            async def counted(subject: str, data: bytes = b"", **options: Any) -> Any:
                asked_for.append(subject.rpartition(".")[0])  # noqa: B023
                return await request(subject, data, **options)  # noqa: B023

            client.request = counted
            box.store._writer._forget()
            await box.deposit(asked(10_000 + round_, CAROL))
            await box.acknowledge(await box.fetch(CAROL), CAROL)
            await box.tend()
            await box.store.tidy(0.0)
            client.request = request
            seen.append(sorted(asked_for))
            await asyncio.gather(*(box.deposit(asked(number + 1000 * round_)) for number in range(300)))
        assert seen[0] == seen[1]


def test_settings_are_no_secret() -> None:
    settings = replace(JetStreamSettings(), user="a", password_file=Path("/a/secret/path"))
    assert "secret" not in repr(settings)
