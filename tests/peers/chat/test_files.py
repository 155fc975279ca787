"""Files by ``blindrelay-chat file``: real processes, a real relay."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from keys.invite import BIDI_CONTROLS
from peers.profile import Profile
from tests.peers.chat.user import WAIT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.peers.chat.user import User
    from tests.support.relay_process import RelayProcess

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def pair(relay: RelayProcess, user: Callable[[str], User]) -> tuple[User, User]:
    """Alice and Bob, who know each other."""
    alice, bob = user("alice"), user("bob")
    alice.does("add", (bob.joins(relay, "Bob"), alice.joins(relay, "Alice"))[0])
    bob.does("add", alice.does("me", "--json").record["invite"])
    return alice, bob


def ask_always(person: User) -> None:
    path = Profile.locate(person.name, person.environment()).settings_path
    path.write_text(path.read_text().replace("auto_accept = 67108864", "auto_accept = 0"))


def test_a_file_from_one_to_the_other(pair: tuple[User, User], tmp_path: Path) -> None:
    alice, bob = pair
    content = os.urandom(300_000)
    path = tmp_path / "report.bin"
    path.write_bytes(content)
    early = alice.does("file", "send", "Bob", str(path), "--json").record
    assert (early["kind"], early["state"], early["peer_online"]) == ("file", "queued", False)
    assert early["file"]["state"] == "offered"
    assert early["file"] == {
        "name": "report.bin",
        "mime": "application/octet-stream",
        "size": 300_000,
        "moved": 0,
        "state": "offered",
        "reason": None,
    }
    with bob.starts("listen", "--json") as ears, alice.starts("listen"):
        assert ears.until("message")["file"]["name"] == "report.bin"
        come = ears.until("file", detail="done")
        assert (come["file"]["state"], come["file"]["moved"]) == ("done", 300_000)
        again = alice.does("file", "send", "Bob", str(path), "--name", "other.bin", "--json").record
        assert (again["state"], again["file"]["state"]) == ("delivered", "done")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name in ("report.bin", "report (2).bin"):
        saved = bob.does("file", "save", str(come["id"]), str(inbox), "--json").record
        assert saved == {"id": come["id"], "path": str(inbox / name), "size": 300_000}
        assert (inbox / name).read_bytes() == content
    assert bob.run("file", "save", str(come["id"]), str(inbox / "report.bin")).status == 2
    bob.does("file", "save", str(come["id"]), str(inbox / "report.bin"), "--overwrite")
    assert "report.bin" in bob.does("file", "list").out
    assert [r["file"]["name"] for r in bob.does("file", "list", "--json").records] == ["report.bin", "other.bin"]
    assert bob.does("file", "list", "--open", "--json").out == ""
    assert "file report.bin (293 KiB, here)" in bob.does("history", "Alice").out
    assert bob.run("file", "save", "999", str(inbox)).status == 3


def test_the_content_on_stdout(pair: tuple[User, User], tmp_path: Path) -> None:
    alice, bob = pair
    path = tmp_path / "text.txt"
    path.write_text("plain text\n")
    with bob.starts("listen", "--json", "--all") as ears:
        ears.until("connection", connection="connected")
        done = alice.does("file", "send", "Bob", str(path))
        assert "arrived" in done.out
        number = str(ears.until("file", detail="done")["id"])
    assert bob.does("file", "save", number, "-").out == "plain text\n"
    at_terminal = bob.at_terminal("file", "save", number, "-")
    assert at_terminal.status == 2
    assert "plain text" not in at_terminal.out


def test_asked_for_a_yes(pair: tuple[User, User], tmp_path: Path) -> None:
    alice, bob = pair
    ask_always(bob)
    path = tmp_path / "big"
    path.write_bytes(bytes(100_000))
    with bob.starts("listen", "--json") as ears, alice.starts("listen"):
        first = alice.does("file", "send", "Bob", str(path), "--no-wait", "--json").record
        assert first["file"]["state"] in ("offered", "moving")
        number = str(ears.until("file", detail="offered")["id"])
        late = alice.run("file", "send", "Bob", str(path), "--timeout", "0.5", "--json")
        assert (late.status, late.record["file"]["state"]) == (4, "offered")
        assert "waits to be accepted" in bob.does("file", "list").out
        assert bob.run("file", "save", number, str(tmp_path)).status == 2
        taken = bob.does("file", "accept", number, "--json").record
        assert taken["file"]["state"] == "done"

        other = str(ears.until("file", detail="offered")["id"])
        refused = bob.does("file", "refuse", other, "--json").record
        assert refused["file"]["state"] == "failed"
        assert bob.run("file", "accept", other).status == 2

        with alice.starts("file", "send", "Bob", str(path), "--json") as sending:
            third = ears.until("file", detail="offered")
            bob.does("file", "refuse", str(third["id"]))
            [told] = sending.records()
            assert sending.process.wait(WAIT) == 6
            assert (told["state"], told["file"]["state"]) == ("failed", "failed")
            assert "refused" in told["file"]["reason"]
            assert "refused" in sending.errors

        with alice.starts("file", "send", "Bob", str(path)) as sending:
            fourth = ears.until("file", detail="offered")
            mine = alice.does("file", "list", "--open", "--json").records[-1]
            alice.does("file", "cancel", str(mine["id"]))
            assert ears.until("file", detail="failed", id=fourth["id"])["file"]["state"] == "failed"
            assert sending.process.wait(WAIT) == 6


def test_interrupted_it_is_kept(pair: tuple[User, User], tmp_path: Path) -> None:
    alice, bob = pair
    ask_always(bob)
    path = tmp_path / "kept"
    path.write_bytes(bytes(50_000))
    with bob.starts("listen", "--json") as ears:
        with alice.starts("file", "send", "Bob", str(path), "--wait", "--json") as sending:
            number = str(ears.until("file", detail="offered")["id"])
            sending.process.send_signal(signal.SIGINT)
            assert sending.process.wait(WAIT) == 130
        with alice.starts("listen"):
            assert bob.does("file", "accept", number, "--wait", "--json").record["file"]["state"] == "done"


def test_what_cannot_be_sent(pair: tuple[User, User], tmp_path: Path) -> None:
    alice, _ = pair
    for path in (tmp_path / "none", tmp_path, tmp_path / "\x1b[31m"):
        refused = alice.run("file", "send", "Bob", str(path))
        assert (refused.status, refused.out) == (2, ""), path
        assert "\x1b" not in refused.err
    assert alice.does("file", "list").out == ""
    assert alice.run("file", "accept", "1").status == 3


def test_names_are_data(pair: tuple[User, User], tmp_path: Path) -> None:
    alice, bob = pair
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    path = tmp_path / "source"
    path.write_bytes(b"x")
    with bob.starts("listen", "--json", "--all") as ears:
        ears.until("connection", connection="connected")
        for evil in ("../../escape", "\x1b[31mred\u202etxt.exe", ".bashrc", "a\nb"):
            alice.does("file", "send", "Bob", str(path), "--name", evil)
            number = str(ears.until("file", detail="done")["id"])
            bob.does("file", "save", number, str(inbox))
    listing = bob.does("file", "list").out + bob.does("history", "Alice").out
    assert "\x1b" not in listing
    assert not BIDI_CONTROLS & set(listing)
    names = [p.name for p in inbox.iterdir()]
    assert len(names) == 4
    assert not any(name.startswith(".") or "/" in name or "\x1b" in name for name in names)


def test_progress_at_a_terminal(pair: tuple[User, User], tmp_path: Path) -> None:
    alice, bob = pair
    path = tmp_path / "moving"
    path.write_bytes(os.urandom(3_000_000))
    with bob.starts("listen", "--json", "--all") as ears:
        ears.until("connection", connection="connected")
        seen = alice.at_terminal("file", "send", "Bob", str(path))
        assert seen.status == 0
        assert "MiB" in seen.out
        assert seen.out.rstrip().endswith("moving (2.9 MiB, arrived)")
