"""The notifier's files of deploy/ against its settings, systemd, and the relay's own files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from peers.notifier.limits import Limits
from peers.notifier.settings import NAMES as NOTIFIER
from peers.service.settings_sources import is_secret
from relay.settings import NAMES
from tests.deploy.proxies import DEPLOY, substituted
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

UNIT: Final = (DEPLOY / "blindrelay-notifier.service").read_text()
RELAY_UNIT: Final = (DEPLOY / "blindrelay.service").read_text()
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.notifier.yaml").read_text())
BASE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
VARIABLES: Final = {NOTIFIER.variable_of(key) for key, _ in NOTIFIER.leaves()} | {
    f"{NOTIFIER.variable_of(key)}_FILE" for key, info in NOTIFIER.leaves() if is_secret(info)
}


def directives(unit: str) -> list[str]:
    return [line for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line)]


def directive(name: str) -> str:
    (value,) = [line.partition("=")[2] for line in directives(UNIT) if line.startswith(f"{name}=")]
    return value


@pytest.mark.parametrize("name", ["blindrelay-notifier.service", "compose.notifier.yaml"])
def test_settings_that_are_named_exist(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert set(re.findall(r"\bNOTIFIER_[A-Z_]+", text)) - {"NOTIFIER_NAME"} <= VARIABLES
    assert set(re.findall(r"\bRELAY_[A-Z_]+", text)) - {"NOTIFIER_RELAY_CARD"} <= set(NAMES.by_variable)


def test_the_unit_is_as_closed_as_the_relays() -> None:
    def hardening(unit: str) -> list[str]:
        lines = directives(unit.partition("UMask=")[2])
        return [line for line in lines if line != "SystemCallFilter=setrlimit prlimit64"]

    assert hardening(UNIT) == hardening(RELAY_UNIT)
    assert len(hardening(UNIT)) > 20


def test_what_the_unit_starts_is_what_the_package_installs() -> None:
    assert 'blindrelay-notifier = "peers.notifier.__main__:main"' in (ROOT / "pyproject.toml").read_text()
    assert directive("ExecStart") == "/opt/blindrelay/bin/blindrelay-notifier run"
    assert directive("ExecStartPre") == "-/opt/blindrelay/bin/blindrelay-notifier keygen"
    assert directive("RestartPreventExitStatus") == "2"
    assert int(directive("TimeoutStopSec")) >= Limits().stop + 10


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
    path = tmp_path / "blindrelay-notifier.service"
    path.write_text(
        substituted("blindrelay-notifier.service", ("/opt/blindrelay/bin/blindrelay-notifier", sys.executable))
    )
    return path


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    done = analyze("verify", "--man=no", str(unit))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "blindrelay-notifier" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_nothing_more_to_close(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_has_no_rights_that_it_does_not_use() -> None:
    service = COMPOSE["services"]["notifier"]
    relay = BASE["services"]["relay"]
    for name in ("read_only", "cap_drop", "security_opt", "logging", "networks"):
        assert service[name] == relay[name], name
    assert not {"ports", "cap_add", "privileged", "user"} & set(service)
    assert service["volumes"] == ["notifier:/data"]
    assert service["environment"]["NOTIFIER_DATA_DIR"] == "/data"
    assert set(COMPOSE["volumes"]) == {"notifier"}
    assert int(service["stop_grace_period"].removesuffix("s")) >= Limits().stop + 10


def test_the_container_runs_commands_that_exist() -> None:
    service = COMPOSE["services"]["notifier"]
    python, option, module = service["entrypoint"]
    assert (python, option, module) == ("python", "-m", "peers.notifier")
    assert service["command"] == ["run"]
    assert service["healthcheck"]["test"] == ["CMD", *service["entrypoint"], "health"]
    assert service["build"]["args"]["EXTRAS"].split() == ["notifier"]
    # What is told to both stands in one file, so each must bear the other's variables.
    assert {each["env_file"][0]["path"] for each in COMPOSE["services"].values()} == {"push.env"}


def test_each_bears_the_variables_of_the_other(tmp_path: Path) -> None:
    both = {
        "NOTIFIER_CONTACT": "mailto:ops@relay.example",
        "NOTIFIER_DATA_DIR": str(tmp_path),
        "RELAY_NOTIFIER_ID": "0123456789abcdef",
        "RELAY_PUSH_KINDS": "unifiedpush",
        "RELAY_DATA_DIR": str(tmp_path),
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "NOTIFIER_"))}
    for command in (["relay", "config", "check"], ["peers.notifier", "keygen"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**clean, **both},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
