"""``export``, ``import`` and ``doctor`` as people call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from keys.invite import RelayCard
from peers.chat.exits import Exit
from tests.peers.chat.profiles import environment, make_profile
from tests.support.relay_process import ROOT, RelayProcess

if TYPE_CHECKING:
    from pathlib import Path


def chat(home: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "peers.chat", *arguments]
    variables = {**os.environ, **home, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_profile_moves_to_another_name_and_is_looked_at(relay: RelayProcess, tmp_path: Path) -> None:
    home = environment(tmp_path / "home")
    make_profile(home, relay=RelayCard(relay.public, relay.url))
    backup = str(tmp_path / "backup")
    done = chat(home, "--json", "export", backup)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["exported"] == backup
    again = chat(home, "export", backup)
    assert (again.returncode, again.stdout) == (Exit.USAGE, "")
    assert again.stderr == f"blindrelay-chat: {backup} exists and is not overwritten: name another file\n"
    done = chat(home, "--profile", "second", "import", backup)
    assert (done.returncode, done.stderr) == (0, "")
    assert "One identity has one connection" in done.stdout
    account = str(tmp_path / "account.json")
    assert chat(home, "export", "--telefon", account).returncode == 0
    assert chat(home, "import", "--telefon", account, "--contacts-only").returncode == 0
    assert chat(home, "import", "--telefon", account, "-p", "third").returncode == Exit.USAGE
    looked = chat(home, "doctor", "-p", "second", "--json")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    found = {record["check"]: record["status"] for record in map(json.loads, looked.stdout.splitlines())}
    assert found["session"] == found["info"] == found["store"] == "ok"
    assert "\x1b" not in chat(home, "doctor").stdout
    assert chat(home, "doctor", "-p", "missing").returncode == Exit.NOT_FOUND
