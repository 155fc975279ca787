"""Backups of a profile: out, and back in."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peers.chat import transfer
from peers.chat.exits import Exit
from peers.chat.transfer import ExportOptions, export
from peers.profile import Profile
from peers.store import contacts, messages
from peers.store.message_rows import State
from tests.peers.chat.backups import FILE_NAME, failed, read, tree, write
from tests.peers.chat.profiles import CHEAP, card, environment, in_store, make_profile, printed, said

# --- There and back ---------------------------------------------------------------------------------------------------


def test_a_profile_goes_out_and_comes_back(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backup"
    before = tree(profile.directory)
    assert write(profile, path, old, json=True) == 0
    assert tree(profile.directory) == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (told,), warned = printed(capsys)
    assert told == {
        "exported": str(path),
        "profile": "default",
        "contacts": 2,
        "messages": 3,
        "files": 2,
        "bytes": path.stat().st_size,
    }
    assert warned == []

    assert read(path, new, profile="again", json=True) == 0
    again = Profile.locate("again", new)
    (told,), warned = printed(capsys)
    assert told | {"made_at": "", "note": ""} == {
        "imported": "again",
        "made_at": "",
        "contacts": 2,
        "messages": 3,
        "files": 2,
        "unsent_files": 0,
        "keys_sealed": False,
        "note": "",
    }
    assert "id in use" in told["note"]
    assert warned == []
    assert again.read_keys().identity.public == profile.read_keys().identity.public
    assert again.read_keys().nickname == "Alice"
    assert again.settings() == profile.settings()
    assert said(again) == said(profile)
    for name in (FILE_NAME, "00000000000000a2"):
        assert (again.files_path / name).read_bytes() == (profile.files_path / name).read_bytes()
    assert set(tree(again.directory).values()) <= {0o600, 0o700}
    assert os.listdir(again.directory.parent) == ["again"]  # noqa: PTH208
    rows = in_store(again, contacts.everyone)
    assert [(row.label, row.trust, row.online) for row in rows] == [
        ("Bob", "verified", False),
        ("Eve", "unverified", False),
    ]
    assert len(in_store(again, messages.search, "well")) == 1


def test_what_people_are_told(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(profile, tmp_path / "backup", old) == 0
    assert read(tmp_path / "backup", new) == 0
    out, err = capsys.readouterr()
    assert "2 contacts, 3 messages, 2 received files" in out
    assert "One identity has one connection" in out
    assert err == ""


def test_a_backup_is_made_while_the_profile_is_used(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path
) -> None:
    with profile.lock(), closing(sqlite3.connect(profile.store_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE contacts SET nickname = 'not committed'")
        assert write(profile, tmp_path / "backup", old) == 0
    assert read(tmp_path / "backup", new) == 0
    assert {row.nickname for row in in_store(Profile.locate(None, new), contacts.everyone)} == {"Bob", "Eve"}


def test_a_profile_that_was_never_used(old: dict[str, str], new: dict[str, str], tmp_path: Path) -> None:
    profile = make_profile(old)
    assert not profile.store_path.exists()
    assert write(profile, tmp_path / "backup", old) == 0
    assert read(tmp_path / "backup", new) == 0
    assert said(Profile.locate(None, new)) == []


def test_sealed_keys_stay_sealed_under_their_own_passphrase(
    new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = environment(tmp_path / "old", "the passphrase of the backup")
    keys = make_profile(environment(tmp_path / "elsewhere")).read_keys()
    profile = Profile.create("default", keys, card(), "that of the keys", environ=old, cost=CHEAP)
    assert write(profile, tmp_path / "backup", old) == 0
    new = environment(tmp_path / "new", "the passphrase of the backup")
    assert read(tmp_path / "backup", new) == 0
    assert "passphrase that they had then" in capsys.readouterr().out
    again = Profile.locate(None, new)
    assert again.read_keys(lambda: "that of the keys").identity.public == keys.identity.public


def test_the_admission_token_goes_with_it(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "somewhere" / "token"
    token.parent.mkdir()
    token.write_text("# the relay's\nabcdefghij0123456789\n")
    token.chmod(0o600)
    profile.write_settings(replace(profile.settings(), token_file=token))
    assert write(profile, tmp_path / "backup", old) == 0
    token.unlink()
    assert read(tmp_path / "backup", new) == 0
    again = Profile.locate(None, new)
    assert again.read_token() == "abcdefghij0123456789"
    assert again.settings().token_file == Path("relay.token")
    # A token that is gone is no reason to have no backup.
    assert write(profile, tmp_path / "backup2", old) == 0
    assert "no admission token" in capsys.readouterr().err
    assert read(tmp_path / "backup2", new, profile="second") == 0
    assert Profile.locate("second", new).settings().token_file is None


def test_files_that_did_not_arrive_are_not_read_from_here(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup made by an enemy could have us send any file of this machine to them."""

    def offer(db: sqlite3.Connection) -> int:
        bob = contacts.find(db, "Bob").id
        for number, state in enumerate(("offered", "moving", "done")):
            row = messages.compose(db, 9, bob, "secret", kind="file")
            db.execute(
                "INSERT INTO files (message, contact, outgoing, file_id, mime, size, pull, source, stamp, state)"
                " VALUES (?, ?, 1, ?, 'x', 1, 1, '/home/victim/.ssh/id_ed25519', 's', ?)",
                (row.id, bob, bytes([number]) * 16, state),
            )
        theirs = messages.receive(db, 9, bob, messages.uuid(), "photo", "file")
        assert theirs is not None
        db.execute(
            "INSERT INTO files (message, contact, outgoing, file_id, mime, size, pull, have, moved, state)"
            " VALUES (?, ?, 0, ?, 'x', 9, 1, X'FF', 5, 'moving')",
            (theirs.id, bob, bytes(16)),
        )
        return row.id

    in_store(profile, offer)
    assert write(profile, tmp_path / "backup", old) == 0
    assert read(tmp_path / "backup", new) == 0
    assert "failed now: 2 files" in capsys.readouterr().out
    again = Profile.locate(None, new)

    def look(db: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], list[State]]:
        rows = db.execute("SELECT outgoing, source, stamp, have, moved, state FROM files ORDER BY message")
        states = [row.state for row in messages.history(db, 1) if row.outgoing and row.kind == "file"]
        return [tuple(row) for row in rows], states

    rows, states = in_store(again, look)
    assert rows == [
        (1, None, None, None, 0, "failed"),
        (1, None, None, None, 0, "failed"),
        (1, None, None, None, 0, "done"),
        (0, None, None, None, 0, "moving"),
    ]
    assert states == [State.FAILED, State.FAILED, State.QUEUED]


