"""What peers call themselves and write, in the hands of a terminal, a pipe and a shell."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import unicodedata
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from keys.invite import BIDI_CONTROLS, RelayCard
from peers.profile import Profile
from peers.store import contacts, messages, open_store
from tests.peers.chat.user import ROOT, User

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peers.store.contacts import ContactRow

NOW = 1_700_000_000_000
EVIL_NAME = "Eve\x1b]0;owned\x07\x1b[2J\u202e[red]x[/red]\u2028\n:skull:\x9b31m"
EVIL_TEXT = "first\x1b[31m[bold]\u202elast\r\x00\x9b2J\n" + (
    "    1  2026-01-01 12:00  Bob: all is well\nblindrelay-chat: done\u2029end\x85"
)
RUN = (
    "$(touch owned)",
    "\\$(touch owned)",
    "`touch owned`",
    "x;touch owned",
    "'$(touch owned)'",
    "))'; touch owned; '((",
)
UNSAFE_LABELS = (*RUN, "a b", "'", '"', "-rf", "a:b", "[red]", "~", "*", "%s")


@pytest.fixture
def alice(user: Callable[[str], User]) -> User:
    """With a profile whose relay does not answer."""
    made = user("alice")
    made.does("init", "--relay", RelayCard(Identity.generate().public, "ws://127.0.0.1:9/ws").text)
    return made


def knows(alice: User, *nicknames: str, says: str | None = None) -> list[ContactRow]:
    async def write() -> list[ContactRow]:
        async with open_store(Profile.locate("alice", alice.environment()).store_path) as store:
            rows = []
            for count, nickname in enumerate(nicknames):
                public = Identity.generate().public
                rows.append(await store.write(contacts.add, NOW, public, nickname=nickname, origin="introduction"))
                if says is not None:
                    await store.write(messages.receive, NOW, rows[-1].id, bytes([count]) * 16, says)
            return rows

    return asyncio.run(write())


def harmless(text: str) -> bool:
    acting = {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in BIDI_CONTROLS}
    return acting <= {"\n"}


def test_piped(alice: User) -> None:
    [eve] = knows(alice, EVIL_NAME, says=EVIL_TEXT)
    listing = alice.does("contacts").out
    assert harmless(listing.replace("\t", ""))
    assert listing.count("\n") == 1
    assert "[red]x[/red]" in listing
    assert ":skull:" in listing
    for arguments in (("history", eve.public.id.hex()), ("search", "well"), ("listen", "--since", "0", "--once")):
        out = alice.does(*arguments).out
        assert harmless(out), arguments
        assert "[bold]last" in out
        # No line of a text begins where lines of ours do.
        own, *rest = out.splitlines()[-5 if arguments[0] == "listen" else 0 :]
        assert "first" in own
        assert rest
        assert all(line.startswith("    ") for line in rest), arguments
        assert not any(re.match(r" {4}1  2026|blindrelay", line) for line in rest)


def test_json(alice: User) -> None:
    """Exactly what was written, and nothing that acts."""
    [eve] = knows(alice, EVIL_NAME, says=EVIL_TEXT)
    history = alice.does("history", eve.public.id.hex(), "--json")
    assert history.record["text"] == EVIL_TEXT
    listing = alice.does("contacts", "--json")
    assert listing.record["nickname"] == EVIL_NAME
    listened = alice.does("listen", "--since", "0", "--once", "--json")
    assert listened.records[-1]["text"] == EVIL_TEXT
    for out in (history.out, listing.out, listened.out):
        assert out.isascii()
        assert harmless(out)


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_at_a_terminal(alice: User, columns: int) -> None:
    knows(alice, EVIL_NAME, "日本語の名前がとても長い場合はどうなるのか" * 3, says=EVIL_TEXT)
    seen = alice.at_terminal("contacts", columns=columns)
    assert seen.status == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", seen.out)  # the colours of the heads are ours
    assert harmless(plain)
    assert "\x1b" in seen.out
    for line in plain.splitlines():
        assert sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line) <= columns
    assert "Eve" in plain
    if columns == 200:
        assert "[red]x[/red]" in plain
        assert ":skull:" in plain
    plain = alice.at_terminal("contacts", columns=columns, NO_COLOR="1").out
    assert set(re.findall(r"\x1b\[[\d;]*m", plain)) <= {"\x1b[1m", "\x1b[0m"}  # bold is no colour
    assert harmless(alice.at_terminal("history", "eve", columns=columns).out)


def test_no_colour_when_piped(alice: User) -> None:
    knows(alice, "Eve", says="hello")
    for arguments in (("contacts",), ("history", "Eve"), ("--help",), ("me",), ("status",), ("nonsense",)):
        done = alice.run(*arguments)
        assert "\x1b" not in done.out + done.err, arguments


# --- Completion -------------------------------------------------------------------------------------------------------


def complete(alice: User, shell: str, *words: str) -> list[str]:
    line = " ".join(("blindrelay-chat", *words))
    done = alice.run(
        _BLINDRELAY_CHAT_COMPLETE=f"complete_{shell}",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words)),
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert (done.status, done.err) == (0, "")
    return done.out.strip().splitlines()


def test_labels_are_completed(alice: User) -> None:
    knows(alice, "Bob", "Bert", "Zoë", "carol@home")
    assert complete(alice, "bash", "send", "B") == ["Bert", "Bob"]
    assert complete(alice, "bash", "history", "Z") == ["Zoë"]
    assert complete(alice, "fish", "listen", "--from", "car") == ["carol@home"]
    assert complete(alice, "bash", "search", "words", "--peer", "Be") == ["Bert"]
    assert complete(alice, "bash", "--profile", "nobody", "send", "B") == []
    assert complete(alice, "bash", "send", "B", "--profile", "") == ["alice"]
    assert complete(alice, "bash", "--profile", "") == ["alice"]


def test_nothing_is_completed_that_a_shell_acts_on(alice: User) -> None:
    rows = knows(alice, *UNSAFE_LABELS)
    for shell in ("bash", "zsh", "fish"):
        lines = complete(alice, shell, "send", "")
        assert len(lines) == len(rows)
        frame = r"(?:_arguments '\*: :\(\()?(.*?)(?:\)\)')?"  # zsh's
        for line in lines:
            word = re.fullmatch(frame, line)
            assert word
            # An id, and beside it what is left of the label.
            assert re.fullmatch(r'[0-9a-f]{16}(?:\t[\w.@+-]+)?|"[0-9a-f]{16}":"[\w.@+-]+"', word[1]), (shell, line)
    one = rows[0].public.id.hex()
    assert complete(alice, "bash", "send", one[:6]) == [one]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_what_bash_makes_of_it(alice: User, tmp_path: Path) -> None:
    knows(alice, *UNSAFE_LABELS, "Bob")
    # Without the variable typer takes the shell from which the tests were started.
    script = alice.does("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").out
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program = bin_ / "blindrelay-chat"
    program.write_text(f'#!/bin/sh\nexec {" ".join(alice.command())} "$@"\n')
    program.chmod(0o755)
    name = re.search(r"-F (\S+) ", script)
    assert name
    asked = f"{script}\nCOMP_WORDS=(blindrelay-chat send B); COMP_CWORD=2; {name[1]} blindrelay-chat\n"
    asked += 'printf "%s\\n" "${COMPREPLY[@]}"\nCOMP_WORDS=(blindrelay-chat send ""); '
    asked += f'{name[1]} blindrelay-chat\nprintf "%s\\n" "${{#COMPREPLY[@]}}"'
    path = f"{bin_}:{alice.environment()['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", asked],
        env=alice.environment(PATH=path, PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["Bob", str(len(UNSAFE_LABELS) + 1)], done.stderr
    assert not (tmp_path / "owned").exists()


def test_completion_makes_nothing(alice: User) -> None:
    """Neither a store nor a word of complaint."""
    path = Profile.locate("alice", alice.environment()).store_path
    path.unlink(missing_ok=True)
    assert complete(alice, "bash", "send", "") == []
    assert not path.exists()
    path.write_text("no data base")
    assert complete(alice, "bash", "send", "") == []
