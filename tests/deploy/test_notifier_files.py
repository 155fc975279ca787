"""The notifier's own in deploy/; test_service_files.py has what it shares with other services."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from relay.settings import NAMES
from tests.deploy.proxies import DEPLOY
from tests.deploy.services import NOTIFIER
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["blindrelay-notifier.service", "compose.notifier.yaml"])
def test_settings_that_are_named_exist(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert set(re.findall(r"\bNOTIFIER_[A-Z_]+", text)) - {"NOTIFIER_NAME"} <= NOTIFIER.variables
    assert set(re.findall(r"\bRELAY_[A-Z_]+", text)) - {"NOTIFIER_RELAY_CARD"} <= set(NAMES.by_variable)


def test_what_is_told_to_both_stands_in_one_file() -> None:
    # So each must bear the other's variables.
    assert {each["env_file"][0]["path"] for each in NOTIFIER.compose["services"].values()} == {"push.env"}


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
