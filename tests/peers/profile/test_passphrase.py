"""peers/profile/passphrase.py: from a file or a terminal, and from nowhere else."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from peers.profile import ProfileError, ask_passphrase
from tests.keys.known import ROOT

PASSPHRASE = "correct horse"


def from_file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return ask_passphrase("Passphrase: ", {"BLINDRELAY_PASSPHRASE_FILE": str(path)}, confirm=True)


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [
        (b"correct horse", "correct horse"),
        (b"correct horse\n", "correct horse"),
        (b"correct horse\r\n", "correct horse"),
        (b" correct \n\n", " correct \n"),
        ("e\u0301té\n".encode(), "e\u0301té"),
        (b"a" * 4096 + b"\r\n", "a" * 4096),
    ],
)
def test_from_a_file(tmp_path: Path, content: bytes, passphrase: str) -> None:
    assert from_file(tmp_path / "p", content) == passphrase


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the passphrase is empty"),
        (b"\r\n", "the passphrase is empty"),
        (b"hunter2\xff", "the passphrase is not UTF-8 text"),
        (b"hunter2" * 600, "the passphrase is longer than 4096 bytes"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(ProfileError, match=f"^the file of BLINDRELAY_PASSPHRASE_FILE: {why}$"):
        from_file(tmp_path / "p", content)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name, why in (
        ("", "BLINDRELAY_PASSPHRASE_FILE is empty: name a file by it, or remove it"),
        ("hunter2", "the file of BLINDRELAY_PASSPHRASE_FILE cannot be read: No such file or directory"),
        ("hunter2\0", "the file of BLINDRELAY_PASSPHRASE_FILE cannot be read: not a file name"),
        (str(tmp_path), "the file of BLINDRELAY_PASSPHRASE_FILE cannot be read: Is a directory"),
    ):
        with pytest.raises(ProfileError) as caught:
            ask_passphrase("Passphrase: ", {"BLINDRELAY_PASSPHRASE_FILE": name})
        assert str(caught.value) == why  # the passphrase itself, put there by mistake, is not repeated


def test_a_pipe_is_a_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"correct horse\n")
    os.close(writing)
    try:
        assert ask_passphrase("", {"BLINDRELAY_PASSPHRASE_FILE": f"/dev/fd/{reading}"}) == PASSPHRASE
    finally:
        os.close(reading)


def test_the_plain_variable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"correct horse")
    environ = {"BLINDRELAY_PASSPHRASE": "hunter2", "BLINDRELAY_PASSPHRASE_FILE": str(tmp_path / "p")}
    with pytest.raises(ProfileError, match="BLINDRELAY_PASSPHRASE is not read") as caught:
        ask_passphrase("Passphrase: ", environ)
    assert "hunter2" not in str(caught.value)


# The terminal must be the one that controls the process: getpass opens /dev/tty.
ASK = """
import fcntl, sys, termios
if sys.argv[1] == "terminal":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from peers.profile import ProfileError, ask_passphrase
try:
    typed = ask_passphrase("Secret: ", {}, confirm=sys.argv[2] == "confirm")
except ProfileError as error:
    print("refused:", error)
else:
    print("typed:", typed.encode().hex())
"""


def typed(confirm: str, *answers: str) -> str:
    """Type each answer after a prompt, and return all that the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, "terminal", confirm],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    waiting = list(answers)
    try:
        while True:
            if waiting and shown.endswith(b": "):
                os.write(ours, waiting.pop(0).encode())
                shown += b"\n"
            try:
                more = os.read(ours, 1024)
            except OSError:  # so says Linux when the other side is closed
                break
            if not more:
                break
            shown += more
    finally:
        os.close(ours)
        process.wait(timeout=60)
    assert process.returncode == 0
    assert not waiting
    return shown.decode()


@pytest.mark.parametrize(
    ("confirm", "answers", "said"),
    [
        ("once", ["correct horse\n"], f"typed: {PASSPHRASE.encode().hex()}"),
        ("confirm", ["correct horse\n", "correct horse\n"], f"typed: {PASSPHRASE.encode().hex()}"),
        ("confirm", ["correct horse\n", "correct hors\n"], "refused: the two passphrases differ"),
        ("confirm", ["\n"], "refused: the passphrase is empty"),
        ("once", ["\x04"], "refused: there is no terminal to ask"),
    ],
)
def test_at_the_terminal(confirm: str, answers: list[str], said: str) -> None:
    shown = typed(confirm, *answers)
    assert "Secret: " in shown
    assert said in shown
    assert "horse" not in shown


def test_without_a_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, "none", "once"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=b"correct horse\n",
        capture_output=True,
        start_new_session=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(b"refused: there is no terminal to ask for the passphrase; put it into a file")
    assert done.stderr == b""