def test_what_lies_among_the_files_and_is_none_stays_out(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    (profile.files_path / "00000000000000b1").symlink_to(secret)
    os.mkfifo(profile.files_path / "00000000000000b2")
    (profile.files_path / "00000000000000b3.part").write_text("half")
    (profile.files_path / "notes").write_text("mine")
    (profile.files_path / "00000000000000b4").mkdir()
    assert write(profile, tmp_path / "backup", old) == 0
    assert read(tmp_path / "backup", new) == 0
    names = sorted(path.name for path in Profile.locate(None, new).files_path.iterdir())
    assert names == [FILE_NAME, "00000000000000a2"]


# --- What is refused --------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backup"
    path.write_text("precious")
    assert "not overwritten" in failed(write(profile, path, old), Exit.USAGE, capsys)
    assert path.read_text() == "precious"
    path.unlink()
    assert write(profile, path, old) == 0
    assert read(path, new) == 0
    before = tree(Path(new["BLINDRELAY_HOME"]))
    capsys.readouterr()
    assert "exists and is not changed" in failed(read(path, new), Exit.USAGE, capsys)
    half = Profile.locate("half", new)
    half.directory.mkdir()
    (half.directory / "something").write_text("precious")
    assert "no whole profile" in failed(read(path, new, profile="half"), Exit.USAGE, capsys)
    shutil.rmtree(half.directory)
    assert tree(Path(new["BLINDRELAY_HOME"])) == before


def test_what_is_not_there(
    profile: Profile, old: dict[str, str], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no profile" in failed(write(Profile.locate("x", old), tmp_path / "b", old), Exit.NOT_FOUND, capsys)
    assert "no file" in failed(read(tmp_path / "b", new), Exit.NOT_FOUND, capsys)
    status = write(profile, tmp_path / "missing" / "b", old)
    assert "No such file or directory" in failed(status, Exit.USAGE, capsys)
    status = export(ExportOptions(tmp_path / "b", plain=True, environ=old))
    assert "always sealed" in failed(status, Exit.USAGE, capsys)
    assert not (tmp_path / "b").exists()


def test_errors_are_objects_for_programs(
    old: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(ExportOptions(tmp_path / "b", environ=old, json=True)) == Exit.NOT_FOUND
    out, (error,) = printed(capsys)
    assert out == []
    assert error["exit"] == 3
    assert "no profile" in error["error"]


def test_a_wrong_passphrase_leaves_nothing(
    profile: Profile, old: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(profile, tmp_path / "backup", old) == 0
    capsys.readouterr()
    new = environment(tmp_path / "new", "a wrong one")
    before = tree(tmp_path / "new")
    assert "passphrase is wrong" in failed(read(tmp_path / "backup", new), Exit.USAGE, capsys)
    assert tree(tmp_path / "new").keys() - before.keys() <= {"profiles"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("where", ["examine", "stored_files"])
def test_an_export_that_is_interrupted_leaves_nothing(
    profile: Profile,
    old: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    error: type[BaseException] | BaseException,
) -> None:
    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(transfer, where, interrupted)
    before = tree(tmp_path)
    status = write(profile, tmp_path / "backup", old)
    failed(status, Exit.INTERRUPTED if error is KeyboardInterrupt else Exit.USAGE, capsys)
    assert tree(tmp_path) == before


def test_an_import_that_is_interrupted_leaves_nothing(
    profile: Profile,
    old: dict[str, str],
    new: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert write(profile, tmp_path / "backup", old) == 0
    capsys.readouterr()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "settle", interrupted)
    failed(read(tmp_path / "backup", new), Exit.INTERRUPTED, capsys)
    assert list((tmp_path / "new" / "profiles").iterdir()) == []


def test_a_damaged_store_is_not_put_into_a_backup(
    profile: Profile, old: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(profile.store_path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    profile.store_path.write_bytes(raw)
    assert "damaged" in failed(write(profile, tmp_path / "backup", old), Exit.USAGE, capsys)
    assert not (tmp_path / "backup").exists()
