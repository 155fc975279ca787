"""New files: there whole or not at all, and never in the place of something."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import peers.new_file as module
from peers.new_file import new_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["without a name", "with a temporary name"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "with a temporary name":
        monkeypatch.setattr(module, "_unnamed", lambda _directory: None)


def test_it_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    old = os.umask(0o277)
    try:
        with new_file(path) as file:
            file.write(b"half")
            assert not path.exists()
            file.write(b" and half")
    finally:
        os.umask(old)
    assert path.read_bytes() == b"half and half"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_is_interrupted_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_file(tmp_path / "backup") as file:
        file.write(b"half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("what", ["file", "link", "directory"])
def test_what_exists_stays(tmp_path: Path, what: str, early: bool) -> None:
    path = tmp_path / "backup"

    def appear() -> None:
        if what == "file":
            path.write_bytes(b"old")
        elif what == "link":
            path.symlink_to(tmp_path / "elsewhere")
        else:
            path.mkdir()

    if early:
        appear()
    with pytest.raises(FileExistsError), new_file(path) as file:
        file.write(b"new")
        appear()
    assert list(tmp_path.iterdir()) == [path]
    assert what != "file" or path.read_bytes() == b"old"


def test_there_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "missing" / "backup"):
        raise AssertionError


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system knows no files without a name")
def test_not_even_a_kill_leaves_anything(tmp_path: Path) -> None:
    if module._unnamed.__name__ == "<lambda>":
        return  # where there is only a temporary name, a kill leaves it
    script = (
        "import os, signal, sys; from pathlib import Path; from peers.new_file import new_file\n"
        "with new_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'x' * 100000); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "backup")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
