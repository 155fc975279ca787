"""`--workers` as an operator sees it: processes that die come back, and none is left when the relay ends.

Where this tree has no backplane yet, the workers join one that does nothing but hold a connection to NATS.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil  # type: ignore[import-untyped]
import pytest

from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity
from relay import backplane
from tests.support.bulk import BulkClient
from tests.support.clients import eventually, run_async
from tests.support.relay_process import ROOT, RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAKE: Final = str(ROOT / "tests" / "support" / "fake_cluster.py")
PROGRAM: Final = ("-m", "relay") if hasattr(backplane, "join") else (FAKE,)
# What the backplane says of a server or a worker that is gone, when it is the first to see it.
NOTICED: Final = ("cluster_unreachable", "cluster_node_gone")


@pytest.fixture
def start_workers(start_relay: Callable[..., RelayProcess]) -> Callable[..., RelayProcess]:
    def start(**how: Any) -> RelayProcess:
        arguments = ["--workers", "2", *how.pop("arguments", ())]
        return start_relay(program=PROGRAM, arguments=arguments, admin="127.0.0.1:0", may_warn=NOTICED, **how)

    return start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """One for the tests that end nothing of it."""
    directory = tmp_path_factory.mktemp("relay")
    arguments = ["--workers", "2"]
    relay = RelayProcess(directory, program=PROGRAM, arguments=arguments, admin="127.0.0.1:0", may_warn=NOTICED)
    yield relay
    relay.check()


def children(relay: RelayProcess) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Return the workers and the NATS servers."""
    below = psutil.Process(relay.process.pid).children(recursive=True)
    named = [(each, each.name()) for each in below]
    nats = [each for each, name in named if name == "nats-server"]
    guards = {each.parent().pid for each in nats}
    return [each for each in below if each.parent().pid == relay.process.pid and each.pid not in guards], nats


