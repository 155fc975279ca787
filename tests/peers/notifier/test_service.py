"""The service between events and lanes, with a real registry: order, removal, bursts, and faults on either side."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest
import structlog

from peers.client import (
    Connected,
    Disconnected,
    Event,
    IdInUse,
    NotAdmitted,
    PeerPacket,
    PushRegistered,
    Reason,
    WakeRequested,
)
from peers.database import DatabaseError
from peers.notifier.admin import Admin
from peers.notifier.channel import Outcome, Push, PushType, Result
from peers.notifier.lane import Lane
from peers.notifier.limits import Limits
from peers.notifier.metrics import Metrics
from peers.notifier.registry import Registry
from peers.notifier.service import Service
from tests.peers.notifier.scripted import CALL, MESSAGE, SENT, ScriptedChannel
from tests.support.clients import WAIT, run_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ALICE, BOB = b"alice!!!", b"bob!!!!!"


class Feed:
    """Events as a relay client gives them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    def put(self, *events: Event | Exception | None) -> None:
        """Give events; an error is raised, None is the end."""
        for event in events:
            self._queue.put_nowait(event)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._queue.get()
        if isinstance(event, Exception):
            raise event
        if event is None:
            raise StopAsyncIteration
        return event


class Rig:
    """A service that runs, with scripted channels for FCM and Web Push."""

    def __init__(self, registry: Registry, *, limits: Limits | None = None, workers: int = 16) -> None:
        self.registry = registry
        self.limits = limits or Limits()
        self.fcm = ScriptedChannel(1, "fcm")
        self.web = ScriptedChannel(2, "webpush")
        self.metrics = Metrics(["fcm", "webpush"])
        self.service = Service(registry, self.metrics, 180)
        self.lanes = {
            each.kind: Lane(each, self.limits, workers, self.service, self.metrics) for each in (self.fcm, self.web)
        }
        self.feed = Feed()
        self.task = asyncio.create_task(self.service.run(self.feed, self.lanes))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.end()

    async def end(self) -> None:
        """End the events, and wait for all that came of them."""
        self.feed.put(None)
        await asyncio.wait_for(asyncio.shield(self.task), WAIT)
        await self.service.finish(asyncio.get_running_loop().time() + WAIT)

    def figure(self, name: str, **labels: str) -> int:
        value = self.metrics.registry.get_sample_value(f"blindrelay_notifier_{name}", labels)
        assert value is not None
        return int(value)

    async def reaches(self, count: int, name: str, **labels: str) -> None:
        """Return once a figure is so high."""
        async with asyncio.timeout(WAIT):
            while self.figure(name, **labels) < count:  # noqa: ASYNC110 - of a metric there is no event
                await asyncio.sleep(0.001)


async def opened(path: Path, **how: Any) -> Registry:
    return await Registry.open(path / "notifier.db", bytes(32), **how)


