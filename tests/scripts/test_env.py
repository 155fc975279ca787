"""scripts/run and its environment, with a stand-in for Python: which one is taken, and when it installs again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

# It claims a version, makes "environments" that hold itself, and writes down every call of pip. The tests steer it
# through files in $STUB: `fail` makes pip fail, `hang` makes it wait, `waiting` tells that it does.
STUB = """#!/bin/sh
STUB='{stub}'
case "$*" in
*version_info\\ \\<*) exit {old} ;;
*'import ensurepip'*) exit {without_venv} ;;
*version_info*) echo '3 {minor}' ;;
--version) echo 'Python 3.{minor}.0' ;;
'-m venv '*) echo 'venv' >>"$STUB/calls"; mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*'-m pip '*--version) [ -e "${{0%/*}}/../.blindrelay" ] ;;
*'-m pip '*--editable*)
    echo "pip ${{*#* --editable }}" >>"$STUB/calls"
    if [ -e "$STUB/hang" ]; then
        trap 'exit 1' INT # as pip does
        echo >"$STUB/waiting"
        while [ -e "$STUB/hang" ]; do sleep 0.05; done
    fi
    if [ -e "$STUB/fail" ]; then exit 1; fi ;;
*'-m pip '*) ;;
'-P -m keys.keygen --out '*) mkdir -p "${{5%/*}}"; echo >"$5"; shift 5; echo "minted $*" >>"$STUB/minted" ;;
'-P -m relay'*) shift 3; printf '%s\\n' "relay in ${{RELAY_DATA_DIR-state $STATE_DIRECTORY}}" "$@" ;;
*) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


class Project:
    """A copy of the scripts in a directory with a space in its name."""

    def __init__(self, base: Path) -> None:
        self.root = base / "a project"
        self.stub = base / "stub"
        self.bin = base / "bin"
        for directory in (self.root / "scripts", self.stub, self.bin):
            directory.mkdir(parents=True)
        for name in ("_env.sh", "run"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts" / name)
        for name in ("pyproject.toml", "constraints.txt"):
            (self.root / name).write_text(f"# {name}\n")
        for program in ("cat", "cp", "dirname", "env", "flock", "mkdir", "readlink", "rm", "sh", "sleep"):
            found = shutil.which(program)
            if found:  # flock is not everywhere
                (self.bin / program).symlink_to(found)

    def python(self, name: str, *, minor: int, old: bool = False, without_venv: bool = False) -> None:
        text = STUB.format(stub=self.stub, minor=minor, old=int(old), without_venv=int(without_venv))
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / "run", *arguments],
            cwd=self.root.parent,
            env={"PATH": str(self.bin), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self) -> list[str]:
        """What was installed since the last call of this."""
        log = self.stub / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def tell(self, order: str) -> None:
        (self.stub / order).touch()

    def untell(self, order: str) -> None:
        (self.stub / order).unlink()

    def await_waiting(self) -> None:
        deadline = time.monotonic() + 60
        while not (self.stub / "waiting").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (self.stub / "waiting").unlink()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    (made.stub / "hang").unlink(missing_ok=True)  # a test that failed leaves nothing waiting


@pytest.fixture
def ready(project: Project) -> Project:
    """A project whose environment is made."""
    project.python("python3", minor=11)
    assert project.run()[0] == 0
    assert project.calls() == ["venv", "pip ."]
    return project


def test_newest_interpreter_that_works_is_taken(project: Project) -> None:
    (project.bin / "python3.13").write_text("#!/bin/sh\necho 'the shim of a version manager' >&2\nexit 127\n")
    (project.bin / "python3.13").chmod(0o755)
    project.python("python3.12", minor=12)
    project.python("python3", minor=11)
    _, _, err = project.run()
    assert "making .venv with Python 3.12.0" in err
    assert "shim" not in err


def test_one_without_ensurepip_is_passed_over(project: Project) -> None:
    project.python("python3.13", minor=13, without_venv=True)
    project.python("python3", minor=11)
    assert "making .venv with Python 3.11.0" in project.run()[2]


def test_python_variable_comes_first(project: Project) -> None:
    project.python("python3.13", minor=13)
    project.python("mine", minor=12)
    assert "making .venv with Python 3.12.0" in project.run(PYTHON=str(project.bin / "mine"))[2]


@pytest.mark.parametrize(
    ("stub", "expected"),
    [
        ({}, "apt-get install python3 python3-venv"),
        ({"old": True}, "apt-get install python3 python3-venv"),
        ({"without_venv": True}, "apt-get install python3-venv"),
    ],
)
def test_no_interpreter_says_what_to_install(project: Project, stub: dict[str, bool], expected: str) -> None:
    if stub:
        project.python("python3", minor=11, **stub)
    status, out, err = project.run()
    assert (status, out) == (1, "")
    assert expected in err
    assert not (project.root / ".venv").exists()


def test_arguments_and_data_directory(ready: Project) -> None:
    assert ready.run("--port", "1", "a b")[:2] == (0, f"relay in {ready.root}/data\n--port\n1\na b\n")
    assert ready.run(RELAY_DATA_DIR="elsewhere")[:2] == (0, "relay in elsewhere\n")


