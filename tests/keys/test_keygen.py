"""The program as people run it: a real process, its streams, its exit status and what it leaves behind."""

import os
import pty
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Final

import pytest

from keys import keygen
from keys.files import ClientKeys, ServerKeys, read_identity, read_server_keys, write_identity, write_server_keys
from keys.invite import Invite, RelayCard
from tests.keys.known import ALICE, CHEAP, NOTIFIER, ROOT, SERVER

DEFAULT_URL: Final = "ws://127.0.0.1:8090/ws"
PASSPHRASE: Final = "correct horse"
BY_MODULE: Final = [sys.executable, "-P", "-m", "keys.keygen"]
BY_SCRIPT: Final = [str(ROOT / "scripts" / "keygen")]


class Done:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def fields(self) -> dict[str, str]:
        assert self.status == 0, self.err
        fields = tomllib.loads(self.out)
        assert all(isinstance(value, str) for value in fields.values())
        return fields


class Keygen:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *arguments: str, program: list[str] | None = None, stdin: str = "") -> Done:
        return Done(
            subprocess.run(
                [*(program or BY_MODULE), *arguments],
                cwd=self.directory,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                start_new_session=True,  # no terminal to ask on
                check=False,
            )
        )

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """Return the one line that says why, after checking that nothing else happened."""
        before = self.content()
        done = self(*arguments, stdin=stdin)
        assert done.status == 2
        assert done.out == ""
        assert done.err.startswith("blindrelay-keygen: ")
        assert done.err.count("\n") == 1
        assert self.content() == before
        return done.err

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.iterdir() if path.is_file()}

    def mode(self, name: str) -> int:
        return (self.directory / name).stat().st_mode & 0o7777


@pytest.fixture
def run(tmp_path: Path) -> Keygen:
    return Keygen(tmp_path)


# --- Relays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [BY_MODULE, BY_SCRIPT], ids=["module", "script"])
def test_minting_a_relays_keys(run: Keygen, program: list[str]) -> None:
    done = run("--out", "relay.keys", program=program)
    keys = read_server_keys(run.directory / "relay.keys")
    public = keys.identity.public
    card = RelayCard(public, DEFAULT_URL)
    assert done.out.splitlines() == [
        f'x25519_public = "{public.x_pub.hex()}"',
        f'ed25519_public = "{public.ed_pub.hex()}"',
        f'relay_card = "{card.text}"',
    ]
    assert RelayCard.parse(done.fields["relay_card"]) == card
    assert keys.notifier_id is None
    assert run.mode("relay.keys") == 0o600
    assert done.err == "blindrelay-keygen: wrote relay.keys; keep a copy of it in a safe place\n"
    for seed in keys.identity.seeds:
        assert seed.hex() not in done.out + done.err


def test_every_option_of_a_relay(run: Keygen) -> None:
    url = "wss://relay.example.org/ws"
    done = run("--out", "new/deep/r.keys", "--url", url, "--notifier-id", NOTIFIER.id.hex().upper())
    keys = read_server_keys(run.directory / "new/deep/r.keys")
    assert keys.notifier_id == NOTIFIER.id
    assert RelayCard.parse(done.fields["relay_card"]) == RelayCard(keys.identity.public, url)
    assert run.mode("new") == run.mode("new/deep") == 0o700


def test_files_have_a_usual_name(run: Keygen) -> None:
    assert run().status == run("--client").status == 0
    assert sorted(run.content()) == ["client.keys", "relay.keys"]


def test_nothing_is_overwritten_unless_forced(run: Keygen) -> None:
    first = run().fields
    assert "relay.keys exists and is not overwritten" in run.refused()
    assert "relay.keys exists and is not overwritten" in run.refused("--client", "--out", "relay.keys")
    second = run("--force").fields
    assert first["x25519_public"] != second["x25519_public"]
    assert run("--public", "relay.keys").fields == second


def test_showing_a_relays_keys(run: Keygen) -> None:
    write_server_keys(run.directory / "r.keys", ServerKeys(SERVER, NOTIFIER.id))
    before = run.content()
    done = run("--public", "r.keys")
    assert done.err == ""
    assert done.fields == {
        "x25519_public": SERVER.public.x_pub.hex(),
        "ed25519_public": SERVER.public.ed_pub.hex(),
        "relay_card": RelayCard(SERVER.public, DEFAULT_URL).text,
    }
    card = run("--public", "r.keys", "--url", "wss://h/").fields["relay_card"]
    assert card == RelayCard(SERVER.public, "wss://h/").text
    assert run.content() == before


# --- Clients --------------------------------------------------------------------------------------------------------


