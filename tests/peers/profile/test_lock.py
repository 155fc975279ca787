"""peers/profile/lock.py: one holder at a time, however it ends."""

import gc
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from peers.profile import ProfileBusy, ProfileError, ProfileLock
from tests.keys.known import ROOT

HOLDER = """
import sys
from pathlib import Path
from peers.profile.lock import ProfileLock
lock = ProfileLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def held(lock: ProfileLock) -> bool:
    """The property by a function, of which mypy does not think that it never changes."""
    return lock.held


def test_two_in_one_process_exclude_each_other(path: Path) -> None:
    one, other = ProfileLock(path), ProfileLock(path)
    assert one.acquire()
    assert held(one)
    assert not other.acquire()
    assert not held(other)
    one.release()
    assert not held(one)
    assert other.acquire()
    assert not one.acquire()
    other.release()
    assert one.acquire()
    one.release()


def test_taking_it_twice_is_a_mistake_and_giving_it_back_twice_is_none(path: Path) -> None:
    lock = ProfileLock(path)
    lock.release()
    assert lock.acquire()
    with pytest.raises(RuntimeError, match="held already"):
        lock.acquire()
    assert not ProfileLock(path).acquire()
    lock.release()
    lock.release()
    assert ProfileLock(path).acquire()


def test_a_block_holds_it(path: Path) -> None:
    with ProfileLock(path) as lock:
        assert held(lock)
        with (
            pytest.raises(ProfileBusy, match=r"another program uses the profile in .*; end it first"),
            ProfileLock(path),
        ):
            pytest.fail("two hold it")
    assert not held(lock)
    with pytest.raises(LookupError), ProfileLock(path):
        raise LookupError
    assert ProfileLock(path).acquire()


def test_a_lock_that_is_forgotten_is_given_back(path: Path) -> None:
    lock = ProfileLock(path)
    assert lock.acquire()
    del lock
    gc.collect()
    assert ProfileLock(path).acquire()


def test_kill_9_gives_it_back(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        lock = ProfileLock(path)
        assert not lock.acquire()
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert lock.acquire()
        lock.release()


def test_a_program_that_the_holder_started_does_not_keep_it(path: Path) -> None:
    child = "import sys; print('started', flush=True); sys.stdin.read()"
    started = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}], close_fds=False).wait()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.replace("sys.stdin.read()", started), str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:  # the child lives until its stdin, which is the holder's, is closed here
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert process.stdout.readline() == b"started\n"
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert ProfileLock(path).acquire()


def in_a_child(lock: ProfileLock) -> int:
    """What a forked copy of the lock says and does, as an exit status."""
    child = os.fork()
    if child == 0:
        try:
            wrong = lock.held
            lock.release()
            os._exit(1 if wrong else 0)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_copy_neither_holds_it_nor_gives_it_back(path: Path) -> None:
    lock = ProfileLock(path)
    assert lock.acquire()
    assert in_a_child(lock) == 0
    assert held(lock)
    assert not ProfileLock(path).acquire()
    lock.release()


def test_a_forked_child_does_not_keep_it(path: Path) -> None:
    lock = ProfileLock(path)
    assert lock.acquire()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # shares the open file until it ends
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        lock.release()
        assert ProfileLock(path).acquire()
    finally:
        os.close(writing)
        os.waitpid(child, 0)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_file_is_closed_to_others(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with ProfileLock(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    with ProfileLock(path):  # the file stays, and can be locked again
        assert path.is_file()


def test_what_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path, tmp_path / "missing" / "lock", tmp_path / "link"):
        with pytest.raises(ProfileError, match="cannot open"):
            ProfileLock(path).acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("peers.profile.lock.fcntl.flock", fail)
    lock = ProfileLock(path)
    with pytest.raises(ProfileError, match=r"cannot lock .*: No locks available; put the profile on a file system"):
        lock.acquire()
    assert not held(lock)
