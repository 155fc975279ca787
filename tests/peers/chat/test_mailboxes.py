"""Mailboxes as people and scripts use them, each command a process of its own."""

from __future__ import annotations

import asyncio
import getpass
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from keys.identity import Identity
from keys.invite import Invite, MailboxCard
from peers.chat.commands.frame import UsageError
from peers.chat.commands.typed import typed_token
from peers.mailbox.keyfile import mint
from peers.mailbox.rules import AccessRule, token_digest
from peers.store import contacts, mailboxes, open_store
from tests.peers.chat.user import ROOT, WAIT
from tests.peers.dropping.boxes import HttpBox
from tests.peers.mailbox.running import MailboxProcess
from wire.peer_mailboxes import Listed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from tests.peers.chat.user import User
    from tests.support.relay_process import RelayProcess


T = TypeVar("T")
TOKEN = b"a-token-that-nothing-prints"
TOKENS = AccessRule(tokens=(token_digest(b"a token"),))
NOBODY = AccessRule(recipients=frozenset())


class Served:
    """Mailboxes in a thread of their own, for tests that wait for processes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._boxes: list[HttpBox] = []

    def does(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT)

    def box(self, path: Path, access: AccessRule | None = None) -> HttpBox:
        box = HttpBox(path, access=access)
        self.does(box.start())
        self._boxes.append(box)
        return box

    def close(self) -> None:
        for box in self._boxes:
            self.does(box.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()


@pytest.fixture
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.close()


def know(user: User, invite: Invite, ours: list[HttpBox], theirs: list[HttpBox]) -> None:
    """Write down what the two would have told each other, had they met."""

    def write(db: Any) -> None:
        row = contacts.add(db, 1, invite.public, nickname=invite.nickname)
        contacts.met(db, row.id, extended=True)
        for box in ours:
            mailboxes.add_own(db, 1, box.card, TOKEN)
        mailboxes.tell_settled(db, row.id, mailboxes.serial(db))
        mailboxes.heard(db, 1, row.id, 1, tuple(Listed(box.card) for box in theirs))

    async def run() -> None:
        async with open_store(user.home / "profiles" / user.name / "store.db") as store:
            await store.write(write)

    asyncio.run(run())


def test_messages_for_somebody_who_is_offline(
    relay: RelayProcess, user: Callable[[str], User], served: Served, tmp_path: Path
) -> None:
    alice, bob = user("alice"), user("bob")
    invites = {each.name: Invite.parse(each.joins(relay)) for each in (alice, bob)}
    boxes = {name: served.box(tmp_path / name) for name in ("one", "two", "three", "hers")}
    know(alice, invites["bob"], ours=[boxes["hers"]], theirs=[boxes["one"], boxes["two"], boxes["three"]])
    know(bob, invites["alice"], ours=[boxes["one"], boxes["two"], boxes["three"]], theirs=[boxes["hers"]])
    served.does(boxes["two"].stop())

    sent = alice.does("send", "bob", "see you at eight")
    assert sent.out == "message 1 to bob: left in 2 mailboxes (bob is offline)\n"
    record = alice.does("send", "bob", "or at nine", "--json").record
    assert (record["state"], record["mailboxes"], record["peer_online"]) == ("left", 2, False)
    assert alice.does("send", "bob", "wait for it", "--wait", "left", "--json").record["state"] == "left"
    assert "↓ left" in alice.does("history", "bob").out
    assert alice.does("status", "--json").record["left"] == 3
    alice.does("edit", "2", "or at ten")
    alice.does("delete", "3", "--for-both")

    # The one that was left to him alone by the third is there all the same.
    served.does(boxes["one"].stop())
    boxes["one"].lose_disk()
    served.does(boxes["one"].start())
    heard = bob.does("listen", "--json", "--since", "0", "--count", "2").records
    texts = [each["text"] for each in heard if each["event"] == "message" and each["direction"] == "in"]
    assert texts == ["see you at eight", "or at ten"]
    with bob.starts("listen", "--json", "--since", "0") as listening:
        assert "deposits waited for you" in listening.until("notice")["detail"]
    status = bob.run("mailbox", "status", "--json")
    assert {each["url"]: each["trouble"] is None for each in status.records} == {
        boxes["one"].card.url: True,
        boxes["two"].card.url: False,
        boxes["three"].card.url: True,
    }
    unreached = next(each["mailbox"] for each in status.records if each["trouble"])
    assert (status.status, f"could not look into mailbox {unreached}:" in status.err) == (4, True)
    assert sum(each["picked_up"] for each in status.records) >= 2

    # Her ticks come back though they have not been there together since.
    alice.does("mailbox", "status")
    states = {each["id"]: each["state"] for each in alice.does("history", "bob", "--json").records}
    assert (states[1], states[2]) == ("delivered", "delivered")
    assert alice.does("status", "--json").record["left"] == 0

    doctor = bob.run("doctor", "--json")
    assert [each["status"] for each in doctor.records if each["check"] == "mailbox"] == ["ok", "warn", "ok"]

    backup = tmp_path / "bob.backup"
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    bob.does("export", str(backup), BLINDRELAY_PASSPHRASE_FILE=str(secret))
    again = user("bob-again")
    again.does("import", str(backup), BLINDRELAY_PASSPHRASE_FILE=str(secret))
    listed = again.does("mailbox", "list", "--json")
    assert [(each["url"], each["has_token"]) for each in listed.records] == [
        (boxes[name].card.url, True) for name in ("one", "two", "three")
    ]
    assert [own.token for own in reads(again, mailboxes.own)] == [TOKEN] * 3
    assert TOKEN.decode() not in listed.out + status.out + doctor.out
    removed = bob.does("mailbox", "remove", boxes["two"].card.url, "--json").record
    assert removed["removed"] is True
    assert bob.run("mailbox", "remove", "99").status == 3


def test_somebody_who_was_never_met(
    relay: RelayProcess, user: Callable[[str], User], served: Served, tmp_path: Path
) -> None:
    """An invite and a mailbox card are enough: the first message is an introduction."""
    alice, bob = user("alice"), user("bob")
    alice.joins(relay, "Alice")
    invite = bob.joins(relay)
    box = served.box(tmp_path / "box")
    alice.does("add", invite, "--mailbox", box.card.text)
    assert alice.does("send", "bob", "hello from afar", "--json").record["state"] == "left"
    bob.does("mailbox", "add", box.card.text)
    [contact] = bob.does("contacts", "--json").records
    assert (contact["label"], contact["trust"], contact["unread"]) == ("Alice", "unverified", 1)


def test_somebody_who_was_never_met_and_whose_mailbox_asks_for_a_token(
    relay: RelayProcess, user: Callable[[str], User], served: Served, tmp_path: Path
) -> None:
    alice, bob = user("alice"), user("bob")
    alice.joins(relay)
    invite = bob.joins(relay)
    box, further = (
        served.box(tmp_path / "box", AccessRule(tokens=(token_digest(TOKEN),))),
        served.box(tmp_path / "more"),
    )
    for arguments in (
        ("add", invite, "--token-file", "-"),
        ("add", invite, "--mailbox", box.card.text, "--mailbox", further.card.text, "--token-file", "-"),
        ("add", "-", "--mailbox", box.card.text, "--token-file", "-"),
    ):
        refused = alice.run(*arguments, stdin=TOKEN)
        assert (refused.status, "token" in refused.err) == (2, True)
    assert alice.does("contacts", "--json").records == []
    added = alice.does("add", invite, "--mailbox", box.card.text, "--token-file", "-", "--json", stdin=TOKEN)
    assert "whoever sits between you and it can read the token" in added.err
    assert TOKEN.decode() not in added.out + added.err
    assert alice.does("send", "bob", "hello", "--json").record["state"] == "left"


def test_cards_that_are_none(relay: RelayProcess, user: Callable[[str], User]) -> None:
    bob = user("bob")
    invite = bob.joins(relay)
    assert bob.run("mailbox", "add", "M0nonsense").status == 2
    refused = bob.run("mailbox", "add", invite)
    assert (refused.status, "an invite, not a mailbox card" in refused.err) == (2, True)
    assert bob.does("mailbox", "list").err.startswith("There is none yet")


def test_a_mailbox_that_would_not_help_is_said_to_be_one(
    relay: RelayProcess, user: Callable[[str], User], served: Served, tmp_path: Path
) -> None:
    bob = user("bob")
    bob.joins(relay)
    box = served.box(tmp_path / "box")
    said = [bob.does("mailbox", "add", box.card.text)]
    same = MailboxCard(box.card.public, box.card.url.replace("127.0.0.1", "localhost"))
    said.append(bob.does("mailbox", "add", same.text))
    assert ["by another address" in each.err for each in said] == [False, True]
    closed = [served.box(tmp_path / name, access) for name, access in (("tokens", TOKENS), ("list", NOBODY))]
    said = [bob.does("mailbox", "add", each.card.text) for each in closed]
    assert ["first three" in each.err for each in said] == [False, True]
    doctor = bob.run("doctor", "--json")
    found = [(each["status"], each["text"]) for each in doctor.records if each["check"] == "mailbox"]
    assert [status for status, _ in found] == ["ok", "ok", "warn", "ok"]
    assert "asks depositors for a token" in found[2][1]
    assert "a list of people" in found[3][1]


def test_tokens_that_cannot_be(user: Callable[[str], User], relay: RelayProcess, tmp_path: Path) -> None:
    bob = user("bob")
    bob.joins(relay)
    card = MailboxCard(Identity.generate().public, "http://127.0.0.1:9").text
    secret = tmp_path / "token"
    for text, words in (("se cret", "no spaces"), ("s" * 65, "64 characters")):
        secret.write_text(text)
        refused = bob.run("mailbox", "add", card, "--token-file", str(secret))
        assert (refused.status, words in refused.err) == (2, True), refused
        assert text not in refused.err
    missing = bob.run("mailbox", "add", card, "--token-file", str(tmp_path / "none"))
    assert (missing.status, "No such file" in missing.err) == (2, True)
    assert bob.run("mailbox", "token", "1", "--none", "--token-file", "-").status == 2
    assert bob.run("mailbox", "token", "1", "--none").status == 3
    assert bob.does("mailbox", "list", "--json").records == []


def test_a_token_is_asked_for_at_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda _: " right\n")
    assert typed_token(None) == b"right"
    monkeypatch.setattr(getpass, "getpass", lambda _: "r\udce9ght")
    with pytest.raises(UsageError, match="no spaces"):
        typed_token(None)

    def nobody(_: str) -> str:
        warnings.warn("echoed", getpass.GetPassWarning, stacklevel=1)
        return "right"

    monkeypatch.setattr(getpass, "getpass", nobody)
    with pytest.raises(UsageError, match="no terminal"):
        typed_token(None)


def test_a_mailbox_that_asks_for_a_token(relay: RelayProcess, user: Callable[[str], User], tmp_path: Path) -> None:
    """As its operator runs it. Bob has a wrong token first: he is told so, and so is Alice."""
    directory, secret = tmp_path / "box", tmp_path / "token"
    mint(directory)
    operator = [sys.executable, "-m", "peers.mailbox", "token", "new", "friends", "--data-dir", str(directory)]
    right = subprocess.run(operator, capture_output=True, cwd=ROOT, check=True).stdout.strip().decode()
    box = MailboxProcess(directory, relay, http=False, arguments=("--tokens",))
    try:
        asyncio.run(box.logged("connected"))
        card = MailboxCard(box.identity.public, relay.url).text

        alice, bob = user("alice"), user("bob")
        invites = {each.name: Invite.parse(each.joins(relay)) for each in (alice, bob)}
        know(alice, invites["bob"], ours=[], theirs=[])
        know(bob, invites["alice"], ours=[], theirs=[])

        added = bob.does("mailbox", "add", card)
        assert "asks depositors for a token, and contacts are told none: mailbox token 1" in added.out
        secret.write_text("wrong-token\n")
        wrong = bob.does("mailbox", "add", card, "--token-file", str(secret), "--json").record
        assert (wrong["has_token"], "does not take the token" in wrong["admission"]) == (True, True)
        both_online(alice, bob)
        sent = alice.run("send", "bob", "first")
        assert "asks for a token" not in sent.err
        assert "bob's mailbox at 127.0.0.1" in sent.err
        assert "does not take the token that bob told: 1 deposit waits until bob gives theirs a valid one" in sent.err
        assert "does not take the token that bob told" in alice.does("mailbox", "status").err
        [finding] = [each for each in alice.run("doctor", "--json").records if each["check"] == "deposits"]
        assert (finding["status"], "does not take the token that bob told" in finding["text"]) == ("warn", True)
        [finding] = [each for each in bob.run("doctor", "--json").records if each["check"] == "mailbox"]
        assert (finding["status"], "does not take the token" in finding["text"]) == ("warn", True)

        [status] = bob.does("mailbox", "status", "--json").records
        assert "does not take the token" in status["admission"]
        done = bob.does("mailbox", "token", "1", "--token-file", "-", "--json", stdin=f"{right}\n")
        assert (done.record["has_token"], done.record["admission"]) == (True, None)
        both_online(alice, bob)
        sent = alice.does("send", "bob", "second")
        assert sent.out.endswith("left in 1 mailbox (bob is offline)\n")
        assert sent.err == ""
        with bob.starts("listen", "--json", "--since", "0", "--from", "alice") as listening:
            assert [listening.until("message")["text"] for _ in range(2)] == ["first", "second"]
        everything = alice.does("listen", "--json", "--all", "--since", "0", "--timeout", "0").out
        assert right not in done.out + done.err + everything + box.output

        asyncio.run(box.stop())
    finally:
        box.kill()


def both_online(alice: User, bob: User) -> None:
    """They are connected together until she has his list."""
    serial = reads(bob, mailboxes.serial)
    with alice.starts("listen", "--json"), bob.starts("listen", "--json"):
        heard = "SELECT max(serial) FROM cards_heard"
        until(alice, lambda db: db.execute(heard).fetchone()[0] == serial)
        until(bob, lambda db: not mailboxes.to_tell(db))


def reads(user: User, read: Callable[[Any], T]) -> T:
    async def run() -> T:
        async with open_store(user.home / "profiles" / user.name / "store.db") as store:
            return await store.read(read)

    return asyncio.run(run())


def until(user: User, holds: Callable[[Any], bool]) -> None:
    async def run() -> None:
        async with open_store(user.home / "profiles" / user.name / "store.db") as store:
            version = -1
            while not await store.read(holds):
                now = await store.changed(version, WAIT)
                assert now != version, f"not within {WAIT} s"
                version = now

    asyncio.run(run())
