"""The files of deploy/ for the services beside the relay against their settings, systemd, and the relay's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.proxies import DEPLOY
from tests.deploy.services import MAILBOX, NOTIFIER, Service, check_closed, check_understood, directives, unit_file
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RELAY_UNIT: Final = (DEPLOY / "blindrelay.service").read_text()
RELAY: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["relay"]

pytestmark = pytest.mark.parametrize("service", [MAILBOX, NOTIFIER], ids=lambda service: service.short)


def test_the_unit_is_as_closed_as_the_relays(service: Service) -> None:
    def hardening(unit: str) -> list[str]:
        lines = directives(unit.partition("UMask=")[2])
        return [line for line in lines if line != "SystemCallFilter=setrlimit prlimit64"]

    assert hardening(service.unit) == hardening(RELAY_UNIT)
    assert len(hardening(service.unit)) > 20


def test_what_the_unit_starts_is_what_the_package_installs(service: Service) -> None:
    assert f'{service.name} = "peers.{service.short}.__main__:main"' in (ROOT / "pyproject.toml").read_text()
    assert service.directive("ExecStart") == f"{service.program} run"
    assert service.directive("ExecStartPre") == f"-{service.program} keygen"
    assert service.directive("RestartPreventExitStatus") == "2"
    assert int(service.directive("TimeoutStopSec")) >= service.stop + 10


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_every_line_of_the_unit(service: Service, tmp_path: Path) -> None:
    check_understood(unit_file(service.name, tmp_path))


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_nothing_more_to_close(service: Service, tmp_path: Path) -> None:
    check_closed(unit_file(service.name, tmp_path))


def test_the_container_has_no_rights_that_it_does_not_use(service: Service) -> None:
    container = service.container
    for name in ("read_only", "cap_drop", "security_opt", "logging", "networks"):
        assert container[name] == RELAY[name], name
    assert not {"ports", "cap_add", "privileged", "user"} & set(container)
    assert container["volumes"] == [f"{service.short}:/data"]
    assert container["environment"][service.names.variable_of("data_dir")] == "/data"
    assert set(service.compose["volumes"]) == {service.short}
    assert int(container["stop_grace_period"].removesuffix("s")) >= service.stop + 10


def test_the_container_runs_commands_that_exist(service: Service) -> None:
    container = service.container
    assert container["entrypoint"] == ["python", "-m", f"peers.{service.short}"]
    assert container["command"] == ["run"]
    assert container["healthcheck"]["test"] == ["CMD", *container["entrypoint"], "health"]
    assert container["build"]["args"]["EXTRAS"].split() == [service.short]
