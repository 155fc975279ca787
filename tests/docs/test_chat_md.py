"""docs/chat.md held against the program: its commands, records, exit statuses and files, and its first conversation."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from keys.identity import PublicIdentity
from keys.invite import RelayCard
from keys.safety import grouped, safety_number
from peers.chat.cli import run as _registers  # noqa: F401
from peers.chat.commands.frame import app
from peers.chat.exits import Exit
from peers.chat.views import contact_record, message_record
from peers.profile import Profile, ProfileSettings
from peers.store.contacts import ContactRow
from peers.store.feed import Kind
from peers.store.message_rows import MessageRow, State
from tests.docs import markdown
from tests.keys.known import BOB
from tests.peers.chat.user import User
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (markdown.ROOT / "docs" / "chat.md").read_text()
PROGRAM = "blindrelay-chat"


def command_names() -> set[str]:
    root: Any = typer.main.get_command(app)
    names = set()
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        names |= {name} if inner is None else {f"{name} {each}" for each in inner}
    return names


def options_of(words: list[str]) -> set[str]:
    command: Any = typer.main.get_command(app)
    options = {option for each in command.params for option in each.opts}
    for word in words:
        inner = getattr(command, "commands", {}).get(word)
        if inner is not None:
            command = inner
            options |= {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    return options


def test_every_command_is_told() -> None:
    told = set()
    for row in markdown.rows(TEXT, "command", "what it does"):
        for words in re.findall(r"`([^`]+)`", row["command"]):
            told.add(" ".join(word for word in words.split() if word.islower()))
    assert told == command_names()


def commands() -> list[list[str]]:
    found = []
    for block in markdown.blocks(TEXT):
        for line in block.lines if block.language == "sh" else ():
            for part in line.split("|"):
                words = shlex.split(part, comments=True)
                if PROGRAM in words[:1]:
                    found.append(words[1:])
    return found


def test_options_that_are_told_exist() -> None:
    every: set[str] = set()
    for name in command_names():
        every |= options_of(name.split())
    for option in set(re.findall(r"`[^`\n]*?(--[a-z-]+)[^`\n]*`", TEXT)):
        assert option in every | {"--install-completion", "--help"}, option
    assert len(commands()) >= 9
    for words in commands():
        for word in words:
            assert not word.startswith("--") or word in options_of(words) | {"--install-completion"}, words


def test_exit_statuses() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == [int(status) for status in Exit]


def test_records_have_the_keys_that_are_shown() -> None:
    shown = [json.loads("\n".join(b.lines)) for b in markdown.blocks(TEXT) if b.language == "json"]
    message, contact = shown
    assert list(message) == list(_names_in(message_record))
    assert list(contact) == [*_names_in(contact_record), "unread", "last_message"]
    section = TEXT.partition("## JSON")[2].partition("## Exit statuses")[0]
    told = set(re.findall(r"`([a-z_]+)`", section))
    assert set(Kind) <= told
    assert {state.name.lower() for state in State} <= told | set(re.findall(r"`([a-z]+)` \(", TEXT))


def _names_in(function: Any) -> list[str]:
    """The keys of a record, from one that is made."""
    given: dict[str, Any] = {"public": BOB.public, "label": "Bob", "nickname": "Bob", "origin": "invite"}
    given |= {"id": 1, "kind": "text", "text": "x", "at": 0, "state": State.SENT, "outgoing": True}

    def made(kind: Any) -> Any:
        return kind(**{field.name: given.get(field.name) for field in fields(kind)})

    row, message = made(ContactRow), made(MessageRow)
    return list(function(row) if function is contact_record else function(message, row))


def test_the_files_of_a_profile(tmp_path: Path) -> None:
    profile = Profile("x", tmp_path)
    for path in (profile.identity_path, profile.settings_path, profile.store_path, profile.lock_path):
        assert f"| `{path.name}` |" in TEXT
    assert f"| `{profile.files_path.name}/` |" in TEXT
    for setting in fields(ProfileSettings):
        assert setting.name == "relay" or f"`{setting.name}`" in TEXT


def test_the_vector() -> None:
    keys = [bytes.fromhex(key) for key in re.findall(r"_pub ([0-9a-f]{64})", TEXT)]
    alice, bob = PublicIdentity(*keys[:2]), PublicIdentity(*keys[2:])
    assert f"number {grouped(safety_number(bob, alice))}\n" in TEXT


def test_the_first_conversation(tmp_path: Path) -> None:
    """As it is told, but for the screen, and for the words that stand in for keys."""
    relay = RelayProcess(tmp_path)
    try:
        bob, alice, invite = User(tmp_path, "default"), User(tmp_path, "default"), ""
        told = [words for words in commands() if words[:1] == ["--profile"]]
        assert [words[2] for words in told] == [
            "init",
            "listen",
            "init",
            "add",
            "send",
            "verify",
            "open",
            "export",
            "import",
        ]
        card = RelayCard(relay.public, relay.url).text

        def real(words: list[str]) -> list[str]:
            stand_in = {"R0…": card, "K0…": invite, "alice.backup": str(tmp_path / "alice.backup")}
            return [stand_in.get(word, word) for word in words]

        bob.does(*real(told[0]))
        invite = bob.does("--profile", "bob", "me", "--json").record["invite"]
        with bob.starts(*told[1], "--all") as ears:
            next(line for line in ears.lines() if line.endswith("connected"))
            alice.does(*real(told[2]))
            assert "added Bob (invited); introduction sent" in alice.does(*real(told[3])).out
            assert "delivered" in alice.does(*real(told[4])).out
            lines = ears.lines()
            assert next(line for line in lines if "new contact" in line).endswith("Alice is a new contact (unverified)")
            assert next(line for line in lines if "Hello" in line).endswith("Alice: Hello, Bob")
            assert "Bob is invited" in alice.does(*real(told[5])).out
        secret = tmp_path / "passphrase"
        secret.write_text("correct horse")
        for words in told[7:]:
            alice.does(*real(words), BLINDRELAY_PASSPHRASE_FILE=str(secret))
        assert "Hello, Bob" in alice.does("--profile", "alice2", "history", "bob").out
    finally:
        relay.check()
