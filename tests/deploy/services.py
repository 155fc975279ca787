"""What systemd is asked about units, and the services beside the relay as deploy/ starts them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml  # type: ignore[import-untyped]

from peers.mailbox.settings import NAMES as MAILBOX_NAMES
from peers.mailbox.settings_limits import LimitSettings
from peers.notifier.limits import Limits
from peers.notifier.settings import NAMES as NOTIFIER_NAMES
from peers.service.settings_sources import is_secret
from tests.deploy.proxies import DEPLOY, substituted

if TYPE_CHECKING:
    from pathlib import Path

    from peers.service.settings_sources import Names


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its files.

    Attributes:
        short: what it is called in compose files.
        names: of its settings.
        stop: seconds that it takes on its way down at most.
    """

    short: str
    names: Names[Any]
    stop: float

    @property
    def name(self) -> str:
        return f"blindrelay-{self.short}"

    @property
    def program(self) -> str:
        """Where the package's installed program is, by its unit."""
        return f"/opt/blindrelay/bin/{self.name}"

    @property
    def variables(self) -> set[str]:
        """Every variable that it knows."""
        secret = {self.names.variable_of(key) + "_FILE" for key, info in self.names.leaves() if is_secret(info)}
        return {self.names.variable_of(key) for key, _ in self.names.leaves()} | secret

    @property
    def unit(self) -> str:
        return (DEPLOY / f"{self.name}.service").read_text()

    @property
    def compose(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((DEPLOY / f"compose.{self.short}.yaml").read_text())
        return found

    @property
    def container(self) -> dict[str, Any]:
        found: dict[str, Any] = self.compose["services"][self.short]
        return found

    def directive(self, name: str) -> str:
        """Return the value of a directive of the unit that stands there once."""
        (value,) = [line.partition("=")[2] for line in directives(self.unit) if line.startswith(f"{name}=")]
        return value


MAILBOX: Final = Service("mailbox", MAILBOX_NAMES, LimitSettings().stop)
NOTIFIER: Final = Service("notifier", NOTIFIER_NAMES, Limits().stop)


def directives(unit: str) -> list[str]:
    """Return the lines of a unit that set something."""
    return [line for line in unit.splitlines() if re.match(r"[A-Z]\w+=", line)]


def unit_file(name: str, directory: Path) -> Path:
    """Write a unit of deploy/ whose program is there on this machine."""
    path = directory / f"{name}.service"
    path.write_text(substituted(path.name, (f"/opt/blindrelay/bin/{name}", sys.executable)))
    return path


def check_understood(unit: Path) -> None:
    """Find that systemd understands every line of a unit."""
    done = _analyze("verify", "--man=no", str(unit))
    # It also speaks of other units of the machine.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if unit.stem in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def check_closed(unit: Path) -> str:
    """Find that systemd finds nothing more to close in a unit; return what it says."""
    done = _analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
