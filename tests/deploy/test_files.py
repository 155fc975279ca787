"""The files of deploy/ against the code: names, ports, times; and the unit against systemd and the kernel."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import TYPE_CHECKING, Final

import pytest

from relay.limits import Limits
from relay.settings import Settings, load
from tests.deploy.proxies import DEPLOY
from tests.deploy.services import check_closed, check_understood, unit_file
from tests.support.clients import Clients, run_async
from tests.support.flood import echo
from tests.support.relay_process import ROOT, RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNIT: Final = (DEPLOY / "blindrelay.service").read_text()
COMPOSE: Final = (DEPLOY / "compose.yaml").read_text()
UPSTREAM: Final = f"{Settings.model_fields['host'].default}:{Settings.model_fields['port'].default}"


def directive(name: str) -> str:
    """Return the value of a directive of the unit that stands there once."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(path for path in DEPLOY.rglob("*") if path.is_file()), ids=lambda path: path.name
)
def test_settings_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(r"\bRELAY_[A-Z0-9_]+", text)) - {"RELAY_NAME"}
    assert {name.removeprefix("RELAY_").lower() for name in named} <= set(Settings.model_fields)
    flags = {flag.replace("-", "_") for flag in re.findall(r"--((?:trusted|proxy|unix|tls|reuse)-[a-z-]+)", text)}
    assert flags <= set(Settings.model_fields)


def test_variables_with_values_can_be_used() -> None:
    found = dict(re.findall(r"^\s*(RELAY_\w+): (.+)$", COMPOSE, re.MULTILINE))
    assert set(found) == {"RELAY_URL", "RELAY_TRUSTED_PROXIES"}
    found["RELAY_URL"] = re.sub(r"\$\{[^}]*\}", "relay.example", found["RELAY_URL"])
    load([f"--{name.removeprefix('RELAY_').lower().replace('_', '-')}={value}" for name, value in found.items()], {})
    assert f"- subnet: {found['RELAY_TRUSTED_PROXIES']}\n" in COMPOSE


@pytest.mark.parametrize("name", ["Caddyfile", "nginx.conf", "haproxy.cfg", "traefik.yaml"])
def test_proxies_lead_to_the_relay(name: str) -> None:
    assert UPSTREAM in (DEPLOY / name).read_text()
    assert f"BLINDRELAY_UPSTREAM: relay:{UPSTREAM.rpartition(':')[2]}\n" in COMPOSE


# --- Times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("nginx.conf", r"proxy_read_timeout (\d+)s;"),
        ("nginx.conf", r"proxy_send_timeout (\d+)s;"),
        ("haproxy.cfg", r"timeout client +(\d+)s\n"),
        ("haproxy.cfg", r"timeout server +(\d+)s\n"),
    ],
)
def test_proxies_wait_longer_than_the_relay(name: str, pattern: str) -> None:
    (seconds,) = re.findall(pattern, (DEPLOY / name).read_text())
    assert int(seconds) > Limits().silent_after


def test_there_is_time_for_the_way_down() -> None:
    assert int(directive("TimeoutStopSec")) >= Limits().shutdown_deadline + 10
    (seconds,) = re.findall(r"stop_grace_period: (\d+)s\n", COMPOSE)
    assert int(seconds) >= Limits().shutdown_deadline + 10


# --- Rights ----------------------------------------------------------------------------------------------------------


def test_containers_have_no_rights_that_they_do_not_use() -> None:
    relay, caddy = re.findall(r"^  \w+:\n(?:(?:    .*)?\n)+", COMPOSE.partition("services:")[2], re.MULTILINE)[:2]
    for service in (relay, caddy):
        assert "    read_only: true\n" in service
        assert "    cap_drop: [ALL]\n" in service
        assert '    security_opt: ["no-new-privileges:true"]\n' in service
    assert "ports:" not in relay
    assert "      - keys:/data\n" in relay
    assert "cap_add" not in relay
    assert "python -m relay.healthcheck" in relay.replace('", "', " ")


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    check_understood(unit_file("blindrelay", tmp_path))


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_nothing_more_to_close(tmp_path: Path) -> None:
    found = check_closed(unit_file("blindrelay", tmp_path))
    for closed in ("MemoryDenyWriteExecute=", "NoNewPrivileges=", "ProtectSystem=", "PrivateUsers="):
        assert re.search(rf"^✓ {closed} ", found, re.MULTILINE), closed


_PR_SET_MDWE, _PR_GET_MDWE, _REFUSE = 65, 66, 1
_CLOSED: Final = f"""
import ctypes, os, sys
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl({_PR_SET_MDWE}, {_REFUSE}, 0, 0, 0):
    sys.exit(f"prctl: {{os.strerror(ctypes.get_errno())}}")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def closed_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelayProcess]:
    """A relay that may not make memory executable, as with MemoryDenyWriteExecute=."""
    if ctypes.CDLL(None).prctl(_PR_GET_MDWE, 0, 0, 0, 0) < 0:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    launcher = tmp_path / "python"
    (tmp_path / "closed.py").write_text(_CLOSED)
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/closed.py" "$@"\n')
    launcher.chmod(0o700)
    monkeypatch.setattr("tests.support.relay_process.sys.executable", str(launcher))
    relay = RelayProcess(tmp_path)
    monkeypatch.undo()
    yield relay
    relay.check()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux")
@run_async
async def test_the_relay_works_where_no_memory_can_be_made_executable(closed_relay: RelayProcess) -> None:
    async with Clients(closed_relay) as clients:
        await echo(await clients.open(), await clients.open(), 50)


def test_what_the_unit_starts_is_what_the_package_installs() -> None:
    assert "blindrelay = " in (ROOT / "pyproject.toml").read_text()
    assert directive("ExecStart") == "/opt/blindrelay/bin/blindrelay"
    assert directive("ExecReload") == "/bin/kill -HUP $MAINPID"
    # Exit status 2 is settings or keys.
    assert directive("RestartPreventExitStatus") == "2"
