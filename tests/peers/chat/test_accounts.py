"""Accounts of the telefon web app: to a profile and from it."""

from __future__ import annotations

import base64
import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from keys.identity import Identity, PublicIdentity
from keys.invite import Invite
from peers import telefon
from peers.chat.exits import Exit
from peers.chat.transfer import ExportOptions, ImportOptions, export, import_
from peers.profile import Profile
from peers.store import contacts
from tests.peers.chat.profiles import CHEAP, PASSPHRASE, card, environment, in_store, make_profile, printed

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home")


def take(path: Path, environ: dict[str, str], **more: Any) -> int:
    return import_(ImportOptions(path, telefon=True, environ=environ, cost=CHEAP, json=True, **more))


def give(path: Path, environ: dict[str, str], **more: Any) -> int:
    return export(ExportOptions(path, telefon=True, environ=environ, json=True, **more))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def entry(public: PublicIdentity, nickname: str = "", label: str = "", **more: str) -> dict[str, str]:
    """A contact as the web app writes it."""
    return {"id": public.id.hex(), "qr": Invite(public, nickname).text, "label": label, **more}


def account(identity: Identity, *entries: dict[str, str], nickname: str = "Alice") -> bytes:
    """A plain account as the web app writes it."""
    x_seed, ed_seed = identity.seeds
    return json.dumps(
        {
            "v": 1,
            "type": "telefon-account",
            "enc": False,
            "nickname": nickname,
            "seeds": {"x": b64(x_seed), "ed": b64(ed_seed)},
            "contacts": list(entries),
        }
    ).encode()


def people(profile: Profile) -> list[tuple[str, str, str]]:
    return [(row.label, row.nickname, row.trust) for row in in_store(profile, contacts.everyone)]


