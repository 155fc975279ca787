"""SIGHUP to a relay with clients: new limits are in force, and nobody is dropped, whatever stands in the file."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity
from tests.support.clients import Clients, eventually, run_async
from tests.support.flood import Flood, await_handled, take_frames
from tests.support.relay_process import ROOT, RelayProcess
from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def hang_up(relay: RelayProcess, event: str) -> dict[str, Any]:
    """Send SIGHUP and return what it led to: the record of an event that was not there before."""

    def found() -> list[dict[str, Any]]:
        return [record for record in relay.records if record["event"] == event]

    before = len(found())
    relay.process.send_signal(signal.SIGHUP)
    await eventually(lambda: len(found()) > before, f"no {event}")
    return found()[-1]


class File:
    """The relay.toml of the data directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "relay.toml"

    def write(self, *lines: str) -> None:
        self.path.write_text("\n".join(lines))

    def remove(self) -> None:
        self.path.unlink()


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


@run_async
async def test_new_limits_are_in_force_for_those_who_are_there(
    start_relay: Callable[..., RelayProcess], file: File
) -> None:
    relay = start_relay()
    async with Clients(relay) as clients:
        alice, bob, carol = await clients.open_many(Identity.generate() for _ in range(3))
        strangers = [Identity.generate().public for _ in range(5)]
        file.write("[limits]", "subscriptions = 3", "frames_per_second = 0.01", "frames_burst = 50")
        record = await hang_up(relay, "reloaded")
        assert record["changed"] == ["limits.frames_per_second", "limits.frames_burst", "limits.subscriptions"]
        await carol.subscribe(*strangers)
        assert "3 contacts at most" in (await carol.expect(c.Info)).text
        # The burst and one more, each when the one before it is there: a debt that would take minutes.
        packets = [os.urandom(150) for _ in range(52)]
        for packet in packets[:-1]:
            await alice.send_packet(bob.id, packet)
            assert (await bob.expect(PeerFrame)).packet == packet
        # What she sends now waits, and others do not wait with her.
        await alice.send_packet(bob.id, packets[-1])
        await carol.send(bob.public, b"not held up")
        assert (await bob.expect(PeerFrame)).sender_id == carol.id
        # Without the file she is let go.
        file.remove()
        record = await hang_up(relay, "reloaded")
        assert len(record["changed"]) == 3
        assert (await bob.expect(PeerFrame)).packet == packets[-1]
        for client in (alice, bob, carol):
            await client.round_trip()
    await asyncio.to_thread(relay.check)
    assert set(relay.stopped["endings"]) == {"client"}


@run_async
async def test_a_bad_file_changes_nothing(tmp_path: Path, file: File) -> None:
    file.write("[limits]", "subscriptions = 3")
    relay = RelayProcess(tmp_path)
    try:
        async with Clients(relay) as clients:
            alice = await clients.open()
            file.write("prot = 1", "[limits]", "subscriptions = 'many'", "malformed = 2")
            record = await hang_up(relay, "reload_refused")
            assert [problem.partition(" ")[0] for problem in record["problems"]] == ["prot", "limits.subscriptions"]
            assert "line 3" in record["problems"][1]
            file.write("not toml")
            record = await hang_up(relay, "reload_refused")
            assert "is not TOML" in record["problems"][0]
            await alice.subscribe(*(Identity.generate().public for _ in range(4)))
            assert "3 contacts at most" in (await alice.expect(c.Info)).text
            file.write("host = '127.0.0.2'", "log_level = 'warning'")
            record = await hang_up(relay, "needs_restart")
            assert record["settings"] == ["host"]
            await alice.round_trip()
        relay.signal(signal.SIGTERM)
        assert await asyncio.to_thread(relay.wait) == 0
        # The level is in force: the end is told at `info`.
        assert relay.records[-1]["event"] == "needs_restart"
    finally:
        await asyncio.to_thread(relay.kill)


@run_async
async def test_stalled_readers_live_through_a_smaller_total(
    start_relay: Callable[..., RelayProcess], file: File
) -> None:
    relay = start_relay(limits={"queue_age": 600})
    async with Clients(relay) as clients:
        victim = await clients.open(receive_buffer=65536)
        victim.stop_reading()
        flood = Flood(await clients.open(), victim.id)
        await flood.send(60)
        await await_handled(flood)
        file.write("[limits]", "flush_size = 1024", "queue_size = 65536", "queue_share = 1024", "queue_total = 65536")
        await hang_up(relay, "reloaded")
        victim.read_on()
        await take_frames(victim, [flood])
        flood.check()
        await victim.round_trip()
    await asyncio.to_thread(relay.check)
    assert set(relay.stopped["endings"]) == {"client"}


@run_async
async def test_many_at_once_without_a_file(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay()
    async with Clients(relay) as clients:
        alice = await clients.open()
        for _ in range(50):
            relay.process.send_signal(signal.SIGHUP)
        await hang_up(relay, "reloaded")
        await alice.round_trip()
    await asyncio.to_thread(relay.check)


def test_a_terminal_that_is_closed_ends_the_relay_in_order(tmp_path: Path) -> None:
    """Else a relay that was started by hand would go on unseen, and hold the port."""
    write_server_keys(tmp_path / "relay.keys", ServerKeys(Identity.generate()))
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    errors = tmp_path / "stderr"
    with errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "relay", "--port", "0", "--data-dir", str(tmp_path)],
            cwd=ROOT,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=err,
            start_new_session=True,
        )
    os.close(slave)
    try:
        said = b""
        while b"listens on" not in said:
            said += os.read(master, 4096)
        # It controls no session here, so that the kernel sends no signal: we do, as a shell does.
        process.send_signal(signal.SIGHUP)
        while b"reloaded" not in errors.read_bytes():
            assert process.poll() is None
        os.close(master)
        process.send_signal(signal.SIGHUP)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
    text = errors.read_text()
    assert "Traceback" not in text
    assert re.findall(r'"event": "(\w+)"', text) == ["started", "reloaded", "stopping", "stopped"]
