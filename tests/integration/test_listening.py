"""Where a relay listens, as a process: Unix sockets, a port with a second relay, what it says when it cannot; and the
health check of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity
from tests.support.certificates import make_certificate
from tests.support.clients import Clients, Door, eventually, opening_status, run_async
from tests.support.flood import echo
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

URL = "wss://relay.example/ws"


def unix(path: Path, *arguments: str) -> list[str]:
    return ["--unix-socket", str(path), "--url", URL, *arguments]


def run(module: str, directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**clean, "RELAY_DATA_DIR": str(directory), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# --- Unix sockets ----------------------------------------------------------------------------------------------------


@run_async
async def test_a_conversation_by_a_unix_socket(start_relay: Callable[..., RelayProcess], tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    limits = {"handshakes_per_second": 0.001, "handshakes_burst": 1}
    relay = start_relay(arguments=unix(path), limits=limits)
    assert relay.url == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o660
    assert relay.connections() == 0
    async with Clients(relay, Door(path=path)) as clients:
        alice, bob = await clients.open(), await clients.open()
        await echo(alice, bob, 20)
        # Who comes by the socket is a proxy: whom it names is counted.
        header = {"X-Forwarded-For": "203.0.113.9"}
        await clients.open(headers=header)
        assert await opening_status(Door(path=path), header) == 429
    relay.check()
    assert not path.exists()


@run_async
async def test_after_a_power_cut_the_socket_is_made_anew(
    start_relay: Callable[..., RelayProcess], tmp_path: Path
) -> None:
    path = tmp_path / "relay.sock"
    start_relay(arguments=unix(path, "--unix-socket-mode", "0600")).kill()
    assert path.is_socket()
    relay = start_relay(arguments=unix(path, "--unix-socket-mode", "0600"))
    assert path.stat().st_mode & 0o777 == 0o600
    async with Clients(relay, Door(path=path)) as clients:
        await (await clients.open()).round_trip()


@run_async
async def test_a_second_relay_at_the_same_path_is_refused(
    start_relay: Callable[..., RelayProcess], tmp_path: Path
) -> None:
    path = tmp_path / "relay.sock"
    relay = start_relay(arguments=unix(path))
    other = run("relay", tmp_path, *unix(path))
    assert other.returncode == 1
    assert other.stderr == f"blindrelay: cannot listen on {path}: another process listens there\n"
    async with Clients(relay, Door(path=path)) as clients:
        await (await clients.open()).round_trip()


@run_async
async def test_unix_socket_with_proxy_headers(start_relay: Callable[..., RelayProcess], tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    limits = {"handshakes_per_second": 0.001, "handshakes_burst": 1}
    relay = start_relay(arguments=unix(path, "--proxy-protocol"), limits=limits)
    async with Clients(relay) as clients:
        for last in (9, 10):
            before = f"PROXY TCP4 203.0.113.{last} 198.51.100.1 1 443\r\n".encode()
            client = await clients.open(door=Door(path=path, before=before))
            await client.round_trip()
        assert await opening_status(Door(path=path, before=before)) == 429


# --- Two on one port -------------------------------------------------------------------------------------------------


@run_async
async def test_a_new_relay_takes_the_port_over(start_relay: Callable[..., RelayProcess]) -> None:
    old = start_relay(arguments=["--reuse-port"])
    async with Clients(old) as clients:
        alice, bob = await clients.open(), await clients.open()
        new = start_relay(arguments=["--reuse-port", "--port", str(old.port)])
        assert new.port == old.port
        await echo(alice, bob, 5)
        old.signal(signal.SIGTERM)
        # All who come now come to the new one, while the old one goes.
        for client in (alice, bob):
            assert (await client.closed_at_last()).code == 1001
        assert old.wait() == 0
        ann, ben = await clients.open(), await clients.open()
        await echo(ann, ben, 5)
        await eventually(lambda: new.connections() == 2, "not at the new relay")


def test_without_it_the_port_is_taken(start_relay: Callable[..., RelayProcess], tmp_path: Path) -> None:
    relay = start_relay()
    other = run("relay", tmp_path, "--port", str(relay.port))
    assert other.returncode == 1
    assert other.stderr.startswith(f"blindrelay: cannot listen on 127.0.0.1 port {relay.port}: ")


# --- What cannot be used ---------------------------------------------------------------------------------------------


def test_a_key_that_is_open_to_everybody_is_an_error_in_the_settings(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    files.key.chmod(0o644)
    write_server_keys(tmp_path / "relay.keys", ServerKeys(Identity.generate(), None))
    done = run("relay", tmp_path, "--tls-cert", str(files.chain), "--tls-key", str(files.key), "--port", "0")
    assert done.returncode == 2
    assert done.stderr == (
        f"blindrelay: {files.key} is open to everybody (mode 0644); close it with: chmod o= {files.key}\n"
    )


# --- Health checks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize("how", ["port", "tls", "unix"])
def test_the_health_check_finds_the_relay(
    how: str, proxy: bool, start_relay: Callable[..., RelayProcess], tmp_path: Path
) -> None:
    environ: dict[str, str] = {}
    if how == "tls":
        files = make_certificate(tmp_path)
        environ |= {"RELAY_TLS_CERT": str(files.chain), "RELAY_TLS_KEY": str(files.key)}
    if how == "unix":
        environ |= {"RELAY_UNIX_SOCKET": str(tmp_path / "relay.sock"), "RELAY_URL": URL}
    if proxy:
        # Neither this machine nor the socket is trusted: who asks for its own sake is answered all the same.
        environ |= {"RELAY_PROXY_PROTOCOL": "true"}
        environ |= {"RELAY_TRUSTED_PROXIES": "10.0.0.0/8"}
    flags = [
        f"--{name.removeprefix('RELAY_').lower().replace('_', '-')}" + ("" if value == "true" else f"={value}")
        for name, value in environ.items()
    ]
    relay = start_relay(arguments=flags)
    environ["RELAY_PORT"] = str(relay.port or 1)
    done = run("relay.healthcheck", tmp_path, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    relay.check()
    done = run("relay.healthcheck", tmp_path, **environ)
    assert done.returncode == 1
    where = f"{tmp_path}/relay.sock" if how == "unix" else f"port {relay.port}"
    assert done.stderr.startswith(f"blindrelay: no answer on {where}: ")