def test_an_account_becomes_a_profile(home: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, me, relay = tmp_path / "telefon-account.json", Identity.generate(), card()
    some = [Identity.generate().public for _ in range(5)]
    path.write_bytes(
        account(
            me,
            entry(some[0], "Bob␟info", "Bob", type="info"),
            entry(some[1], "Robert", "bob"),  # the same label to us
            entry(some[2], "Carol", ""),
            entry(some[3], "Claude", "Helper", type="claude"),
            entry(some[4], "Evil", "\x1b[2JEvil"),
            entry(me.public, "Alice", "Myself"),
            {"id": "00", "qr": "K0nonsense", "label": "Broken"},
        )
    )
    assert take(path, home, relay=relay.text) == 0
    (told,), errors = printed(capsys)
    assert errors == []
    assert (told["added"], told["kept"], told["new_profile"]) == (5, 0, True)
    assert told["relabelled"] == [{"from": "bob", "to": "bob-2"}]
    assert told["types_lost"] == ["Helper"]
    assert [each["contact"] for each in told["skipped"]] == ["a contact that cannot be read", "Myself"]
    profile = Profile.locate(None, home)
    keys = profile.read_keys()
    assert (keys.identity.seeds, keys.nickname) == (me.seeds, "Alice")
    assert profile.settings().relay == relay
    assert people(profile) == [
        ("[2JEvil", "Evil", "invited"),
        ("Bob", "Bob␟info", "invited"),
        ("bob-2", "Robert", "invited"),
        ("Carol", "Carol", "invited"),
        ("Helper", "Claude", "invited"),
    ]


@pytest.mark.parametrize("plain", [False, True])
def test_a_profile_becomes_an_account_and_a_profile_again(
    home: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], plain: bool
) -> None:
    profile, path = make_profile(home), tmp_path / "telefon-account.json"

    def fill(db: sqlite3.Connection) -> None:
        for name, origin in (("Bob␟info", "invite"), ("Stranger", "introduction"), ("Blocked", "invite")):
            row = contacts.add(db, 1, Identity.generate().public, nickname=name, origin=origin)  # type: ignore[arg-type]
            contacts.set_blocked(db, 1, row.id, blocked=name == "Blocked")

    in_store(profile, fill)
    assert give(path, home, plain=plain) == 0
    (told,), warned = printed(capsys)
    assert told == {
        "exported": str(path),
        "profile": "default",
        "contacts": 2,
        "sealed": not plain,
        "left_out": ["Blocked"],
        "unverified": ["Stranger"],
    }
    assert [("in clear" in each["warning"]) for each in warned] == ([True] if plain else [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    written = telefon.read(path.read_bytes(), lambda: PASSPHRASE)
    assert written.identity is not None
    assert written.identity.seeds == profile.read_keys().identity.seeds
    assert [(each.label, each.type) for each in written.contacts] == [("Bob", "info"), ("Stranger", None)]
    fields = json.loads(path.read_bytes())
    assert fields["enc"] == (False if plain else "aes-gcm")
    assert ("seeds" in fields) == plain

    assert take(path, home, profile="again", relay=card().text) == 0
    again = Profile.locate("again", home)
    assert again.read_keys().identity.public == profile.read_keys().identity.public
    assert people(again) == [("Bob", "Bob␟info", "invited"), ("Stranger", "Stranger", "invited")]


def test_contacts_alone_are_merged(home: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile, path = make_profile(home), tmp_path / "telefon-account.json"
    bob, eve, new = (Identity.generate().public for _ in range(3))
    in_store(profile, contacts.add, 1, bob, label="Bobby", nickname="Bob")
    in_store(profile, contacts.add, 1, eve, nickname="Eve", origin="introduction")
    mallory = PublicIdentity(bob.x_pub, Identity.generate().public.ed_pub)
    path.write_bytes(
        account(
            Identity.generate(),
            entry(bob, "Bob", "Robert"),
            entry(eve, "Eve", "Eve"),
            entry(mallory, "Bob", "Bob"),
            entry(profile.read_keys().identity.public, "Alice", "Me"),
            entry(new, "New", "New"),
            entry(new, "New", "New once more"),
        )
    )
    before = profile.read_keys().identity.public
    assert take(path, home, contacts_only=True) == 0
    (told,), _ = printed(capsys)
    assert (told["added"], told["kept"], told["new_profile"]) == (1, 3, False)
    reasons = {each["contact"]: each["reason"] for each in told["skipped"]}
    assert reasons.keys() == {"Bob", "Me"}
    assert "the contact Bobby has the same id with other keys" in reasons["Bob"]
    assert people(profile) == [("Bobby", "Bob", "invited"), ("Eve", "Eve", "invited"), ("New", "New", "invited")]
    assert profile.read_keys().identity.public == before
    # Once more: nothing is new.
    assert take(path, home, contacts_only=True) == 0
    (told,), _ = printed(capsys)
    assert (told["added"], told["kept"]) == (0, 4)


def test_a_list_of_contacts_has_no_keys(
    home: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, bob = tmp_path / "contacts.txt", Identity.generate().public
    path.write_text(f"{bob.id.hex()} {Invite(bob, 'Bob').text} My Bob\n")
    assert take(path, home, relay=card().text) == Exit.USAGE
    assert "--contacts-only" in printed(capsys)[1][0]["error"]
    assert not Profile.locate(None, home).exists
    profile = make_profile(home)
    assert take(path, home, contacts_only=True) == 0
    assert people(profile) == [("My Bob", "Bob", "invited")]


def test_keys_can_be_sealed_on_their_way_in(home: dict[str, str], tmp_path: Path) -> None:
    path, me = tmp_path / "telefon-account.json", Identity.generate()
    path.write_bytes(account(me))
    assert take(path, home, relay=card().text, seal=True) == 0
    profile = Profile.locate(None, home)
    assert str(me.seeds[0].hex()) not in profile.identity_path.read_text()
    assert profile.read_keys(lambda: PASSPHRASE).identity.seeds == me.seeds


@pytest.mark.parametrize(
    ("more", "status", "told"),
    [
        ({}, Exit.USAGE, "names no relay"),
        ({"relay": "K0"}, Exit.USAGE, "--relay"),
        ({"relay": card().text, "contacts_only": True}, Exit.USAGE, "for a new profile"),
        ({"seal": True, "contacts_only": True}, Exit.USAGE, "for a new profile"),
        ({"contacts_only": True}, Exit.NOT_FOUND, "no profile"),
    ],
)
def test_what_makes_no_sense(
    home: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: dict[str, Any],
    status: Exit,
    told: str,
) -> None:
    path = tmp_path / "telefon-account.json"
    path.write_bytes(account(Identity.generate()))
    assert take(path, home, **more) == status
    out, (error,) = printed(capsys)
    assert out == []
    assert told in error["error"]
    assert not Profile.locate(None, home).exists


def test_wrong_passphrases_and_broken_files(
    home: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile, path = make_profile(home), tmp_path / "telefon-account.json"
    assert give(path, home) == 0
    other = environment(tmp_path / "other", "a wrong one")
    assert take(path, other, relay=card().text) == Exit.USAGE
    assert "passphrase is wrong" in printed(capsys)[1][0]["error"]
    path.write_bytes(b"{")
    assert take(path, other, relay=card().text) == Exit.USAGE
    assert not Profile.locate(None, other).exists
    assert give(path, home) == Exit.USAGE
    assert path.read_bytes() == b"{"
    assert profile.exists


def test_options_of_accounts_are_not_for_backups(
    home: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ({"relay": card().text}, {"contacts_only": True}, {"seal": True}):
        assert import_(ImportOptions(tmp_path / "x", environ=home, **more)) == Exit.USAGE
        assert "--telefon" in capsys.readouterr().err
