"""docs/settings.md is what `python -m relay config doc` prints, and has every setting with all its names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from relay import config
from relay.reload import APPLIES, CONTENT
from relay.settings import NAMES
from relay.settings_names import NOT_IN_FILE
from tests.docs import markdown

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = (markdown.ROOT / "docs" / "settings.md").read_text()


def test_settings_md_is_current() -> None:
    assert config.doc() == SETTINGS, "renew it: .venv/bin/python -m relay config doc >docs/settings.md"


def test_the_command_prints_it_where_less_is_to_be_had() -> None:
    """A default that depends on the machine is told in words (`settings_help`), or this page is never current."""
    command = f"ulimit -S -n 200 && ulimit -H -n 200 && exec {shlex.quote(sys.executable)} -m relay config doc"
    done = subprocess.run(["sh", "-c", command], cwd=markdown.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == SETTINGS


@pytest.mark.parametrize("name", ["README.md", "OPERATIONS.md"])
def test_commands_that_are_told_exist(name: str, tmp_path: Path) -> None:
    told = re.findall(r"scripts/run (config \w+)", (markdown.ROOT / name).read_text())
    assert told
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
    environ |= {"PYTHONPATH": str(markdown.ROOT), "STATE_DIRECTORY": str(tmp_path)}
    for command in told:
        done = subprocess.run(
            [sys.executable, "-m", "relay", *command.split()],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout
    assert list(tmp_path.iterdir()) == []


def test_each_setting_has_its_row() -> None:
    rows = markdown.rows(SETTINGS, "key", "flag and variable", "default", "what it is", "SIGHUP")
    told = {tuple(re.findall(r"`([^`]+)`", row["flag and variable"])): row for row in rows}
    assert len(told) == len(rows) == len(NAMES.leaves)
    for leaf in NAMES.leaves.values():
        if leaf.secret:
            continue
        row = told[leaf.flag, leaf.variable]
        assert row["key"] == ("none" if leaf.key in NOT_IN_FILE else f"`{leaf.key}`")
        assert row["default"]
        value, _, content = row["SIGHUP"].partition("; its content ")
        assert value == APPLIES.get(leaf.key, "restart")
        assert content == CONTENT.get(leaf.key, "")
        # Of a path that is taken anew at once, so is what stands there: it needs no word of its own.
        assert not content or (leaf.is_path and value == "restart")


def test_what_a_mistake_looks_like() -> None:
    """The example of OPERATIONS.md, as it really is."""
    (block,) = re.findall(
        r"```console\n\$ scripts/run config check (.*)\n([^`]*)```", (markdown.ROOT / "OPERATIONS.md").read_text()
    )
    command = [sys.executable, "-m", "relay", "config", "check", *shlex.split(block[0])]
    done = subprocess.run(command, cwd=markdown.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == block[1]


def test_what_show_prints(tmp_path: Path) -> None:
    """The sample of OPERATIONS.md, from the relay.toml that stands above it there; only the place is another."""
    ((table, command, told),) = re.findall(
        r"```toml\n([^`]*)```\n[^`]*```console\n\$ scripts/run config show (.*) \| grep -v '# default\$'\n([^`]*)```",
        (markdown.ROOT / "OPERATIONS.md").read_text(),
    )
    file = tmp_path / "relay.toml"
    file.write_text(table)

    def here(text: str) -> str:
        return text.replace("/etc/blindrelay/relay.toml", str(file))

    environ = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
    environ.pop("CREDENTIALS_DIRECTORY", None)
    done = subprocess.run(
        [sys.executable, "-m", "relay", "config", "show", *shlex.split(here(command))],
        cwd=markdown.ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines(keepends=True) if not line.endswith("# default\n")]
    assert "".join(lines) == here(told)