def test_minting_a_clients_keys(run: Keygen) -> None:
    done = run("--client", "--nickname", "Алиса", "--out", "me.keys")
    keys = read_identity(run.directory / "me.keys")
    assert keys.nickname == "Алиса"
    assert list(done.fields) == ["x25519_public", "ed25519_public", "invite"]
    assert Invite.parse(done.fields["invite"]) == keys.invite
    assert done.fields["x25519_public"] == keys.identity.public.x_pub.hex()
    assert run.mode("me.keys") == 0o600
    assert run("--public", "me.keys").fields == done.fields
    for seed in keys.identity.seeds:
        assert seed.hex() not in done.out + done.err


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_passphrase_from_stdin_or_a_file(run: Keygen, ending: str) -> None:
    minted = run("--client", "--passphrase-file", "-", stdin=PASSPHRASE + ending)
    assert PASSPHRASE not in minted.out + minted.err
    assert read_identity(run.directory / "client.keys", PASSPHRASE.encode).invite.text == minted.fields["invite"]
    (run.directory / "passphrase").write_text(PASSPHRASE + ending, newline="")
    assert run("--public", "client.keys", "--passphrase-file", "passphrase").fields == minted.fields


def test_a_passphrase_that_is_wrong_or_missing(run: Keygen) -> None:
    write_identity(run.directory / "c.keys", ClientKeys(ALICE), passphrase=PASSPHRASE.encode(), cost=CHEAP)
    wrong = run.refused("--public", "c.keys", "--passphrase-file", "-", stdin="something else")
    assert "the passphrase of c.keys is wrong, or the file has been changed" in wrong
    assert "something else" not in wrong
    for arguments in (["--public", "c.keys"], ["--public", "c.keys", "--passphrase"], ["--client", "--passphrase"]):
        assert "no terminal to ask" in run.refused(*arguments, stdin=PASSPHRASE + "\n")


# --- On a terminal --------------------------------------------------------------------------------------------------

# The terminal must be the one that controls the process: getpass opens /dev/tty. And a test run in the background of a
# shell inherits that SIGINT is ignored.
TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def typed(run: Keygen, *arguments: str, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run on a terminal, type each answer after its prompt, and return the status and all that the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *BY_MODULE, *arguments],
        cwd=run.directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        for prompt, answer in answers:
            while not shown.endswith(prompt.encode()):
                shown += os.read(ours, 1024)
            os.write(ours, answer.encode())
        while True:
            try:
                more = os.read(ours, 1024)
            except OSError:  # so says Linux when the other side is closed
                break
            if not more:
                break
            shown += more
    finally:
        os.close(ours)
        status = process.wait(timeout=60)
    return status, shown.decode()


def test_typing_a_passphrase(run: Keygen) -> None:
    answers = [("Passphrase: ", PASSPHRASE + "\n"), ("Once more: ", PASSPHRASE + "\n")]
    status, shown = typed(run, "--client", "--passphrase", answers=answers)
    assert status == 0
    assert PASSPHRASE not in shown
    keys = read_identity(run.directory / "client.keys", PASSPHRASE.encode)
    assert keys.invite.text in shown
    for asked in ([], ["--passphrase"]):
        status, shown = typed(run, "--public", "client.keys", *asked, answers=answers[:1])
        assert status == 0
        assert keys.invite.text in shown


@pytest.mark.parametrize(
    ("answers", "status", "why"),
    [
        ([("Passphrase: ", "one\n"), ("Once more: ", "other\n")], 2, "the two passphrases differ"),
        ([("Passphrase: ", "\n"), ("Once more: ", "\n")], 2, "the passphrase is empty"),
        ([("Passphrase: ", "\x04")], 2, "no terminal to ask"),
        ([("Passphrase: ", "\x03")], 130, "interrupted"),
    ],
)
def test_typing_it_wrong(run: Keygen, answers: list[tuple[str, str]], status: int, why: str) -> None:
    done, shown = typed(run, "--client", "--passphrase", answers=answers)
    assert done == status
    assert f"blindrelay-keygen: {why}" in shown.replace("there is ", "")
    assert run.content() == {}


def test_nobody_is_asked_for_the_passphrase_of_a_file_that_is_not_written(run: Keygen) -> None:
    run("--client")
    status, shown = typed(run, "--client", "--passphrase", answers=[])
    assert status == 2
    assert "exists" in shown


