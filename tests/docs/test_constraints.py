"""constraints.txt pins all that an installation takes, and agrees with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
DIRECT = [
    Requirement(line)
    for lines in (PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"], *EXTRAS.values())
    for line in lines
]


def pins() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert canonicalize_name(name) not in found, f"{name} is pinned twice"
            found[canonicalize_name(name)] = version
    return found


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_pin_is_what_pyproject_asks_for(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_everything_that_is_pulled_in_is_pinned_and_installed_as_pinned() -> None:
    pinned = pins()
    waiting = {(canonicalize_name(requirement.name), frozenset(requirement.extras)) for requirement in DIRECT}
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        seen.add((name, extras))
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            assert name in ("atheris", "resvg-py")  # the extras `fuzz` and `screenshot` need not be here
            continue
        assert pinned.get(name) == installed.version, name
        for line in installed.requires or ():
            wanted = Requirement(line)
            environments = [{"extra": extra} for extra in (extras or {""})]
            if wanted.marker is None or any(wanted.marker.evaluate(environment) for environment in environments):
                following = (canonicalize_name(wanted.name), frozenset(wanted.extras))
                waiting |= {following} - seen


def test_no_host_and_no_path() -> None:
    assert not re.search(r"://|@ |^-", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
