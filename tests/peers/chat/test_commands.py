"""Commands that need no relay: their exit statuses, what they print, and what they refuse."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from keys.files import ClientKeys
from keys.identity import Identity, PublicIdentity
from keys.invite import Invite, RelayCard
from peers.chat import cli
from peers.chat.__main__ import main
from peers.chat.commands.frame import app
from peers.chat.exits import Exit
from peers.profile import Profile
from tests.peers.chat.user import ROOT, User

if TYPE_CHECKING:
    from pathlib import Path

CARD = RelayCard(Identity.generate().public, "ws://127.0.0.1:9/ws")  # nothing listens on the discard port


class Here:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        out, err = self._capsys.readouterr()
        return status, out, err

    def record(self, *arguments: str) -> dict[str, Any]:
        status, out, err = self(*arguments, "--json")
        assert (status, err) == (0, "")
        value: dict[str, Any] = json.loads(out)
        return value

    def records(self, *arguments: str) -> list[dict[str, Any]]:
        status, out, err = self(*arguments, "--json")
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    def error(self, *arguments: str) -> tuple[int, str]:
        """The status and the one line of a command that fails."""
        status, out, err = self(*arguments)
        assert out == ""
        assert err.startswith("blindrelay-chat: ")
        assert err.count("\n") == 1
        return status, err


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    for name in list(os.environ):
        if name.startswith("BLINDRELAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BLINDRELAY_HOME", str(tmp_path / "home"))
    return Here(capsys)


@pytest.fixture
def mine(here: Here) -> Here:
    """With a profile and a contact, Bob, whom nobody has told."""
    here.record("init", "--relay", CARD.text, "--name", "Alice")
    here.record("add", invite("Bob"), "--timeout", "0")
    return here


def invite(nickname: str = "") -> str:
    return ClientKeys(Identity.generate(), nickname).invite.text


# --- Profiles ---------------------------------------------------------------------------------------------------------


def test_init_makes_a_profile_that_nobody_else_can_read(here: Here, tmp_path: Path) -> None:
    made = here.record("-p", "work", "init", "--relay", CARD.text, "--name", "Alice")
    directory = tmp_path / "home" / "profiles" / "work"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert Invite.parse(made["invite"]).nickname == "Alice"
    assert made["relay"] == CARD.url
    me = here.record("me", "--profile", "work")
    assert me == made
    assert re.fullmatch(r"\d{30}", me["fingerprint"])
    assert here.records("profiles") == [{"profile": "work", "directory": str(directory), "used": False}]

    status, out, err = here("-p", "work", "me", "--qr")
    assert (status, err) == (0, "")
    assert me["invite"] in out
    assert "█" in out
    assert "█" not in here("-p", "work", "me")[1]  # stdout is no terminal
    assert here("-p", "work", "-q", "me")[1] == me["invite"] + "\n"


def test_init_never_replaces(here: Here) -> None:
    before = here.record("init", "--relay", CARD.text)
    status, text = here.error("init", "--relay", CARD.text)
    assert status == Exit.USAGE
    assert "exists" in text
    assert here.record("me") == before


def test_init_wants_a_whole_relay(here: Here, tmp_path: Path) -> None:
    x_pub, ed_pub = CARD.public.x_pub.hex(), CARD.public.ed_pub.hex()
    for arguments in (
        (),
        ("--url", CARD.url),
        ("--url", CARD.url, "--x-pub", x_pub),
        ("--relay", CARD.text, "--url", CARD.url),
        ("--relay", "R0nonsense"),
        ("--relay", invite()),
        ("--url", "http://relay.example", "--x-pub", x_pub, "--ed-pub", ed_pub),
        ("--url", CARD.url, "--x-pub", "zz", "--ed-pub", ed_pub),
        ("--url", CARD.url, "--x-pub", "00" * 32, "--ed-pub", ed_pub),
        ("--relay", CARD.text, "--token-file", str(tmp_path / "none")),
        ("--relay", CARD.text, "--name", "x" * 257),
    ):
        assert here.error("init", *arguments)[0] == Exit.USAGE, arguments
        assert here.records("profiles") == []
    made = here.record("init", "--url", CARD.url, "--x-pub", x_pub, "--ed-pub", ed_pub.upper())
    assert made["relay"] == CARD.url
    assert Profile.locate().settings().relay == CARD


def test_a_token_that_cannot_be_used_is_told(here: Here, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("too short")
    token.chmod(0o600)
    status, out, err = here("init", "--relay", CARD.text, "--token-file", str(token))
    assert status == 0
    assert "K0" in out
    assert "its token cannot be used yet" in err
    token.write_text("a-token-that-is-long-enough\n")
    assert Profile.locate().read_token() == "a-token-that-is-long-enough"


def test_a_sealed_profile(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    monkeypatch.setenv("BLINDRELAY_PASSPHRASE_FILE", str(secret))
    made = here.record("init", "--relay", CARD.text, "--passphrase")
    assert here.record("me") == made
    secret.write_text("wrong\n")
    status, text = here.error("me")
    assert status == Exit.USAGE
    assert "passphrase" in text
    assert "wrong\n" not in text
    monkeypatch.delenv("BLINDRELAY_PASSPHRASE_FILE")
    assert here.records("contacts") == []  # the store is not sealed, so nobody is asked


def test_no_profile(here: Here) -> None:
    for arguments in (("me",), ("status",), ("contacts",), ("send", "bob", "hello"), ("listen",), ("history", "bob")):
        status, text = here.error("--profile", "nobody", *arguments)
        assert status == Exit.NOT_FOUND
        assert "blindrelay-chat --profile nobody init" in text
    assert here.error("--profile", "../etc", "me")[0] == Exit.USAGE
    assert here("profiles") == (0, "", "There is no profile yet: blindrelay-chat init --relay R0…\n")


def test_status_of_a_profile_at_rest(mine: Here) -> None:
    mine.record("send", "Bob", "hello", "--wait", "stored")
    status = mine.record("status")
    assert (status["carried"], status["connection"], status["text"]) == (False, "closed", "")
    assert (status["unacknowledged"], status["unread"]) == (1, 0)
    with Profile.locate().lock():
        assert mine.record("status")["carried"] is True
    assert "no program of this profile runs" in mine("status")[1]


# --- Contacts ---------------------------------------------------------------------------------------------------------


def test_contacts(mine: Here) -> None:
    again = mine.record("add", invite("Bob"), "--timeout", "0")
    assert again["label"] == "Bob-2"
    link = "https://chat.example/#?peer=" + invite("C")
    assert mine.record("add", link, "--label", "Carol", "--timeout", "0")["label"] == "Carol"
    assert [row["label"] for row in mine.records("contacts")] == ["Bob", "Bob-2", "Carol"]
    status, text = mine.error("verify", "bo")
    assert status == Exit.USAGE
    assert "Bob, Bob-2" in text
    assert mine.record("rename", "bob-2", "Robert")["label"] == "Robert"
    assert mine.error("rename", "Robert", "carol")[0] == Exit.USAGE
    assert mine.record("block", "rob")["blocked"] is True
    assert mine.error("send", "Robert", "hello")[0] == Exit.USAGE
    assert mine.record("unblock", "rob")["blocked"] is False
    assert mine.error("remove", "rob")[0] == Exit.USAGE  # nobody can be asked
    assert mine.record("remove", "rob", "--yes") == {
        "label": "Robert",
        "peer_id": again["peer_id"],
        "removed": True,
    }
    assert mine.error("rename", "Robert", "x")[0] == Exit.NOT_FOUND
    out = mine("contacts")[1]
    assert [line.split("\t")[:2] for line in out.splitlines()] == [["Bob", "invited"], ["Carol", "invited"]]


def test_add_refuses(mine: Here) -> None:
    for bad in ("K0", "nonsense", CARD.text, mine.record("me")["invite"], ""):
        assert mine.error("add", bad)[0] == Exit.USAGE, bad
    taken = invite("Bob")
    assert mine.error("add", taken, "--label", "bob")[0] == Exit.USAGE
    bob = mine.record("contacts")["peer_id"]
    poser = _with_id(bytes.fromhex(bob))
    assert "other keys" in mine.error("add", poser)[1]
    assert len(mine.records("contacts")) == 1


def _with_id(peer_id: bytes) -> str:
    """An invite whose keys are others, under an id that is taken."""
    for count in range(256):
        try:
            public = PublicIdentity(peer_id + bytes([count]) + bytes(23), Identity.generate().public.ed_pub)
            return Invite(public, "Bob").text
        except ValueError:
            continue
    raise AssertionError("no such key")


# --- What was said ----------------------------------------------------------------------------------------------------


def test_texts_from_stdin_and_from_arguments(mine: Here, tmp_path: Path) -> None:
    alice = User(tmp_path / "home", "default")
    send = ("send", "Bob", "--wait", "stored", "--json")
    for given, stored in (
        ("hello\n", "hello"),
        ("two\nlines\n\n", "two\nlines\n"),
        ("  kept  \r\n", "  kept  "),
        ("ünïcödé 👩‍👩‍👧", "ünïcödé 👩‍👩‍👧"),
        ("x" * 65536 + "\n", "x" * 65536),
    ):
        assert alice.does(*send, stdin=given).record["text"] == stored
        assert alice.does(*send, "-", stdin=given).record["text"] == stored
    for bad in (b"", b"\n", b" \n", b"x" * 65537, b"\xff\xfe", ("é" * 100_000).encode()):
        refused = alice.run(*send, stdin=bad)
        assert (refused.status, refused.out) == (2, ""), bad[:9]
        assert refused.error["exit"] == 2
    status, out, _ = mine("send", "Bob", "--wait", "stored", "--json", "--", "--quiet")
    assert (status, json.loads(out)["text"]) == (0, "--quiet")


def test_history_search_edit_delete(mine: Here) -> None:
    ids = [mine.record("send", "Bob", f"number {n}", "--wait", "stored")["id"] for n in range(5)]
    texts = [m["text"] for m in mine.records("history", "bob", "--limit", "2")]
    assert texts == ["number 3", "number 4"]
    assert [m["id"] for m in mine.records("history", "bob", "--before", str(ids[2]))] == ids[:2]
    assert [m["text"] for m in mine.records("search", "numb", "3")] == ["number 3"]
    assert mine.records("search", "nothing") == []
    assert mine.records("search", '"', "*", "AND") == []
    assert len(mine.records("search", "number", "--peer", "bob", "--limit", "3")) == 3

    assert mine.record("edit", str(ids[0]), "number zero")["text"] == "number zero"
    gone = mine.record("delete", str(ids[1]))
    assert (gone["text"], gone["deleted_at"] is None) == ("", False)
    out = mine("history", "bob")[1]
    assert "number zero (edited)" in out
    assert "(deleted)" in out
    for arguments in (("edit", "999", "x"), ("delete", "999"), ("edit", str(ids[1]), "back")):
        assert mine.error(*arguments)[0] == Exit.NOT_FOUND
    for arguments in (
        ("edit", "x", "x"),
        ("delete", "0"),
        ("history", "bob", "-n0"),
        ("edit", str(ids[0]), " "),
    ):
        assert mine.error(*arguments)[0] == Exit.USAGE, arguments


def test_quiet_prints_what_was_asked_for_only(mine: Here) -> None:
    assert mine("send", "Bob", "hello", "--wait", "stored", "-q") == (0, "", "")
    assert mine("-q", "rename", "Bob", "Robert") == (0, "", "")
    assert mine("-q", "add", invite("C"), "--timeout", "0") == (0, "", "")
    assert "hello" in mine("-q", "history", "Robert")[1]
    assert mine("-q", "history", "Bob")[2].startswith("blindrelay-chat: ")


# --- Usage ------------------------------------------------------------------------------------------------------------


def test_wrong_usage(here: Here) -> None:
    for arguments in (
        (),
        ("nonsense",),
        ("send",),
        ("file",),
        ("init", "--nonsense"),
        ("send", "bob", "--wait", "soon"),
        ("-p",),
    ):
        assert here.error(*arguments)[0] == Exit.USAGE, arguments
    status, out, err = here("history", "--json")
    assert (status, out) == (2, "")
    assert json.loads(err)["exit"] == 2
    # What stands after -- are words, and no options.
    assert here("nonsense", "--", "--json")[2].startswith("blindrelay-chat: ")


def test_errors_are_one_line_whatever_is_named(mine: Here) -> None:
    evil = "x\x1b[31m\nblindrelay-chat: all is well\u202e"
    for arguments in (("history", evil), (evil,), ("init", "--name", evil), ("-p", evil, "me"), ("edit", evil, "x")):
        status, text = mine.error(*arguments)
        assert status in (2, 3)
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_every_command_has_help_and_the_common_options() -> None:
    runner = CliRunner()
    listing = runner.invoke(app, ["--help"], env={"NO_COLOR": "1", "COLUMNS": "200"}).output
    names = re.findall(r"^│ ([a-z]+) ", listing, re.MULTILINE)
    assert {"init", "me", "add", "contacts", "send", "listen", "history", "search", "verify", "status"} <= set(names)
    groups = {"file": ["send", "list", "save", "accept", "refuse", "cancel"]}
    groups["mailbox"] = ["add", "list", "remove", "status"]
    inner = [[group, name] for group, names_in in groups.items() for name in names_in]
    for words in [[name] for name in names if name not in groups] + inner:
        told = runner.invoke(app, [*words, "--help"], env={"NO_COLOR": "1", "COLUMNS": "200"})
        assert told.exit_code == 0
        assert all(option in told.output for option in ("--profile", "--json", "--quiet")), words
    sending = runner.invoke(app, ["send", "--help"], env={"NO_COLOR": "1", "COLUMNS": "200"}).output
    assert "stdin" in sending
    assert "Everybody on this machine can see the arguments" in sending


def test_what_is_missing_is_named() -> None:
    for missing in ("typer", "platformdirs"):
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from peers.chat.__main__ import main; sys.exit(main(['profiles']))"
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BLINDRELAY_")}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert "blindrelay[chat]" in done.stderr
        assert done.stderr.count("\n") == 1


def test_light_commands_import_nothing_heavy() -> None:
    """A cold start is what a script pays for each message."""
    code = (
        "import sys\nfrom peers.chat.cli import run\nimport peers.chat.session, peers.chat.commands.waiting\n"
        "print([name for name in ('rich', 'textual', 'mcp', 'segno', 'uvloop', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_bug_is_told_in_one_line(mine: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("peers.store.contacts.find", broken)
    status, text = mine.error("history", "bob")
    assert status == Exit.UNEXPECTED
    assert "ZeroDivisionError" in text
    assert "secret" not in text
    monkeypatch.setenv("BLINDRELAY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["history", "bob"])


def test_flags_do_not_look_as_if_they_took_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["send"], ["file", "list"]):
        assert cli.run([*words, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "--json" in shown
        assert "bool" not in shown
