"""The shell scripts as text."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.needs import PROGRAMS

ROOT = Path(__file__).resolve().parents[2]


def shell_scripts() -> list[Path]:
    files = [path for folder in ("scripts", ".ci") for path in (ROOT / folder).iterdir() if path.is_file()]
    return [path for path in files if re.match(r"#!.*\b(ba|da)?sh\b|# shellcheck shell=", path.read_text())]


def test_there_are_scripts() -> None:
    assert {"run", "test", "_env.sh"} <= {path.name for path in shell_scripts()}


@pytest.mark.needs("shellcheck")
@pytest.mark.parametrize("path", shell_scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck(path: Path) -> None:
    done = subprocess.run(
        ["shellcheck", "--external-sources", path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_installs_every_program_that_a_test_may_need() -> None:
    listed = re.search(r"^PACKAGES=\(\n(.*?)^\)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE | re.DOTALL)
    assert listed
    assert dict(line.strip().split("=") for line in listed[1].splitlines()) == PROGRAMS
