"""The admin listener and the pages of the real process, and what it logs when it runs out of files."""

from __future__ import annotations

import asyncio
import http.client
import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client.parser import text_string_to_metric_families

from keys.identity import Identity
from tests.support.clients import WAIT, Clients, run_async
from tests.support.relay_process import ROOT, RelayProcess
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def metric(port: int, name: str, **labels: str) -> float:
    status, body = get(port, "/metrics")
    assert status == 200
    (value,) = [
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if (sample.name, sample.labels) == (name, labels)
    ]
    return value


async def eventually(look: Callable[[], bool]) -> None:
    """Await what shows a second later at most: texts are kept for so long."""
    async with asyncio.timeout(WAIT):
        while not await asyncio.to_thread(look):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@run_async
async def test_metrics_and_counts_follow_what_happens(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(admin="127.0.0.1:0", arguments=["--notice", "Down on Sunday."])
    port = relay.admin_port
    assert metric(port, "blindrelay_ready") == 1
    async with Clients(relay) as clients:
        alice = await clients.connect(Identity.generate())
        await alice.greet()
        await alice.welcomed()
        assert await alice.expect(c.Info) == c.Info("Down on Sunday.")
        await alice.round_trip()
        await eventually(lambda: metric(port, "blindrelay_sessions") == 1)
        assert metric(port, "blindrelay_refusals_total", reason="offline") == 1
        assert metric(port, "blindrelay_handshakes_total", outcome="admitted") == 1
        status, body = await asyncio.to_thread(get, port, "/sessions")
        assert status == 200
        assert json.loads(body)["connections_by_state"]["proven"] == 1
        status, body = await asyncio.to_thread(get, relay.port, "/status")
        assert json.loads(body)["connections"] == 1
        await alice.close()
    await eventually(lambda: metric(port, "blindrelay_endings_total", reason="client") == 1)
    assert metric(port, "blindrelay_loop_lag_seconds_count") > 0


def test_the_public_port_has_no_metrics(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(admin="127.0.0.1:0")
    for path in ("/metrics", "/sessions"):
        assert get(relay.port, path)[0] == 404
    assert get(relay.port, "/readyz") == (200, b"ready\n")


def test_without_the_listener_the_library_is_not_even_loaded(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(admin="off")
    assert relay.started["admin"] == "off"
    listening = [each for each in psutil.Process(relay.process.pid).net_connections("tcp") if each.status == "LISTEN"]
    assert [each.laddr.port for each in listening] == [relay.port]
    rare = {"prometheus_client", "nats", "relay.backplane.node", "relay.backplane.nats_bus"}
    code = f"import sys, relay.app, relay.__main__; sys.exit(bool({rare} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AssertionError) as caught:
            RelayProcess(tmp_path, admin=where)
    text = str(caught.value)
    assert f"blindrelay: cannot listen on {where} for /metrics: " in text
    assert "--admin off" in text
    assert "Traceback" not in text


def highest_file(relay: RelayProcess) -> int:
    return max(int(file.name) for file in Path(f"/proc/{relay.process.pid}/fd").iterdir())


@run_async
async def test_running_out_of_files_is_logged_without_an_address(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, admin="127.0.0.1:0")
    sockets: list[socket.socket] = []
    try:
        process = psutil.Process(relay.process.pid)
        port = relay.admin_port
        assert metric(port, "blindrelay_out_of_files_total") == 0
        limit = highest_file(relay) + 8
        process.rlimit(resource.RLIMIT_NOFILE, (limit, limit))
        sockets += [socket.create_connection(("127.0.0.1", relay.port), WAIT) for _ in range(16)]
        deadline = time.monotonic() + WAIT
        while not (said := [record for record in relay.records if record["event"] == "out_of_files"]):
            assert time.monotonic() < deadline, relay.output
            await asyncio.sleep(0.05)
        (record,) = said
        assert set(record) == {"event", "level", "timestamp", "limit"}
        assert (record["level"], record["limit"]) == ("warning", limit)
        for each in sockets:
            each.close()
        await eventually(lambda: _answers(port))
        # The page is computed once a second at most.
        await eventually(lambda: metric(port, "blindrelay_out_of_files_total") >= 1)
        async with Clients(relay) as clients:
            await clients.open()
    finally:
        for each in sockets:
            each.close()
        relay.process.terminate()
        assert relay.wait() == 0


def _answers(port: int) -> bool:
    try:
        return get(port, "/healthz")[0] == 200
    except OSError:
        return False
