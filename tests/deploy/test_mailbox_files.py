"""The mailbox's files of deploy/ against its settings, systemd, and the relay's own files."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from peers.mailbox.arguments import parse
from peers.mailbox.commands import COMMANDS
from peers.mailbox.settings import NAMES
from peers.mailbox.settings_limits import LimitSettings
from peers.service.settings_sources import is_secret
from tests.deploy.proxies import DEPLOY, substituted
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNIT: Final = (DEPLOY / "blindrelay-mailbox.service").read_text()
RELAY_UNIT: Final = (DEPLOY / "blindrelay.service").read_text()
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.mailbox.yaml").read_text())
BASE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VARIABLES: Final = {NAMES.variable_of(key) for key, _ in NAMES.leaves()} | {
    f"{NAMES.variable_of(key)}_FILE" for key, info in NAMES.leaves() if is_secret(info)
}


def directives(unit: str) -> list[str]:
    return [line for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line)]


def directive(name: str) -> str:
    (value,) = [line.partition("=")[2] for line in directives(UNIT) if line.startswith(f"{name}=")]
    return value


@pytest.mark.parametrize("name", ["blindrelay-mailbox.service", "compose.mailbox.yaml"])
def test_settings_that_are_named_exist(name: str) -> None:
    found = set(re.findall(r"\bBLINDRELAY_MAILBOX_[A-Z_]+", (DEPLOY / name).read_text()))
    assert found - {"BLINDRELAY_MAILBOX_NAME"} <= VARIABLES
    assert len(found) > 1


def test_the_unit_is_as_closed_as_the_relays() -> None:
    def hardening(unit: str) -> list[str]:
        lines = directives(unit.partition("UMask=")[2])
        return [line for line in lines if line != "SystemCallFilter=setrlimit prlimit64"]

    assert hardening(UNIT) == hardening(RELAY_UNIT)
    assert len(hardening(UNIT)) > 20


def test_what_the_unit_starts_is_what_the_package_installs() -> None:
    assert 'blindrelay-mailbox = "peers.mailbox.__main__:main"' in (ROOT / "pyproject.toml").read_text()
    assert directive("ExecStart") == "/opt/blindrelay/bin/blindrelay-mailbox run"
    assert directive("ExecStartPre") == "-/opt/blindrelay/bin/blindrelay-mailbox keygen"
    assert directive("RestartPreventExitStatus") == "2"
    assert int(directive("TimeoutStopSec")) >= LimitSettings().stop + 10
    assert int(directive("LimitNOFILE")) >= 2 * LimitSettings().connections
    for command in re.findall(r"bin/blindrelay-mailbox (\w+(?: new)?)", UNIT):
        assert parse(command.split()).command in COMMANDS


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    path = tmp_path / "blindrelay-mailbox.service"
    path.write_text(
        substituted("blindrelay-mailbox.service", ("/opt/blindrelay/bin/blindrelay-mailbox", sys.executable))
    )
    return path


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "blindrelay-mailbox" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_nothing_more_to_close(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_has_no_rights_that_it_does_not_use() -> None:
    service = COMPOSE["services"]["mailbox"]
    relay = BASE["services"]["relay"]
    for name in ("read_only", "cap_drop", "security_opt", "logging", "networks"):
        assert service[name] == relay[name], name
    assert not {"ports", "cap_add", "privileged", "user"} & set(service)
    assert service["volumes"] == ["mailbox:/data"]
    assert service["environment"]["BLINDRELAY_MAILBOX_DATA_DIR"] == "/data"
    proxies = service["environment"]["BLINDRELAY_MAILBOX_TRUSTED_PROXIES"]
    assert proxies == relay["environment"]["RELAY_TRUSTED_PROXIES"]
    assert set(COMPOSE["volumes"]) == {"mailbox"}
    assert int(service["stop_grace_period"].removesuffix("s")) >= LimitSettings().stop + 10


def test_the_container_runs_commands_that_exist() -> None:
    service = COMPOSE["services"]["mailbox"]
    assert service["entrypoint"] == ["python", "-m", "peers.mailbox"]
    assert parse(service["command"]).command == "run"
    assert service["healthcheck"]["test"] == ["CMD", *service["entrypoint"], "health"]
    extras = service["build"]["args"]["EXTRAS"].split()
    assert extras == ["mailbox"]
