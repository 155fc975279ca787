"""A NATS server that keeps the connection and reads nothing, as one behind a broken line or stopped: it is left."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from relay.backplane import ClusterError, ClusterOptions, nats_bus
from relay.backplane.bus import Outcome
from relay.backplane.nats_bus import NatsBus
from tests.support.clients import eventually, run_async

if TYPE_CHECKING:
    from pathlib import Path

SECRET = bytes(range(32))
INFO = b'INFO {"server_id":"S","version":"2.10.0","proto":1,"headers":true,"max_payload":8388608}\r\n'


class Mute:
    """As much of a NATS server as a client needs to connect. On the first connection it then reads no more."""

    def __init__(self) -> None:
        self.connections = 0
        self._mute_next = True
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None] | None] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        # Inherited by what it accepts: little is taken out of the client's hands while nothing is read.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._server = await asyncio.start_server(self._accepted, sock=listening, limit=4096)
        return f"nats://127.0.0.1:{listening.getsockname()[1]}"

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        mute, self._mute_next = self._mute_next, False
        self._tasks.append(asyncio.current_task())
        self._writers.append(writer)
        writer.write(INFO)
        while line := await reader.readline():
            if mute and line.startswith(b"PUB"):
                await self._over.wait()  # and the reader's buffer is soon full
                return
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    async def close(self) -> None:
        self._server.close()
        self._over.set()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(task for task in self._tasks if task is not None))


@run_async
async def test_a_server_that_reads_nothing_is_left_with_what_lies_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "_PING_EVERY", 0.05)
    monkeypatch.setattr(nats_bus, "_AGAIN", 0.01)
    server = Mute()
    bus = NatsBus(ClusterOptions((await server.start(),), SECRET))
    changes: list[bool] = []
    await bus.connect()
    bus.changed = changes.append
    # More than the kernel takes: the rest lies in our process, and would wait there for the end of TCP's patience.
    for _ in range(16):
        bus.publish("blindrelay.node.x", bytes(1024 * 1024))
    await eventually(lambda: bus.backlog > 0, "it lies here, and the metric says so")
    await eventually(lambda: changes == [False, True], "the connection is given up, and there is another")
    assert server.connections == 2
    assert bus.connected
    await bus.close()
    await server.close()


@run_async
async def test_a_relay_that_could_not_join_does_not_go_on_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "CONNECT_WITHIN", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bus = NatsBus(ClusterOptions((f"nats://127.0.0.1:{silent.getsockname()[1]}",), SECRET))
        with pytest.raises(ClusterError):
            await bus.connect()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@run_async
async def test_a_file_that_is_gone_for_a_while_does_not_end_the_trying(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nats_bus, "_AGAIN", 0.01)
    authorities = tmp_path / "ca.pem"
    server = Mute()
    bus = NatsBus(ClusterOptions((await server.start(),), SECRET))
    changes: list[bool] = []
    await bus.connect()
    bus.changed = changes.append
    failures: list[str] = []
    whole, bus._options = bus._options, ClusterOptions((*bus._options.servers,), SECRET, ca=authorities)
    fail = bus._failed

    async def failed(error: Exception) -> None:
        failures.append(type(error).__name__)
        await fail(error)

    monkeypatch.setattr(bus, "_failed", failed)
    assert bus._client is not None
    await bus._client.close()  # as nats-py does when a server refuses it for good
    await eventually(lambda: failures.count("ClusterError") >= 2, "it tries again")
    bus._options = whole
    await eventually(lambda: changes == [False, True], "it is back")
    await bus.close()
    await server.close()


@run_async
async def test_all_questions_are_given_up_with_the_connection_whatever_one_of_them_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_bus, "_PING_EVERY", 0.05)
    monkeypatch.setattr(nats_bus, "_AGAIN", 0.01)
    server = Mute()
    bus = NatsBus(ClusterOptions((await server.start(),), SECRET))
    changes: list[bool] = []
    outcomes: list[Outcome] = []
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context["exception"])))
    await bus.connect()
    bus.changed = changes.append

    def fail(_outcome: Outcome, _data: bytes) -> bool:
        raise ValueError("not this one")

    def note(outcome: Outcome, _data: bytes) -> bool:
        outcomes.append(outcome)
        return False

    bus.request("blindrelay.id.x", b"?", 60, fail)
    bus.request("blindrelay.id.x", b"?", 60, note)
    await eventually(lambda: changes == [False, True], "the connection is given up, and there is another")
    assert outcomes == [Outcome.LOST]
    assert errors == ["not this one"]
    await bus.close()
    await server.close()