def test_a_file_that_is_named_may_name_the_data_directory(ready: Project) -> None:
    """A variable would stand above it; a default does not, and is the same as without a file."""
    told = f"relay in state {ready.root}/data\n"
    assert ready.run(RELAY_CONFIG="x.toml", STATE_DIRECTORY="/var/lib/blindrelay")[:2] == (0, told)
    assert ready.run("--config=x.toml")[:2] == (0, f"{told}--config=x.toml\n")
    assert ready.run(RELAY_CONFIG="x.toml", RELAY_DATA_DIR="elsewhere")[:2] == (0, "relay in elsewhere\n")


def test_keys_are_minted_once_and_only_for_the_own_data_directory(project: Project) -> None:
    project.python("python3", minor=11)
    minted = project.stub / "minted"
    elsewhere: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        ((), {"RELAY_DATA_DIR": "elsewhere"}),
        ((), {"RELAY_KEYS": "other.keys"}),
        ((), {"RELAY_X25519_SECRET_FILE": "x"}),
        (("--data-dir", "elsewhere"), {}),
        (("--keys=other.keys",), {}),
        (("--help",), {}),
        (("config", "check"), {}),
        (("--config", "other.toml"), {}),
        (("--config=other.toml",), {}),
        (("--secrets-dir=secrets",), {}),
        ((), {"RELAY_CONFIG": "other.toml"}),
        ((), {"RELAY_SECRETS_DIR": "secrets"}),
        ((), {"CREDENTIALS_DIRECTORY": "secrets"}),
    )
    for arguments, environment in elsewhere:
        assert project.run(*arguments, **environment)[0] == 0
        assert not minted.exists(), (arguments, environment)
    (project.root / "data").mkdir()
    (project.root / "data" / "relay.toml").touch()
    assert project.run()[0] == 0
    assert not minted.exists()
    (project.root / "data" / "relay.toml").unlink()
    for _ in range(2):
        assert project.run("--port", "1")[0] == 0
    assert minted.read_text() == "minted \n"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--url", "wss://a.example/ws"], {}),
        (["--url=wss://a.example/ws"], {"RELAY_URL": "wss://b.example/ws"}),
        ([], {"RELAY_URL": "wss://a.example/ws"}),
    ],
)
def test_the_card_of_minted_keys_has_the_url(
    project: Project, arguments: list[str], environment: dict[str, str]
) -> None:
    project.python("python3", minor=11)
    assert project.run(*arguments, **environment)[0] == 0
    assert (project.stub / "minted").read_text() == "minted --url wss://a.example/ws\n"


def test_second_start_installs_nothing_and_is_silent(ready: Project) -> None:
    assert ready.run() == (0, f"relay in {ready.root}/data\n", "")
    assert ready.calls() == []


def test_starts_through_a_symbolic_link(ready: Project) -> None:
    link = ready.root.parent / "link"
    link.symlink_to(ready.root / "scripts" / "run")
    done = subprocess.run([link], env={"PATH": str(ready.bin)}, capture_output=True, text=True, check=True)
    assert done.stdout == f"relay in {ready.root}/data\n"


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_change_installs_again_once(ready: Project, name: str) -> None:
    (ready.root / name).write_text("# changed\n")
    ready.run()
    ready.run()
    assert ready.calls() == ["pip ."]


def test_moved_project_makes_its_environment_anew(ready: Project) -> None:
    ready.root = ready.root.rename(ready.root.with_name("moved"))
    assert ready.run()[1] == f"relay in {ready.root}/data\n"
    assert ready.calls() == ["venv", "pip ."]


def test_failed_installation_starts_nothing_and_keeps_the_environment(ready: Project) -> None:
    (ready.root / "constraints.txt").write_text("# changed\n")
    ready.tell("fail")
    status, out, err = ready.run()
    assert (status, out) == (1, "")
    assert "installation failed" in err
    ready.untell("fail")
    ready.run()
    assert ready.calls() == ["pip .", "pip ."]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_installation_is_redone_from_nothing(ready: Project, number: signal.Signals) -> None:
    (ready.root / "constraints.txt").write_text("# changed\n")
    ready.tell("hang")
    process = ready.start()
    ready.await_waiting()
    os.killpg(process.pid, number)  # as a terminal does
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert ready.calls() == ["pip ."]
    ready.untell("hang")
    assert ready.run()[0] == 0
    assert ready.calls() == ["venv", "pip ."]


def test_environment_left_half_made_by_another_is_not_used(ready: Project) -> None:
    # As when scripts/test is killed while it adds an extra: the stamp of the runtime is still right.
    (ready.root / ".venv" / ".blindrelay" / "installing").touch()
    assert ready.run()[0] == 0
    assert ready.calls() == ["venv", "pip ."]


@pytest.mark.skipif(shutil.which("flock") is None, reason="without flock two starts at once are not kept apart")
def test_two_at_once_install_once(project: Project) -> None:
    project.python("python3", minor=11)
    project.tell("hang")
    first = project.start()
    project.await_waiting()
    second = project.start()
    assert second.stderr is not None
    assert "waiting for another installation" in second.stderr.readline()
    project.untell("hang")
    for process in (first, second):
        assert process.communicate(timeout=60)[0] == f"relay in {project.root}/data\n"
    assert project.calls() == ["venv", "pip ."]