# --- Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--url", "https://h/"], "must begin with ws:// or wss://"),
        (["--url", ""], "address is missing"),
        (["--notifier-id", "7a1a"], "--notifier-id must be 16 hex digits"),
        (["--notifier-id", "7a1a4e709bf085a "], "--notifier-id must be 16 hex digits"),
        (["--notifier-id", "0000000000000000"], "must not be all zeros"),
        (["--nickname", "Alice"], "--nickname does not go with a relay's keys"),
        (["--passphrase"], "--passphrase does not go with a relay's keys"),
        (["--passphrase-file", "f"], "--passphrase-file does not go with a relay's keys"),
        (["--client", "--url", DEFAULT_URL], "--url does not go with --client"),
        (["--client", "--notifier-id", "7a1a4e709bf085ac"], "--notifier-id does not go with --client"),
        (["--client", "--nickname", "a" * 257], "the nickname has 257 bytes"),
        (["--client", "--public", "f"], "not allowed with argument"),
        (["--client", "--passphrase", "--passphrase-file", "f"], "not allowed with argument"),
        (["--client", "--passphrase-file", "absent"], "cannot read the passphrase from absent: No such file"),
        (["--client", "--passphrase-file", "."], "cannot read the passphrase from .: Is a directory"),
        (["--client", "--passphrase-file", "-"], "the passphrase is empty"),
        (["--public", "absent"], "there is no key file absent"),
        (["--public", "."], ". is not a regular file"),
        (["--public", "f", "--out", "g"], "--out does not go with --public"),
        (["--public", "f", "--force"], "--force does not go with --public"),
        (["--out"], "expected one argument"),
        (["--out", "/"], "cannot write /"),
        (["--pub", "f"], "there is no option --pub"),
        (["--client", "--passphrase", "hunter2"], "an argument without an option before it"),
        (["--client", "--passphrase=hunter2"], "takes no value"),
        (["--client", "--pass=hunter2"], "there is no option --pass"),
    ],
)
def test_arguments_that_are_refused(run: Keygen, arguments: list[str], why: str) -> None:
    error = run.refused(*arguments)
    assert why in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("stdin", "why"),
    [("\n", "empty"), ("a" * 4097, "longer than 4096 bytes"), ("ä" * 3000, "not UTF-8|longer than 4096 bytes")],
)
def test_passphrases_that_are_refused(run: Keygen, stdin: str, why: str) -> None:
    error = run.refused("--client", "--passphrase-file", "-", stdin=stdin)
    assert any(part in error for part in why.split("|"))
    assert stdin[:20].strip("\n") not in error or not stdin.strip()


def test_a_url_for_a_client_file(run: Keygen) -> None:
    write_identity(run.directory / "c.keys", ClientKeys(ALICE))
    assert "--url goes with a relay's keys" in run.refused("--public", "c.keys", "--url", DEFAULT_URL)


def test_a_key_file_that_is_open_to_others(run: Keygen) -> None:
    path = run.directory / "r.keys"
    write_server_keys(path, ServerKeys(SERVER))
    path.chmod(0o644)
    error = run.refused("--public", "r.keys")
    assert error.endswith("close it with: chmod 600 r.keys\n")
    for seed in SERVER.seeds:
        assert seed.hex() not in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_what_cannot_be_printed(run: Keygen) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*BY_MODULE, "--out", str(run.directory / "r.keys")],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.endswith("blindrelay-keygen: cannot print: No space left on device\n")
    assert done.stderr.count("\n") == 2  # and where the keys are
    assert run("--public", "r.keys").status == 0


def test_help(run: Keygen) -> None:
    done = run("--help")
    assert done.status == 0
    assert DEFAULT_URL in done.out
    for option in ("--out", "--force", "--public", "--client", "--nickname", "--passphrase", "--notifier-id", "--url"):
        assert option in done.out


def test_main_returns_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert keygen.main([]) == 0
    assert tomllib.loads(capsys.readouterr().out)["relay_card"].startswith("R0")
    assert keygen.main([]) == 2
    assert capsys.readouterr().err.startswith("blindrelay-keygen: relay.keys exists")


def test_no_process_shows_a_passphrase(run: Keygen) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("needs /proc")
    process = subprocess.Popen(
        [*BY_MODULE, "--client", "--passphrase-file", "-"],
        cwd=run.directory,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    assert process.stdin is not None
    process.stdin.write(PASSPHRASE)
    process.stdin.close()
    seen = b""
    while process.poll() is None:
        for file in ("cmdline", "environ"):
            try:
                seen += Path(f"/proc/{process.pid}/{file}").read_bytes()
            except OSError:
                break
        time.sleep(0.01)
    assert process.returncode == 0
    assert PASSPHRASE.encode() not in seen


# --- The launcher ---------------------------------------------------------------------------------------------------


def test_the_launcher_through_a_link_and_beside_misleading_names(run: Keygen) -> None:
    (run.directory / "keys").mkdir()
    (run.directory / "keys" / "__init__.py").write_text("raise SystemExit('not this one')")
    (run.directory / "link").symlink_to(BY_SCRIPT[0])
    assert run("--out", "a b.keys", program=["./link"]).status == 0
    assert (run.directory / "a b.keys").is_file()


def test_the_launcher_without_a_venv_takes_python3(tmp_path: Path) -> None:
    root = tmp_path / "a project"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(BY_SCRIPT[0], root / "scripts" / "keygen")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "python3").write_text('#!/bin/sh\necho "$PYTHONPATH|$*"\n')
    (bin_ / "python3").chmod(0o755)
    environ = {"PATH": f"{bin_}:{os.environ['PATH']}"}

    def launched() -> str:
        command = [str(root / "scripts" / "keygen"), "--out", "a b"]
        return subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", check=True).stdout

    assert launched() == f"{root}|-P -m keys.keygen --out a b\n"
    (root / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(bin_ / "python3", root / ".venv" / "bin" / "python")
    (bin_ / "python3").write_text("#!/bin/sh\nexit 1\n")
    assert launched() == f"{root}|-P -m keys.keygen --out a b\n"
