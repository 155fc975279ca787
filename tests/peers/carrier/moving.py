"""Files for tests: made, offered, waited for, compared."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from peers.store import files

if TYPE_CHECKING:
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from peers.store.file_rows import FileRow
    from tests.peers.carrier.conversation import Person

CHUNK: Final = 32 * 1024
MIB: Final = 1024 * 1024


def make(path: Path, size: int) -> bytes:
    """Write a file that differs from every other of another name, and return its content."""
    content = random.Random(path.name).randbytes(size)
    path.write_bytes(content)
    return content


async def offer(person: Person, contact: ContactRow, path: Path) -> FileRow:
    return await person.store.write(files.offer, person.now(), contact.id, path)


async def until_over(person: Person, row: FileRow) -> FileRow:
    """The file as soon as it is done, or has failed."""
    return await person.until(files.get, lambda each: not each.open, row.message)


async def theirs(person: Person, contact: ContactRow, row: FileRow) -> FileRow:
    """The row that a file of `contact` has here, as soon as there is one."""
    found = await person.until(
        files.list_of, lambda rows: any(each.file_id == row.file_id for each in rows), contact.id
    )
    return next(each for each in found if each.file_id == row.file_id)


async def arrived(person: Person, contact: ContactRow, row: FileRow) -> bytes:
    """The content of a file of `contact`, as soon as it is here."""
    here = await until_over(person, await theirs(person, contact, row))
    assert here.state == "done", here.why
    return files.content_path(person.files_dir, here).read_bytes()


def left(person: Person) -> list[str]:
    """What lies where received files lie."""
    return sorted(path.name for path in person.files_dir.iterdir())


async def until_removed(person: Person) -> None:
    """Return when no received file is left, whole or not."""
    await person.until(lambda _: left(person), lambda names: names == [])
