"""The private NATS server of `--workers`, when something happens to it that nobody planned."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from relay import nats_server
from relay.nats_server import NatsServer
from tests.support.clients import eventually, run_async

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_FAKE = """\
#!{python}
import socket, struct, sys, time
runs = open({runs!r}, "a+b", buffering=0)
runs.write(b".")
run = runs.seek(0, 2)
port = int(open(sys.argv[2]).read().split("port: ")[1].split()[0])
listening = socket.create_server(("127.0.0.1", port))
accepted, _ = listening.accept()
if run == 2:
    time.sleep(0.1)  # the other side has opened it by then, or the test shows nothing
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()  # a reset, before a word was said
    sys.exit(1)
accepted.sendall(b"INFO {{}}\\r\\n")
if run == 1:
    sys.exit(1)
sys.stdin.read()
listening.accept()
"""


@run_async
async def test_a_server_that_resets_a_connection_as_it_dies_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "Backoff", _NoWait)
    program = tmp_path / "nats-server"
    program.write_text(_FAKE.format(python=sys.executable, runs=str(tmp_path / "runs")))
    program.chmod(0o700)
    deaths: list[int] = []
    nats = NatsServer(program, deaths.append)
    await nats.start()
    try:
        await eventually(lambda: nats.restarts == 1, "it is started again")
        assert deaths == [1]
    finally:
        await nats.stop()
    assert (tmp_path / "runs").read_text() == "..."


class _NoWait:
    def next(self) -> float:
        return 0.0
