"""A profile with something in it, and backups of it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from keys.identity import Identity
from peers.chat.transfer import ExportOptions, ImportOptions, export, import_
from peers.store import contacts, messages
from tests.peers.chat.profiles import CHEAP, in_store, make_profile

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    import pytest

    from peers.chat.exits import Exit
    from peers.profile import Profile

FILE_NAME = "00000000000000a1"


def full_profile(old: dict[str, str]) -> Profile:
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


def failed(status: int, expected: Exit, capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert status == expected, err
    assert out == ""
    assert err.startswith("blindrelay-chat: ")
    assert err.count("\n") == 1
    return err
