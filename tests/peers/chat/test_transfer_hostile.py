"""Backups of a profile that must not come in."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peers.chat.backup import BackupWriter
from peers.chat.exits import Exit
from peers.database import Schema
from peers.sealed_archive import OpeningReader, SealingWriter
from peers.store import open_store
from peers.store.restored import settle
from peers.store.schema import SCHEMA
from tests.peers.chat.backups import FILE_NAME, failed, read, write
from tests.peers.chat.profiles import CHEAP, PASSPHRASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.profile import Profile


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
