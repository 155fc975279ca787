"""The parts of `--workers`, without a process: shares, waits, the line to a worker, figures put together, addresses."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import socket
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from pydantic import SecretStr

from keys.identity import Identity
from relay.backoff import LEAST, MOST, SETTLED, Backoff
from relay.backplane.options import ClusterOptions
from relay.channel import Lines, Orders, read_orders
from relay.doors import Doors
from relay.limits import Limits
from relay.listen import CannotListenError
from relay.notify import notify
from relay.settings import Settings
from relay.shares import share
from relay.together import merged_metrics, merged_readiness, merged_sessions
from relay.worker import _metrics
from tests.relay.harness import Lab
from tests.support.clients import run_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.metrics_core import Metric

    from relay.core import Core


# --- Shares ----------------------------------------------------------------------------------------------------------


def test_memory_is_divided_and_what_is_each_clients_is_not() -> None:
    limits = Limits(queue_total=100_000_000, partial_total=1001, subscriptions_total=10, connections=1000)
    part = share(Settings(limits=limits), 4).limits
    changed = {each.name for each in fields(Limits) if getattr(part, each.name) != getattr(limits, each.name)}
    assert changed == {
        "queue_total", "partial_total", "subscriptions_total", "connections", "callout_parallel", "callout_waiting",
    }  # fmt: skip
    assert (part.queue_total, part.partial_total, part.subscriptions_total) == (25_000_000, 251, 3)
    assert part.connections == 250


def test_open_files_are_each_processs_own() -> None:
    assert share(Settings(), 8).limits.connections == Limits().connections
    assert share(Settings(limits=Limits(connections=0)), 8).limits.connections == 0


def test_a_share_can_be_used_however_many_there_are() -> None:
    part = share(Settings(limits=Limits(subscriptions_total=0)), 128).limits
    assert part.queue_total >= part.queue_size
    assert part.subscriptions_total == 0  # off, and not one
    assert part.callout_parallel == 1


# --- Waits -----------------------------------------------------------------------------------------------------------


def test_waits_double_and_begin_anew_after_a_long_run() -> None:
    now = 0.0
    backoff = Backoff(lambda: now)
    waits = []
    for _ in range(10):
        waits.append(backoff.next())
        now += waits[-1] + 0.01
    assert waits[:3] == [LEAST, 2 * LEAST, 4 * LEAST]
    assert waits[-1] == MOST
    now += SETTLED - 1
    assert backoff.next() == MOST
    now += MOST + SETTLED
    assert backoff.next() == LEAST


# --- Orders and lines ------------------------------------------------------------------------------------------------


def orders(**how: Any) -> Orders:
    cluster = ClusterOptions(("nats://127.0.0.1:4222",), bytes(32), user="a", password="hunter2")
    given = {"seeds": (bytes(32), bytes(32)), "notifier_id": None, "cluster": cluster, "channel": 7, "index": 1}
    return Orders(**{"settings": Settings(), "arguments": ("--workers", "2"), **given, **how})


def test_orders_arrive_whole_and_nothing_more_is_read() -> None:
    settings = Settings(token=SecretStr("0123456789abcdef"), limits=Limits(malformed=3))
    sent = orders(settings=settings, sockets=(8, 9))
    stream = io.BytesIO(sent.encode() + b"what follows")
    assert read_orders(stream) == sent
    assert stream.read() == b"what follows"
    for end in (0, 3, 4, 50):
        with pytest.raises(EOFError):
            read_orders(io.BytesIO(sent.encode()[:end]))


def test_orders_are_the_same_with_all_that_they_can_hold(tmp_path: Path) -> None:
    cluster = ClusterOptions(
        ("tls://a.example:4222", "tls://b.example:4222"),
        bytes(range(32)),
        credentials=tmp_path / "relay.creds",
        ca=tmp_path / "ca.pem",
        certificate=tmp_path / "relay.pem",
        key=tmp_path / "relay.key",
        node="worker-2",
    )
    settings = Settings(
        data_dir=tmp_path,
        nats=cluster.servers,
        nats_creds=cluster.credentials,
        cluster_secret=SecretStr(cluster.secret.hex()),
        workers=4,
        push_kinds=("fcm", "apns"),
        drain=0.5,
        unix_socket_mode="0666",
        notice="zwölf „Boxkämpfer“",
    )
    sent = orders(settings=settings, cluster=cluster, notifier_id=bytes(range(8)), seeds=(b"\x01" * 32, b"\xfe" * 32))
    found = read_orders(io.BytesIO(sent.encode()))
    assert found == sent
    assert found.settings.cluster_secret == settings.cluster_secret


def test_orders_are_shown_without_secrets() -> None:
    seeds = Identity.generate().seeds
    shown = repr(orders(seeds=seeds, settings=Settings(token=SecretStr("0123456789abcdef"))))
    for secret in (*map(repr, seeds), "hunter2", "0123456789abcdef"):
        assert secret not in shown
    # An identity itself still refuses to travel.
    with pytest.raises(TypeError):
        pickle.dumps(Identity.generate())


async def pair(heard: list[Any]) -> tuple[Lines, Lines]:
    one, other = socket.socketpair()
    ours = Lines(*await asyncio.open_unix_connection(sock=one), lambda _: None)
    theirs: Lines

    def hear(message: dict[str, Any]) -> None:
        heard.append(message)
        if message.get("ask") == "impossible":
            raise ValueError("it cannot be counted")
        if message.get("ask") == "count":
            theirs.tell(number=message["number"], answer=3)

    theirs = Lines(*await asyncio.open_unix_connection(sock=other), hear)
    return ours, theirs


@run_async
async def test_questions_have_answers_or_none() -> None:
    heard: list[Any] = []
    ours, theirs = await pair(heard)
    listening = [asyncio.create_task(each.listen()) for each in (ours, theirs)]
    assert list(await asyncio.gather(ours.ask("count", 20), ours.ask("count", 20))) == [3, 3]
    assert await ours.ask("what", 0.01) is None
    ours.tell(elsewhere=5)
    waiting = asyncio.create_task(ours.ask("nothing", 20))
    while len(heard) < 5:  # noqa: ASYNC110 - what is heard is noted at the other end of a socket
        await asyncio.sleep(0)
    assert heard[3] == {"elsewhere": 5}
    # Whoever is asked and goes has no answer, at once.
    theirs.close()
    assert await waiting is None
    await asyncio.gather(*listening)
    ours.tell(more=1)  # to nobody
    ours.close()


@run_async
async def test_an_error_in_one_answer_is_told_and_the_next_question_is_heard() -> None:
    ours, theirs = await pair([])
    listening = [asyncio.create_task(each.listen()) for each in (ours, theirs)]
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context["exception"])))
    assert await ours.ask("impossible", 0.01) is None
    assert await ours.ask("count", 20) == 3
    assert errors == ["it cannot be counted"]
    ours.close()
    theirs.close()
    await asyncio.gather(*listening)


# --- Figures together ------------------------------------------------------------------------------------------------


class _Given(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def text(metrics: list[Metric]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(metrics))
    return generate_latest(registry).decode()


def through(core: Core) -> Any:
    """What a worker tells, as it arrives."""

    class Has:
        pass

    relay: Any = Has()
    relay.core = core
    return json.loads(json.dumps(_metrics(relay)))


def test_every_metric_of_a_worker_is_there_under_its_number() -> None:
    one, two = Lab().core, Lab().core
    one.counters.wakes, two.counters.wakes = 3, 4
    told = text([*merged_metrics([through(one), None, through(two)])])
    assert 'blindrelay_wakes_total{worker="1"} 3.0\n' in told
    assert 'blindrelay_wakes_total{worker="3"} 4.0\n' in told
    assert 'worker="2"' not in told
    assert 'blindrelay_loop_lag_seconds_bucket{le="+Inf",worker="1"} 0.0\n' in told
    # One family has one head, however many workers there are.
    assert told.count("# TYPE blindrelay_wakes_total counter\n") == 1
    alone = text([*merged_metrics([through(one)])])
    assert {line for line in told.splitlines() if line.startswith("#")} == {
        line for line in alone.splitlines() if line.startswith("#")
    }


def test_sessions_are_added_up() -> None:
    report = {"at": "2026-01-01T00:00:00Z", "sessions": 2, "by_age": {"under_1_min": 1, "under_1_h": 1}}
    later = {"at": "2026-01-01T00:00:01Z", "sessions": 3, "by_age": {"under_1_min": 3, "under_1_h": 0}}
    assert merged_sessions([report, None, later]) == {
        "at": "2026-01-01T00:00:01Z",
        "sessions": 5,
        "by_age": {"under_1_min": 4, "under_1_h": 1},
        "workers": 2,
    }
    assert merged_sessions([None, None]) == {"workers": 0}


def test_it_is_ready_while_one_is() -> None:
    good: dict[str, Any] = {"reasons": [], "degraded": False}
    bad = {"reasons": ["started: the relay is starting"], "degraded": False}
    cut = {"reasons": [], "degraded": True}
    assert merged_readiness([good, good], draining=False).encode().startswith(b"HTTP/1.1 200")
    some = merged_readiness([good, None, bad, cut], draining=False).encode()
    assert some.startswith(b"HTTP/1.1 200")
    for line in (
        b"\nworker 2: it does not run, or does not answer\n",
        b"\nworker 3: started: the relay is starting\n",
        b"\nworker 4: degraded: it does not reach the others through NATS\n",
    ):
        assert line in some
    for none in ([None, bad], [None, None]):
        assert merged_readiness(none, draining=False).encode().startswith(b"HTTP/1.1 503")
    assert merged_readiness([good, good], draining=True).encode().startswith(b"HTTP/1.1 503")


# --- Addresses -------------------------------------------------------------------------------------------------------


def listening(port: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


@run_async
async def test_a_port_is_kept_and_workers_may_listen_on_it() -> None:
    doors = Doors(Settings(port=0), dealt_out=True)
    await doors.open()
    assert doors.port
    assert doors.sockets == ()
    with listening(doors.port), listening(doors.port), socket.create_connection(("127.0.0.1", doors.port)):
        # Another relay does not share it unless both want to.
        with pytest.raises(CannotListenError, match="in use"):
            await Doors(Settings(port=doors.port), dealt_out=True).open()
        taking_over = Doors(Settings(port=doors.port, reuse_port=True), dealt_out=True)
        await taking_over.open()
        taking_over.close()
    with pytest.raises(ConnectionRefusedError):  # the parent's own never listens
        socket.create_connection(("127.0.0.1", doors.port))
    doors.close()


@run_async
async def test_where_ports_are_not_dealt_out_the_parent_listens() -> None:
    doors = Doors(Settings(port=0), dealt_out=False)
    await doors.open()
    assert len(doors.sockets) == 1
    socket.create_connection(("127.0.0.1", doors.port)).close()
    with pytest.raises(CannotListenError):
        await Doors(Settings(port=doors.port), dealt_out=False).open()
    doors.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", doors.port))


@run_async
async def test_all_addresses_of_a_name_have_one_port() -> None:
    doors = Doors(Settings(host="", port=0), dealt_out=False)
    await doors.open()
    for number in doors.sockets:
        with socket.socket(fileno=number) as sock:
            assert sock.getsockname()[1] == doors.port
            sock.detach()
    doors.close()


@run_async
async def test_a_unix_socket_is_made_and_removed(tmp_path: Path) -> None:
    settings = Settings(unix_socket=tmp_path / "s", url="wss://relay.example/ws")
    doors = Doors(settings)
    await doors.open()
    assert len(doors.sockets) == 1
    assert (tmp_path / "s").is_socket()
    with pytest.raises(CannotListenError, match="another process listens there"):
        await Doors(settings).open()
    doors.close()
    assert not (tmp_path / "s").exists()


@run_async
async def test_an_address_that_cannot_be_had() -> None:
    with pytest.raises(CannotListenError, match=r"cannot listen on 192\.0\.2\.1 port 0"):
        await Doors(Settings(host="192.0.2.1", port=0)).open()


# --- systemd ---------------------------------------------------------------------------------------------------------


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "n"))
        assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "n")})
        assert sock.recv(100) == b"READY=1"


def test_who_is_not_there_is_not_told(tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "relative"})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "none")})
