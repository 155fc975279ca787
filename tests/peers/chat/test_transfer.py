"""Backups of a profile: out, back in, and what must not come in."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keys.identity import Identity
from peers.chat import transfer
from peers.chat.backup import BackupWriter
from peers.chat.exits import Exit
from peers.chat.transfer import ExportOptions, ImportOptions, export, import_
from peers.database import Schema
from peers.profile import Profile
from peers.sealed_archive import OpeningReader, SealingWriter
from peers.store import contacts, messages, open_store
from peers.store.message_rows import State
from peers.store.restored import settle
from peers.store.schema import SCHEMA
from tests.peers.chat.profiles import CHEAP, PASSPHRASE, card, environment, in_store, make_profile, printed, said

if TYPE_CHECKING:
    from collections.abc import Callable

FILE_NAME = "00000000000000a1"


@pytest.fixture
def old(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "new")


@pytest.fixture
def profile(old: dict[str, str]) -> Profile:
    """A profile with people, messages and files."""
    made = make_profile(old)

    def fill(db: sqlite3.Connection) -> None:
        bob = contacts.add(db, 1, Identity.generate().public, nickname="Bob")
        eve = contacts.add(db, 2, Identity.generate().public, nickname="Eve", origin="introduction")
        messages.compose(db, 3, bob.id, "How are you? ☺")
        messages.receive(db, 4, bob.id, messages.uuid(), "Well!")
        messages.receive(db, 5, eve.id, messages.uuid(), "Do you know me?")
        contacts.set_verified(db, 6, bob.id, verified=True)
        contacts.set_online(db, 7, (bob.public.x_pub,), online=True)

    in_store(made, fill)
    (made.files_path / FILE_NAME).write_bytes(b"a photograph" * 100_000)
    (made.files_path / "00000000000000a2").write_bytes(b"")
    return made


def write(profile: Profile, path: Path, environ: dict[str, str], **more: Any) -> int:
    return export(ExportOptions(path, profile.name, environ=environ, cost=CHEAP, **more))


def read(path: Path, environ: dict[str, str], **more: Any) -> int:
    return import_(ImportOptions(path, environ=environ, cost=CHEAP, **more))


def tree(directory: Path) -> dict[str, int]:
    """What lies below a directory, with the modes."""
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.lstat().st_mode) for path in sorted(directory.rglob("*"))
    }


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


def failed(status: int, expected: Exit, capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert status == expected, err
    assert out == ""
    assert err.startswith("blindrelay-chat: ")
    assert err.count("\n") == 1
    return err


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


# --- Hostile backups --------------------------------------------------------------------------------------------------


@pytest.fixture
def members(profile: Profile, old: dict[str, str], tmp_path: Path) -> list[tuple[str, bytes]]:
    """The members of a good backup."""
    assert write(profile, tmp_path / "good", old) == 0
    with (tmp_path / "good").open("rb") as file, OpeningReader(file, PASSPHRASE) as archive:
        inner = io.BytesIO(archive.read())
    with tarfile.open(fileobj=inner) as tar:  # any tar reads what is within
        found = []
        for info in tar:
            content = tar.extractfile(info)
            assert content is not None
            found.append((info.name, content.read()))
    assert [name for name, _ in found] == [
        "backup.json",
        "identity.keys",
        "profile.toml",
        "store.db",
        f"files/{FILE_NAME}",
        "files/00000000000000a2",
    ]
    return found


def sealed(path: Path, content: bytes) -> Path:
    with path.open("wb") as file, SealingWriter(file, PASSPHRASE, CHEAP) as archive:
        archive.write(content)
    return path


def packed(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with path.open("wb") as file, SealingWriter(file, PASSPHRASE, CHEAP) as archive:
        backup = BackupWriter(archive)
        for name, content in members:
            backup.add(name, content)
        backup.finish()
    return path


def refused(path: Path, new: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    text = failed(read(path, new), Exit.USAGE, capsys)
    assert list((Path(new["BLINDRELAY_HOME"]) / "profiles").iterdir()) == []
    return text


def test_the_members_of_a_good_one_are_taken(
    members: list[tuple[str, bytes]], new: dict[str, str], tmp_path: Path
) -> None:
    assert read(packed(tmp_path / "copy", members), new) == 0


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "/escaped",
        "files/../../escaped",
        "files/",
        "files/name.exe",
        "files/00000000000000A1",
        "files/00000000000000a1/x",
        "lock",
        "store.db-wal",
        "./store.db",
        "store.db/",
        "",
        "another",
    ],
)
def test_members_with_other_names_are_refused(
    members: list[tuple[str, bytes]], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = packed(tmp_path / "evil", [*members, (name, b"evil")])
    text = refused(path, new, capsys)
    assert "no backup of a profile has" in text or "not a regular file" in text
    assert not any("escaped" in str(each) for each in tmp_path.rglob("*"))


KINDS: dict[str, dict[str, Any]] = {
    "symlink": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "identity.keys"},
    "device": {"type": tarfile.CHRTYPE},
    "pipe": {"type": tarfile.FIFOTYPE},
    "directory": {"type": tarfile.DIRTYPE},
    "sparse": {"type": tarfile.GNUTYPE_SPARSE},
    "long name": {"type": tarfile.GNUTYPE_LONGNAME},
    "pax": {"type": tarfile.XHDTYPE},
    "named elsewhere": {"linkname": "/etc/passwd"},
    "negative": {"size": -512},
}


@pytest.mark.parametrize("kind", KINDS)
def test_links_devices_and_extensions_are_refused(
    members: list[tuple[str, bytes]], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    info = tarfile.TarInfo("files/00000000000000ff")
    for name, value in KINDS[kind].items():
        setattr(info, name, value)
    head = info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")
    inner = io.BytesIO()

    class Into:
        write = inner.write

    backup = BackupWriter(Into())  # type: ignore[arg-type]
    for name, content in members:
        backup.add(name, content)
    path = sealed(tmp_path / "evil", inner.getvalue() + head + bytes(1024))
    assert "not a regular file" in (text := refused(path, new, capsys)) or "impossible size" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m[1:], "does not begin"),
        (lambda m: m[:1], "lacks identity.keys, profile.toml"),
        (lambda m: m[:0], "lacks backup.json"),
        (lambda m: [*m, m[-1]], "twice"),
        (lambda m: [*m, m[0]], "twice"),
        (lambda m: [m[0], ("identity.keys", b"x" * 20_000), *m[2:]], "impossible size"),
        (lambda m: [m[0], ("identity.keys", b"nickname = 1"), *m[2:]], "is missing"),
        (lambda m: [m[0], ("identity.keys", b""), *m[2:]], "identity.keys in the backup is empty"),
        (lambda m: [*m[:2], ("profile.toml", b"relay = 1"), *m[3:]], "must be a string"),
        (lambda m: [("backup.json", b"[]"), *m[1:]], "cannot be read"),
        (lambda m: [("backup.json", b"{}"), *m[1:]], "cannot be read"),
        (lambda m: [("backup.json", b"[" * 10_000), *m[1:]], "cannot be read"),
        (lambda m: [("backup.json", b'{"format": 2}'), *m[1:]], "newer"),
        (lambda m: [*m[:3], ("store.db", b"not a data base"), *m[4:]], "damaged"),
        (lambda m: [*m[:3], ("store.db", b""), *m[4:]], "another program's"),
        (lambda m: [*m, ("relay.token", b"abcdefghij0123456789\n")], "do not agree"),
    ],
)
def test_what_is_not_as_it_should_be(
    members: list[tuple[str, bytes]],
    new: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]],
    told: str,
) -> None:
    assert told in refused(packed(tmp_path / "evil", change(members)), new, capsys)


def test_settings_that_name_a_file_of_this_machine_are_refused(
    members: list[tuple[str, bytes]], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its content would be sent to the relay that the same settings name."""
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-this-machine\n")
    secret.chmod(0o600)
    settings = members[2][1] + f"token_file = {json.dumps(str(secret))}\n".encode()
    path = packed(tmp_path / "evil", [*members[:2], ("profile.toml", settings), *members[3:]])
    assert "outside of it" in refused(path, new, capsys)


