"""A backup of a profile: a tar archive within a sealed archive (:mod:`peers.sealed_archive`), in this order:

    backup.json      {"format": 1, "made_at": …, "made_by": …, "profile": …}
    identity.keys    as it is in the profile: if it is sealed there, it is sealed here once more
    profile.toml     the settings; token_file names the next member, or nothing
    relay.token      only if the profile has one
    store.db         a copy of one moment
    files/HEX        received files that are whole, under the names that the profile has for them

Of tar only this much is used: regular files under these names, no links, no long names, no extensions. The reader knows
nothing else either, so that there is nothing in an archive that could lead it out of the directory it restores to.
"""

import errno
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from keys.private_file import SIZE_MAX
from peers.sealed_archive import OpeningReader, SealingWriter

FORMAT: Final = 1
NOTE: Final = "backup.json"
IDENTITY: Final = "identity.keys"
SETTINGS: Final = "profile.toml"
TOKEN: Final = "relay.token"  # noqa: S105 - the name of a file
STORE: Final = "store.db"
FILES: Final = "files/"
_REQUIRED: Final = (NOTE, IDENTITY, SETTINGS)
_OPTIONAL: Final = (TOKEN, STORE)
_BOUNDED: Final = frozenset({NOTE, IDENTITY, SETTINGS, TOKEN})
"""Members that are read into memory: at most 16 KiB. The others are bounded by the archive itself, which has no
compression: what is written to the disk is never more than was read from it."""
STORED_NAME: Final = re.compile(r"[0-9a-f]{16,64}")
"""Names of received files; what is not whole yet has another."""
_BLOCK: Final = tarfile.BLOCKSIZE
_COPIED: Final = 1 << 20


class BadBackup(Exception):
    """What is within a sealed archive is not a backup of a profile; the text says why."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a backup says of itself.

    Attributes:
        made_at: when.
        made_by: the program, with its version.
        profile: the name of the profile.
    """

    made_at: datetime
    made_by: str
    profile: str

    def encode(self) -> bytes:
        fields = {
            "format": FORMAT,
            "made_at": self.made_at.isoformat(timespec="milliseconds"),
            "made_by": self.made_by,
            "profile": self.profile,
        }
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> "Note":
        """Raises BadBackup."""
        try:
            fields: Any = json.loads(raw)
            if fields["format"] != FORMAT:
                raise BadBackup("the backup has a format that is not known here: install a newer blindrelay")
            made_at = datetime.fromisoformat(fields["made_at"])
            made_by, profile = fields["made_by"], fields["profile"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadBackup(f"{NOTE} in the backup cannot be read") from None
        if made_at.tzinfo is None or not isinstance(made_by, str) or not isinstance(profile, str):
            raise BadBackup(f"{NOTE} in the backup cannot be read")
        return cls(made_at, made_by, profile)


class BackupWriter:
    """Writes members in the order of the format; :meth:`finish` ends the archive. Raises OSError, from the disk."""

    def __init__(self, archive: SealingWriter) -> None:
        self._archive = archive

    def add(self, name: str, content: bytes) -> None:
        """Add a member."""
        self._head(name, len(content))
        self._archive.write(content)
        self._pad(len(content))

    def add_file(self, name: str, file: BinaryIO) -> None:
        """Add what an open regular file holds now; blocks."""
        size = os.fstat(file.fileno()).st_size
        self._head(name, size)
        left = size
        while left:
            part = file.read(min(left, _COPIED))
            if not part:
                raise OSError(0, f"{name} became shorter while it was read")
            self._archive.write(part)
            left -= len(part)
        self._pad(size)

    def finish(self) -> None:
        """Write the end of the tar archive. The sealed one is its owner's to close."""
        self._archive.write(bytes(2 * _BLOCK))

    def _head(self, name: str, size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        self._archive.write(info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict"))

    def _pad(self, size: int) -> None:
        self._archive.write(bytes(-size % _BLOCK))


def restore(archive: OpeningReader, directory: Path) -> Note:
    """Write the members of a backup into `directory`, which is new and ours, each with mode 0600, and synced.

    Nothing of it may be believed before this returns: only then is it known that the archive is whole.

    Raises:
        BadBackup: it holds anything that a backup does not.
        ArchiveError: the archive is damaged.
        OSError: of the disk.
    """
    files = directory / FILES
    files.mkdir(0o700)
    files.chmod(0o700)
    note = None
    seen: set[str] = set()
    for name, size in _members(archive, seen):
        if note is None and name != NOTE:
            raise BadBackup(f"the backup does not begin with {NOTE}")
        if name == NOTE:
            note = Note.parse(_read(archive, size))
            _skip_padding(archive, size)
            continue
        descriptor = os.open(
            directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            left = size
            while left:
                part = _read(archive, min(left, _COPIED))
                file.write(part)
                left -= len(part)
            file.flush()
            os.fsync(descriptor)
        _skip_padding(archive, size)
    archive.finish()
    missing = [name for name in _REQUIRED if name not in seen]
    if note is None or missing:
        raise BadBackup(f"the backup lacks {', '.join(missing)}")
    return note


def stored_files(directory: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Yield names of received files, and each opened for reading until the next is asked for. What is no regular file
    or has another name is passed over, and so is what is removed meanwhile."""
    try:
        names = sorted(entry.name for entry in directory.iterdir() if STORED_NAME.fullmatch(entry.name))
    except FileNotFoundError:
        return
    for name in names:
        try:
            # Without O_NONBLOCK a pipe under such a name would hold us.
            descriptor = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # gone, a link, a socket
                continue
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            continue
        with os.fdopen(descriptor, "rb") as file:
            yield name, file


def _members(archive: OpeningReader, seen: set[str]) -> Iterator[tuple[str, int]]:
    while True:
        block = archive.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        try:
            # One header, and nothing that extensions of tar would have it mean.
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            raise BadBackup("the backup is not a tar archive as ours are") from None
        name, size = info.name, info.size
        is_file = name.startswith(FILES) and STORED_NAME.fullmatch(name.removeprefix(FILES)) is not None
        if not is_file and name not in (*_REQUIRED, *_OPTIONAL):
            raise BadBackup("the backup holds a member that no backup of a profile has")
        if info.type != tarfile.REGTYPE or info.linkname:
            raise BadBackup(f"{name} in the backup is not a regular file")
        if name in seen:
            raise BadBackup(f"{name} is twice in the backup")
        if size < 0 or (name in _BOUNDED and size > SIZE_MAX):
            raise BadBackup(f"{name} in the backup has an impossible size")
        seen.add(name)
        yield name, size


def _read(archive: OpeningReader, size: int) -> bytes:
    part = archive.read(size)
    if len(part) < size:
        raise BadBackup("the backup ends within a member")
    return part


def _skip_padding(archive: OpeningReader, size: int) -> None:
    _read(archive, -size % _BLOCK)