@run_async
async def test_who_registered_is_pushed(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.feed.put(
            PushRegistered(ALICE, 1, b"phone"),
            PushRegistered(ALICE, 2, b"laptop"),
            PushRegistered(BOB, 1, b"bob's"),
            WakeRequested(ALICE, 1),
            WakeRequested(b"nobody!!", 0),
        )
        await rig.end()
        assert [(each.token, each.push.type) for each in rig.fcm.taken] == [(b"phone", CALL)]
        assert [(each.token, each.push.type) for each in rig.web.taken] == [(b"laptop", CALL)]
        assert rig.figure("wakes_total", type="call", outcome="registered") == 1
        assert rig.figure("wakes_total", type="message", outcome="unknown") == 1


@pytest.mark.parametrize(("code", "kind"), [(None, MESSAGE), (0, MESSAGE), (1, CALL), (2, MESSAGE), (255, MESSAGE)])
@run_async
async def test_what_a_wake_is_for(code: int | None, kind: PushType, tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"), WakeRequested(ALICE, code))
        await rig.end()
        assert [each.push.type for each in rig.fcm.taken] == [kind]


@run_async
async def test_a_wake_behind_a_registration_finds_it_and_behind_a_removal_does_not(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        expected = []
        for n in range(300):
            registers = PushRegistered(os.urandom(8), 1, b"%d" % n)
            who = registers.sender_id
            leaves = PushRegistered(who, 0, b"ignored") if n % 2 else PushRegistered(who, 1, b"")
            for events, pushed in (
                ([registers], True),
                ([registers, leaves], False),
                ([registers, leaves, registers], True),
            ):
                if n % 3 == len(events) - 1:
                    rig.feed.put(*events, WakeRequested(who, 1))
                    expected += [registers.token] * pushed
        await rig.end()
        assert sorted(rig.fcm.tokens) == sorted(expected)
        assert rig.figure("wakes_total", type="call", outcome="registered") == 200
        assert rig.figure("wakes_total", type="call", outcome="unknown") == 100
        assert rig.figure("registration_events_total", outcome="added") == 400
        assert rig.figure("registration_events_total", outcome="removed") == 200


@run_async
async def test_what_waits_for_somebody_who_leaves_is_not_pushed(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def held(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return SENT

    async with await opened(tmp_path) as registry, Rig(registry, workers=1) as rig:
        rig.fcm.script = held
        rig.feed.put(*(PushRegistered(each, 1, each) for each in (ALICE, BOB)))
        rig.feed.put(WakeRequested(ALICE, 0), WakeRequested(BOB, 0))
        await rig.reaches(1, "queue", channel="fcm", type="message")
        rig.feed.put(PushRegistered(BOB, 0, b""))
        await rig.reaches(1, "registration_events_total", outcome="removed")
        gate.set()
        await rig.end()
        assert rig.fcm.tokens == [ALICE]


@run_async
async def test_an_empty_token_removes_its_kind_alone(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"), PushRegistered(ALICE, 2, b"laptop"))
        rig.feed.put(PushRegistered(ALICE, 1, b""), WakeRequested(ALICE, 1))
        await rig.end()
        assert (rig.fcm.tokens, rig.web.tokens) == ([], [b"laptop"])


@run_async
async def test_what_nobody_could_push_to_is_not_kept(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.feed.put(
            PushRegistered(ALICE, 3, b"https://ntfy.example/x"),  # not switched on
            PushRegistered(ALICE, 77, b"?"),
            PushRegistered(ALICE, 1, b"bad token"),
            PushRegistered(ALICE, 1, b"bug in the check"),
            PushRegistered(ALICE, 77, b""),  # a removal all the same
        )
        with structlog.testing.capture_logs() as logs:
            await rig.end()
        assert await registry.totals() == {}
        assert rig.figure("registration_events_total", outcome="not_offered") == 2
        assert rig.figure("registration_events_total", outcome="unusable") == 2
        assert rig.figure("registration_events_total", outcome="removed") == 1
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["internal_error"]


@run_async
async def test_a_full_registry_is_told_and_serves_those_who_are_in_it(tmp_path: Path) -> None:
    async with await opened(tmp_path, most=1) as registry, Rig(registry) as rig:
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"), PushRegistered(BOB, 1, b"bob's"), PushRegistered(BOB, 1, b"x"))
        rig.feed.put(WakeRequested(ALICE, 1), WakeRequested(BOB, 1))
        with structlog.testing.capture_logs() as logs:
            await rig.end()
        assert rig.fcm.tokens == [b"phone"]
        assert rig.figure("registration_events_total", outcome="full") == 2
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["registry_full"]


@run_async
async def test_a_token_that_the_service_knows_no_longer_leaves_the_registry(tmp_path: Path) -> None:
    async def script(token: bytes, _push: Push) -> Outcome:
        return Outcome(Result.GONE) if token == b"sold" else SENT

    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.fcm.script = script
        rig.feed.put(PushRegistered(ALICE, 1, b"sold"), PushRegistered(ALICE, 1, b"kept"), WakeRequested(ALICE, 0))
        await rig.end()
        (left,) = (await registry.find([ALICE]))[ALICE]
        assert left.token == b"kept"
        assert left.last_ok == registry.today


@run_async
async def test_ten_thousand_wakes_in_a_burst_lose_none(tmp_path: Path) -> None:
    async def slow(_token: bytes, _push: Push) -> Outcome:
        await asyncio.sleep(0.002)
        return SENT

    everybody = [os.urandom(8) for _ in range(10_000)]
    async with await opened(tmp_path) as registry, Rig(registry, workers=32) as rig:
        rig.fcm.script = slow
        rig.feed.put(*(PushRegistered(each, 1, each) for each in everybody))
        await rig.reaches(10_000, "registration_events_total", outcome="added")
        rig.feed.put(*(WakeRequested(each, n % 2) for n, each in enumerate(everybody)))
        await asyncio.wait_for(rig.fcm.has_taken(10_000), WAIT)
        assert sorted(rig.fcm.tokens) == sorted(everybody)
        for kind in ("message", "call"):
            for reason in ("coalesced", "capped", "dropped", "expired", "abandoned"):
                assert rig.figure("skipped_total", channel="fcm", type=kind, reason=reason) == 0
        assert rig.fcm.most_at_once == 16  # half of the workers: none of these was reached before


@run_async
async def test_a_dead_channel_does_not_delay_the_others(tmp_path: Path) -> None:
    async def dead(_token: bytes, _push: Push) -> Outcome:
        await asyncio.Event().wait()
        return SENT

    everybody = [os.urandom(8) for _ in range(500)]
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.fcm.script = dead
        for each in everybody:
            rig.feed.put(PushRegistered(each, 1, each), PushRegistered(each, 2, each))
        rig.feed.put(*(WakeRequested(each, 0) for each in everybody))
        await asyncio.wait_for(rig.web.has_taken(500), WAIT)
        assert rig.fcm.under_way == 8  # half of the workers: none of these was reached before
        assert rig.figure("queue", channel="fcm", type="message") == 500 - 8
        rig.feed.put(None)
        await asyncio.wait_for(asyncio.shield(rig.task), WAIT)
        assert await rig.service.finish(asyncio.get_running_loop().time()) == 500


@run_async
async def test_a_storm_of_wakes_for_one_is_one_push(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"), *(WakeRequested(ALICE, 0) for _ in range(5000)))
        await rig.end()
        assert rig.fcm.tokens == [b"phone"]
        assert rig.figure("skipped_total", channel="fcm", type="message", reason="coalesced") == 4999


@run_async
async def test_the_session_with_the_relay_is_told(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        assert rig.figure("relay_connected") == 0
        with structlog.testing.capture_logs() as logs:
            rig.feed.put(Connected(), PeerPacket(ALICE, b"from somebody"))
            await rig.reaches(1, "relay_connected")
            assert rig.service.connected
            rig.feed.put(IdInUse(), Disconnected(Reason.ID_IN_USE, "another session has our id", 2.04))
            await rig.reaches(1, "relay_disconnects_total", reason="id_in_use")
        told = [(line["event"], line["log_level"]) for line in logs if line["event"] != "pruned"]
        assert told == [("connected", "info"), ("id_in_use", "error"), ("disconnected", "warning")]
        assert rig.figure("relay_connected") == 0
        assert rig.figure("relay_sessions_total") == 1


@run_async
async def test_a_refusal_of_the_relay_ends_it(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry:
        rig = Rig(registry)
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"), NotAdmitted("no"))
        with pytest.raises(NotAdmitted):
            await asyncio.wait_for(rig.task, WAIT)


@run_async
async def test_a_fault_of_its_own_ends_it_and_is_not_passed_over(tmp_path: Path) -> None:
    class Broken(Registry):
        async def find(self, _ids: object) -> Any:
            raise ZeroDivisionError

    async with await Broken.open(tmp_path / "notifier.db", bytes(32)) as registry:
        rig = Rig(registry)
        rig.feed.put(WakeRequested(ALICE, 0))
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(rig.task, WAIT)


@run_async
async def test_a_registry_that_cannot_be_written_is_told_and_serves_on(tmp_path: Path) -> None:
    class Full(Registry):
        async def add(self, *_: object) -> Any:
            raise DatabaseError("notifier.db: the disk is full: make room and try again")

    async with await opened(tmp_path) as before:
        await before.add(ALICE, 1, b"phone")
    async with await Full.open(tmp_path / "notifier.db", bytes(32)) as registry, Rig(registry) as rig:
        with structlog.testing.capture_logs() as logs:
            rig.feed.put(*(PushRegistered(BOB, 1, b"%d" % n) for n in range(50)), WakeRequested(ALICE, 0))
            await rig.end()
        assert rig.fcm.tokens == [b"phone"]
        assert rig.figure("registration_events_total", outcome="failed") == 50
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["registry_trouble"]


@run_async
async def test_wakes_are_looked_up_again_where_the_registry_cannot_be_read(tmp_path: Path) -> None:
    class Moody(Registry):
        asked = 0

        async def find(self, ids: Any) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise DatabaseError("notifier.db: another process holds it for too long")
            return await super().find(ids)

    async with await Moody.open(tmp_path / "notifier.db", bytes(32)) as registry, Rig(registry) as rig:
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"), WakeRequested(ALICE, 0))
        await asyncio.wait_for(rig.fcm.has_taken(1), WAIT)
        assert registry.asked == 2


@run_async
async def test_rows_that_somebody_changed_are_told_and_passed_over(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        await registry.add(ALICE, 1, b"phone")
        await registry.add(BOB, 1, b"bob's")
        with closing(sqlite3.connect(tmp_path / "notifier.db", isolation_level=None)) as other:
            other.execute(
                "UPDATE tokens SET sealed_token = (SELECT sealed_token FROM tokens WHERE row = 2) WHERE row = 1"
            )
        rig.feed.put(WakeRequested(ALICE, 1), WakeRequested(BOB, 1), WakeRequested(ALICE, 1))
        with structlog.testing.capture_logs() as logs:
            await rig.end()
        assert rig.fcm.tokens == [b"bob's"]
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["registry_unreadable"]


@run_async
async def test_how_many_are_registered_is_shown(tmp_path: Path) -> None:
    async with await opened(tmp_path) as before:
        for number in range(5):
            await before.add(b"%08d" % number, 1 + number % 2, b"t")
        await before.add(ALICE, 4, b"of a channel that is off")
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        await rig.reaches(3, "registrations", channel="fcm")
        await rig.reaches(2, "registrations", channel="webpush")
        assert rig.figure("registrations", channel="apns") == 1, "of a kind that is switched off"
        assert rig.figure("registrations", channel="unifiedpush") == 0


@run_async
async def test_the_figure_is_that_of_the_moment_it_is_looked_at(tmp_path: Path) -> None:
    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        admin = Admin(rig.service, rig.metrics, ["fcm", "webpush"])
        port = await admin.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession() as session:
                for count in (1, 2):
                    await registry.add(b"%08d" % count, 1, b"t")
                    async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                        assert f'registrations{{channel="fcm"}} {count}.0' in await answer.text()
        finally:
            await admin.close()


@run_async
async def test_a_token_registered_again_while_its_push_is_answered_with_410_stays(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def gone(_token: bytes, _push: Push) -> Outcome:
        await gate.wait()
        return Outcome(Result.GONE)

    async with await opened(tmp_path) as registry, Rig(registry) as rig:
        rig.fcm.script = gone
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"), WakeRequested(ALICE, 0))
        await asyncio.wait_for(rig.fcm.has_taken(1), WAIT)
        rig.feed.put(PushRegistered(ALICE, 1, b"phone"))
        await rig.reaches(1, "registration_events_total", outcome="refreshed")
        rig.fcm.script = None
        gate.set()
        await rig.end()
        assert [each.token for each in (await registry.find([ALICE]))[ALICE]] == [b"phone"]


@run_async
async def test_what_was_not_registered_for_half_a_year_goes_by_itself(tmp_path: Path) -> None:
    clock = [1e9]
    async with await opened(tmp_path, clock=lambda: clock[0]) as registry:
        await registry.add(ALICE, 1, b"phone")
        clock[0] += 181 * 86400
        await registry.add(BOB, 1, b"bob's")
        async with Rig(registry) as rig:
            await rig.reaches(1, "registrations", channel="fcm")
            assert await registry.find([ALICE]) == {}