def page(relay: RelayProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{relay.admin_port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def events(relay: RelayProcess) -> list[str]:
    return [record["event"] for record in relay.records]


def samples(text: str, name: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return {line.rpartition(" ")[0].removeprefix(name): float(line.rpartition(" ")[2]) for line in lines}


async def clients(relay: RelayProcess, count: int) -> list[BulkClient]:
    return [await BulkClient.open(relay.port, Identity.generate(), relay.public) for _ in range(count)]


@run_async
async def test_sessions_are_counted_where_they_are(shared: RelayProcess) -> None:
    connected = await clients(shared, 24)
    status, text = await asyncio.to_thread(page, shared, "/metrics")
    assert status == 200
    by_worker = samples(text, "blindrelay_sessions")
    assert set(by_worker) == {'{worker="1"}', '{worker="2"}'}
    assert sum(by_worker.values()) == 24
    # That all fall to one of two has the chance of one in eight million.
    assert all(by_worker.values())
    sessions = json.loads((await asyncio.to_thread(page, shared, "/sessions"))[1])
    assert (sessions["sessions"], sessions["workers"]) == (24, 2)
    assert sessions["sessions_by_age"]["under_1_min"] == 24

    def told() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{shared.port}/status", timeout=20) as answer:
            return bool(json.load(answer)["connections"] == 24)

    for _ in range(8):  # of whichever answers
        while not await asyncio.to_thread(told):  # noqa: ASYNC110 - another process tells it
            await asyncio.sleep(0.05)
    for client in connected:
        client.transport.abort()


def test_it_is_one_relay_to_an_operator(shared: RelayProcess) -> None:
    text = page(shared, "/metrics")[1]
    assert samples(text, "blindrelay_workers") == {"": 2}
    assert samples(text, "blindrelay_workers_listening") == {"": 2}
    assert samples(text, "blindrelay_worker_restarts_total") == {'{worker="1"}': 0, '{worker="2"}': 0}
    assert samples(text, "blindrelay_nats_server_restarts_total") == {"": 0}
    assert page(shared, "/readyz") == (200, "ready\n")
    assert page(shared, "/healthz") == (200, "ok\n")
    assert page(shared, "/elsewhere")[0] == 404
    started = shared.started
    assert (started["workers"], started["nats"]) == (2, "private")
    # What is said is said once, by the parent.
    assert events(shared).count("started") == 1
    assert shared.output.count("listens on") == 1


@run_async
async def test_a_worker_that_is_killed_comes_back(start_workers: Callable[..., RelayProcess]) -> None:
    relay = start_workers(warned=["worker_died"])
    (first, second), _ = await asyncio.to_thread(children, relay)
    first.kill()
    await eventually(lambda: "worker_back" in events(relay), "it is started again")
    died = next(record for record in relay.records if record["event"] == "worker_died")
    assert died["reason"] == f"worker {died['worker']} was ended by SIGKILL"
    after, _ = await asyncio.to_thread(children, relay)
    assert len(after) == 2
    assert second in after
    assert first not in after
    connected = await clients(relay, 24)
    _, text = await asyncio.to_thread(page, relay, "/metrics")
    assert all(samples(text, "blindrelay_sessions").values())
    assert samples(text, "blindrelay_worker_restarts_total")[f'{{worker="{died["worker"]}"}}'] == 1
    for client in connected:
        client.transport.abort()


@run_async
async def test_a_nats_server_that_is_killed_comes_back_on_its_port(start_workers: Callable[..., RelayProcess]) -> None:
    relay = start_workers(warned=["nats_server_died"])
    workers, (server,) = await asyncio.to_thread(children, relay)

    def where(process: psutil.Process) -> list[int]:
        return [each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]

    before = where(server)
    assert len(before) == 1
    server.kill()

    def back() -> bool:
        try:
            _, now = children(relay)
            return len(now) == 1 and now[0] != server and where(now[0]) == before
        except psutil.NoSuchProcess:  # it ended while we looked
            return False

    while not await asyncio.to_thread(back):  # noqa: ASYNC110 - another process starts it
        await asyncio.sleep(0.02)
    # No worker was lost by it, and they find it again by themselves.
    while (await asyncio.to_thread(page, relay, "/readyz")) != (200, "ready\n"):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    assert sorted(each.pid for each in (await asyncio.to_thread(children, relay))[0]) == sorted(w.pid for w in workers)


@run_async
async def test_nobody_is_left_when_the_parent_is_killed(start_workers: Callable[..., RelayProcess]) -> None:
    relay = start_workers(warned=["parent_gone"])
    everybody = psutil.Process(relay.process.pid).children(recursive=True)
    assert len(everybody) == 5  # two workers; the NATS server, its guard, and the guard's other half
    connected = await clients(relay, 8)
    relay.kill()
    for client in connected:
        await client.gone()
    _, left = await asyncio.to_thread(psutil.wait_procs, everybody, 30)
    assert left == []
    # The port is free: another relay may take it, which it may not beside one that runs.
    again = start_workers(arguments=["--port", str(relay.port)])
    assert again.port == relay.port


@run_async
async def test_a_worker_that_does_not_stop_is_killed(start_relay: Callable[..., RelayProcess]) -> None:
    arguments = ["--workers", "2", "--hurry"]
    relay = start_relay(
        program=(FAKE,), arguments=arguments, limits={"shutdown_deadline": 0.5}, warned=["workers_killed"]
    )
    (worker, _), _ = await asyncio.to_thread(children, relay)
    everybody = psutil.Process(relay.process.pid).children(recursive=True)
    worker.suspend()
    relay.signal(signal.SIGTERM)
    assert await asyncio.to_thread(relay.wait) == 1
    assert next(record for record in relay.records if record["event"] == "workers_killed")["workers"] == 1
    _, left = await asyncio.to_thread(psutil.wait_procs, everybody, 20)
    assert left == []


@pytest.mark.parametrize("drain", [0.0, 1.0])
@run_async
async def test_stop_under_load(start_workers: Callable[..., RelayProcess], drain: float) -> None:
    relay = start_workers(drain=drain, limits={"frames_per_second": 0, "refusals_per_second": 0})
    everybody = psutil.Process(relay.process.pid).children(recursive=True)
    connected = await clients(relay, 16)
    nobody = Identity.generate().id

    def has_heard(client: BulkClient) -> bool:
        return len(client.refused) > 200

    async def load(client: BulkClient) -> None:
        sent = 0
        while not client.lost:
            if sent - len(client.refused) < 64:
                await client.write(client.frames(nobody, sent, 16))
                sent += 16
                await asyncio.sleep(0)
            else:
                client.came.clear()
                await client.came.wait()

    running = [asyncio.create_task(load(client)) for client in connected]
    for client in connected:
        await client.until(partial(has_heard, client))
    relay.signal(signal.SIGTERM)
    assert await asyncio.to_thread(relay.wait) == 0
    for client in connected:
        await client.gone()
    await asyncio.gather(*running, return_exceptions=True)
    assert not [each for each in everybody if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    # Sums of both workers, and each client was told.
    assert relay.stopped["endings"] == {"shutdown": 16}
    assert relay.stopped["refusals"]["offline"] > 16 * 200
    assert "workers_killed" not in events(relay)


@run_async
async def test_a_reload_reaches_all(start_workers: Callable[..., RelayProcess], tmp_path: Path) -> None:
    settings = tmp_path / "relay.toml"
    settings.write_text('notice = "One."\n')
    relay = start_workers(warned=["reload_refused", "worker_died"])
    settings.write_text('notice = "Two."\n')
    relay.process.send_signal(signal.SIGHUP)
    await eventually(lambda: events(relay).count("reloaded") == 2, "both have read it")
    assert {record["worker"] for record in relay.records if record["event"] == "reloaded"} == {1, 2}
    settings.write_text("notice = 2\n")
    relay.process.send_signal(signal.SIGHUP)
    await eventually(lambda: "reload_refused" in events(relay), "it is refused")
    # It is said once, and a worker that starts now has what was last in force.
    (first, _), _ = await asyncio.to_thread(children, relay)
    first.kill()
    await eventually(lambda: "worker_back" in events(relay), "it is started again")
    assert events(relay).count("reload_refused") == 1

    def notice() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/info", timeout=20) as answer:
            return str(json.load(answer)["notice"])

    assert {await asyncio.to_thread(notice) for _ in range(8)} == {"Two."}


@run_async
async def test_a_unix_socket_is_shared(start_workers: Callable[..., RelayProcess], tmp_path: Path) -> None:
    path = tmp_path / "s"
    relay = start_workers(
        arguments=["--unix-socket", str(path), "--url", "wss://relay.example/ws"], warned=["worker_died"]
    )

    async def alive() -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try:
            return (await reader.read()).partition(b"\r\n")[0]
        finally:
            writer.close()

    assert {await alive() for _ in range(8)} == {b"HTTP/1.1 200 OK"}
    (first, _), _ = await asyncio.to_thread(children, relay)
    first.kill()
    assert {await alive() for _ in range(8)} == {b"HTTP/1.1 200 OK"}
    await eventually(lambda: "worker_back" in events(relay), "it is started again")
    relay.signal(signal.SIGTERM)
    assert await asyncio.to_thread(relay.wait) == 0
    assert not path.exists()


def test_systemd_is_told_once_all_listen(start_workers: Callable[..., RelayProcess], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "n"))
        told.settimeout(20)
        relay = start_workers(variables={"NOTIFY_SOCKET": str(tmp_path / "n")})
        assert told.recv(100) == b"READY=1"
        assert relay.started
        for worker in children(relay)[0]:
            assert "NOTIFY_SOCKET" not in worker.environ()
        relay.signal(signal.SIGTERM)
        assert told.recv(100) == b"STOPPING=1"
        assert relay.wait() == 0


def test_without_a_cluster_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys, relay.__main__\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'nats' or name in "
        "('relay.workers', 'relay.nats_server', 'relay.together', 'relay.backplane.nats_bus')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_signal_while_it_starts(tmp_path: Path) -> None:
    write_server_keys(tmp_path / "relay.keys", ServerKeys(Identity.generate()))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    process = subprocess.Popen(
        [sys.executable, *PROGRAM, "--workers", "2", "--port", "0", "--admin", "off"],
        cwd=ROOT,
        env={**environ, "RELAY_DATA_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    parent = psutil.Process(process.pid)
    while not (begun := parent.children(recursive=True)):
        assert process.poll() is None
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "listens" not in out
    assert "Traceback" not in err
    _, left = psutil.wait_procs(begun, 20)
    assert left == []


# --- What cannot be --------------------------------------------------------------------------------------------------


def run(directory: Path, *arguments: str, program: tuple[str, ...] = PROGRAM, path: str | None = None) -> Any:
    if not (directory / "relay.keys").exists():
        write_server_keys(directory / "relay.keys", ServerKeys(Identity.generate()))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    environ |= {"RELAY_DATA_DIR": str(directory), "RELAY_ADMIN": "off"} | ({} if path is None else {"PATH": path})
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_worker_that_cannot_start_ends_the_start(tmp_path: Path) -> None:
    done = run(tmp_path, "--workers", "2", "--port", "0", "--fail", program=(FAKE,))
    assert done.returncode == 1
    assert "blindrelay: the second worker was told not to join\n" in done.stderr
    assert "listens" not in done.stdout
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(shared: RelayProcess, tmp_path: Path) -> None:
    """Another relay with workers would share it in silence, so that is looked for."""
    done = run(tmp_path, "--workers", "2", "--port", str(shared.port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {shared.port}" in done.stderr


@run_async
async def test_a_second_relay_takes_over_the_port(start_workers: Callable[..., RelayProcess]) -> None:
    first = start_workers(arguments=["--reuse-port"])
    second = start_workers(arguments=["--reuse-port", "--port", str(first.port)])
    assert second.port == first.port
    first.signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait) == 0
    connected = await clients(second, 4)
    for client in connected:
        client.transport.abort()


def test_the_worker_is_nothing_to_start_by_hand() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relay.worker"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "blindrelay: relay.worker is started by the relay itself: use --workers\n"


def test_secrets_are_in_no_argument_and_no_variable(shared: RelayProcess) -> None:
    (worker, other), (server,) = children(shared)
    directory = Path(worker.environ()["RELAY_DATA_DIR"])
    secrets = [line.split('"')[1] for line in (directory / "relay.keys").read_text().splitlines() if "secret" in line]
    assert len(secrets) == 2
    for process in (worker, other, server, server.parent()):
        shown = " ".join([*process.cmdline(), *process.environ().values()])
        assert not [secret for secret in secrets if secret in shown]
        assert "authorization" not in shown
    # The configuration of the server with its password came through a pipe.
    assert server.cmdline()[1] == "-c"
    assert server.cmdline()[2].startswith("/dev/fd/")
