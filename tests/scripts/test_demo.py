"""scripts/demo, the first thing that a visitor runs: in a copy of the project whose environment counts as made."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT = 120


class Demo:
    """The real scripts and packages under another root, with this interpreter behind .venv/bin/python."""

    def __init__(self, base: Path) -> None:
        self.root = base / "a project"
        self.temporary = base / "tmp"
        self.elsewhere = base / "elsewhere"
        for directory in (self.root / "scripts", self.root / ".venv" / "bin", self.temporary, self.elsewhere):
            directory.mkdir(parents=True)
        for name in ("_env.sh", "demo", "demo.py"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts" / name)
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for package in ("keys", "wire", "relay"):
            (self.root / package).symlink_to(ROOT / package)
        python = self.root / ".venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        # The stamp of scripts/_env.sh: nothing is to be installed here.
        stamp = self.root / ".venv" / ".blindrelay" / "runtime"
        stamp.parent.mkdir()
        inputs = [(self.root / name).read_text() for name in ("pyproject.toml", "constraints.txt")]
        stamp.write_text("".join([f"{sys.version_info[0]} {sys.version_info[1]}\n", *inputs]))
        # In the caller's directory stands what must not be taken for ours.
        for package in ("keys", "relay"):
            (self.elsewhere / package).mkdir()
            (self.elsewhere / package / "__init__.py").write_text("raise SystemExit('the wrong package')\n")

    def start(
        self, *arguments: str, stdout: int = subprocess.PIPE, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "PYTHONPATH")}
        return subprocess.Popen(
            [self.root / "scripts" / "demo", *arguments],
            cwd=self.elsewhere,
            env={**inherited, "TMPDIR": str(self.temporary), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, environment=environment)
        out, err = process.communicate(timeout=WAIT)
        return process.returncode, out, err

    def assert_nothing_left(self, output: str) -> None:
        assert list(self.temporary.iterdir()) == []
        port = re.search(r"ws://127\.0\.0\.1:(\d+)/ws", output)
        assert port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port[1])))


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


def test_two_people_talk_and_the_relay_sees_noise(demo: Demo) -> None:
    status, out, err = demo.run()
    assert (status, err) == (0, "")
    for name, peer in (("Alice", "Bob"), ("Bob", "Alice")):
        line = re.search(rf"^  {name} +writes  “(.+)”$", out, re.MULTILINE)
        assert line
        assert re.search(rf"^  {peer} +reads   “{re.escape(line[1])}”$", out, re.MULTILINE)
        assert re.search(rf"^  {name} +sees    delivered: {peer}", out, re.MULTILINE)
    ids = dict(re.findall(r"^  (Alice|Bob) +id ([0-9a-f]{16}) ", out, re.MULTILINE))
    saw = out.partition("What the relay saw")[2]
    assert f"“for {ids['Bob']}”" in saw
    assert f"“from {ids['Alice']}”" in saw
    assert len(re.findall(r"(?:[0-9a-f]{2} ){8}", saw)) == 6
    assert re.search(r"^  stopped .*endings \{\"client\": 2\}$", out, re.MULTILINE)
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 100
    demo.assert_nothing_left(out)


def test_every_run_has_other_keys(demo: Demo) -> None:
    ids = [set(re.findall(r"id ([0-9a-f]{16})", demo.run()[1])) for _ in range(2)]
    assert len(ids[0]) == len(ids[1]) == 2
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_are_for_terminals(demo: Demo, no_color: bool) -> None:
    ours, theirs = os.openpty()
    process = demo.start(stdout=theirs, environment={"NO_COLOR": "1"} if no_color else None)
    os.close(theirs)
    out = b""
    try:
        while data := os.read(ours, 65536):
            out += data
    except OSError:  # how Linux says that the terminal has nobody left
        pass
    finally:
        os.close(ours)
    assert process.communicate(timeout=WAIT)[1] == ""
    assert process.returncode == 0
    assert (b"\x1b[" in out) is not no_color


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_early_it_leaves_nothing_behind(demo: Demo, number: signal.Signals) -> None:
    process = demo.start()
    assert process.stdout is not None
    begin = ""
    while "ws://" not in begin:
        line = process.stdout.readline()
        assert line
        begin += line
    process.send_signal(number)
    out, _ = process.communicate(timeout=WAIT)
    # 0, should it have been done already.
    assert process.returncode in (0, 130, 143)
    demo.assert_nothing_left(begin + out)


def test_settings_of_another_relay_are_not_taken(demo: Demo) -> None:
    status, out, err = demo.run(RELAY_PORT="1", RELAY_X25519_SECRET="no key", RELAY_NONSENSE="1")
    assert (status, err) == (0, "")
    demo.assert_nothing_left(out)


def test_takes_no_arguments(demo: Demo) -> None:
    status, out, err = demo.run("--port")
    assert (status, out) == (1, "")
    assert err == "usage: scripts/demo\n"