@pytest.mark.parametrize("cut", [100, 512, 5000, 60_000, 500_000])
def test_an_archive_that_ends_early_is_refused(
    members: list[tuple[str, bytes]], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    raw = (tmp_path / "good").read_bytes()
    (tmp_path / "cut").write_bytes(raw[:-cut])
    assert "cut short" in refused(tmp_path / "cut", new, capsys)
    with (tmp_path / "good").open("rb") as file, OpeningReader(file, PASSPHRASE) as archive:
        inner = archive.read()
    # Cut within, and sealed anew: the end of the tar archive, two empty blocks, is missing.
    refused(sealed(tmp_path / "cut2", inner[: -cut - 2 * 512]), new, capsys)


def test_a_changed_byte_at_the_end_is_seen_in_time(
    members: list[tuple[str, bytes]], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray((tmp_path / "good").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "changed").write_bytes(raw)
    assert "was changed" in refused(tmp_path / "changed", new, capsys)


def test_what_is_no_archive(new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tar").write_bytes(bytes(10240))
    assert "not a sealed archive" in refused(tmp_path / "tar", new, capsys)


EVIL = {
    "trigger": "CREATE TRIGGER evil AFTER INSERT ON messages BEGIN DELETE FROM contacts; END",
    "view": "CREATE VIEW evil AS SELECT 1",
    "table": "CREATE TABLE evil (x)",
    "index": "CREATE INDEX evil ON messages (text)",
    "dropped": "DROP TABLE cursors",
    "version": "PRAGMA user_version = 99",
    "program": "PRAGMA application_id = 7",
    "state": "UPDATE messages SET state = 77 WHERE id = 1",
    "kind": "UPDATE events SET kind = 'evil' WHERE seq = 1",
    "label": "UPDATE contacts SET label = label || char(27) || '[2J' WHERE id = 1",
    "label key": "UPDATE contacts SET label_key = 'mallory' WHERE id = 1",
    "keys": "UPDATE contacts SET x_pub = zeroblob(32), peer_id = zeroblob(8) WHERE id = 1",
    "not UTF-8": "UPDATE messages SET text = CAST(X'FFFE' AS TEXT) WHERE id = 1",
    "orphan": "PRAGMA foreign_keys = OFF; DELETE FROM contacts WHERE id = 1",
}


@pytest.mark.parametrize("what", EVIL)
def test_stores_that_are_not_ours_are_refused(
    members: list[tuple[str, bytes]], new: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    store = tmp_path / "evil.db"
    store.write_bytes(dict(members)["store.db"])
    with closing(sqlite3.connect(store, isolation_level=None)) as db:
        db.executescript(EVIL[what])
        db.execute("PRAGMA journal_mode = DELETE")
    path = packed(
        tmp_path / "evil", [(n, store.read_bytes() if n == "store.db" else content) for n, content in members]
    )
    text = refused(path, new, capsys)
    assert "store in the backup" in text
    assert "\x1b" not in text


def test_an_older_store_is_upgraded_when_it_comes_in(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    asyncio.run(open_store(path).close())
    newer = Schema(SCHEMA.application_id, (*SCHEMA.steps, "ALTER TABLE contacts ADD COLUMN colour TEXT;\n"))
    assert settle(path, 1, newer).contacts == 0
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == newer.version
        db.execute("SELECT colour FROM contacts")
