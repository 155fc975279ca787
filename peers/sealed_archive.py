"""A stream sealed under a passphrase, for backups of any size: read and written in constant memory.

    archive    = magic line  opslimit(u32 LE) memlimit(u64 LE) salt(16) prefix(16)  chunk …
    chunk      = ciphertext(n) tag(16)                  n = 65,536; of the last chunk 0 to 65,536
    nonce      = prefix(16) counter(7, big endian) last(1)      of each chunk, counted from 0; last is 1 or 0
    chunk key  = BLAKE3 derive_key( Argon2id(passphrase, salt, opslimit, memlimit) magic line … prefix )

Each chunk is XChaCha20-Poly1305. This is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015), as age has
it: the counter shows chunks that were left out, repeated or exchanged, and the last one alone opens with its flag, so
that a file which was cut or continued shows too. The whole header goes into the key, so a change of it shows at the
first chunk. The key is new for each archive, for the salt is; so nonces cannot repeat under one key.

What a reader hands out is genuine, but until the end was seen there may be less of it than was written: whoever
restores from an archive keeps what was there before until :meth:`OpeningReader.finish` has returned.
"""

import io
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final

from keys import passphrase as pw
from keys import primitives as p
from keys.errors import OpenError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAGIC: Final = b"blindrelay sealed archive 1\n"
CHUNK_SIZE: Final = 65536
"""Bytes of content in each chunk but the last."""
_OPSLIMIT: Final = 4
_MEMLIMIT: Final = 8
_PREFIX: Final = 16
_COUNTER: Final = 7
HEADER_SIZE: Final = len(MAGIC) + _OPSLIMIT + _MEMLIMIT + p.SALT_SIZE + _PREFIX
"""Bytes before the first chunk."""
_PURPOSE: Final = "blindrelay sealed archive 1: key of the chunks"


class ArchiveError(Exception):
    """An archive that cannot be written or read. The text says what is wrong and what to do."""


class NotAnArchive(ArchiveError):
    """The file is something else, or asks for more work than any archive of ours does."""


class WrongArchivePassphrase(ArchiveError):
    """The first chunk does not open: the passphrase is wrong, or the beginning of the file was changed or cut.

    These cannot be told apart: nothing in the file is a second test of the passphrase.
    """


class DamagedArchive(ArchiveError):
    """The passphrase is right, but the file is cut short or was changed. What was read before is genuine."""


class SealingWriter(io.BufferedIOBase):
    """A binary file, open for writing, whose content goes sealed into another.

    :meth:`close`, or the end of a ``with`` block, writes the last chunk: until then the archive counts as cut. A
    ``with`` block that an exception leaves, and a writer that is forgotten, write none, so that half a backup is never
    taken for a whole one. The file beneath stays open; to make it last is its owner's task.

    Making one takes as long as `cost` says (by default most of a second and 256 MiB): not on an event loop.

    Args:
        file: where to; only written to, from where it stands.
        passphrase: as a person typed it (see :func:`keys.passphrase.encode_typed`).
        cost: what a guess at it shall cost.
        random_bytes: the source of salt and prefix (16 bytes each, in this order).

    Raises:
        ArchiveError: the passphrase is empty or too long, or there is not the memory that `cost` takes.
        OSError: of the file beneath, here and from every method that writes; the archive is then abandoned.
    """

    def __init__(
        self,
        file: BinaryIO,
        passphrase: str,
        cost: pw.Cost = pw.DEFAULT_COST,
        random_bytes: Callable[[int], bytes] = p.random_bytes,
    ) -> None:
        super().__init__()
        self._file = file
        # Never more than one chunk: what is here when it is known that more follows is written, so that the last chunk
        # is empty only where there is no content at all.
        self._waiting = bytearray()
        salt = random_bytes(p.SALT_SIZE)
        header = b"".join(
            (
                MAGIC,
                cost.opslimit.to_bytes(_OPSLIMIT, "little"),
                cost.memlimit.to_bytes(_MEMLIMIT, "little"),
                salt,
                random_bytes(_PREFIX),
            )
        )
        self._chunks = _Chunks(passphrase, cost, salt, header)
        self._write(header)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Take `data`, all of it; return its size in bytes."""
        self._check_open()
        with memoryview(data) as view, view.cast("B") as content:
            size = len(content)
            taken = 0
            while taken < size:
                if len(self._waiting) == CHUNK_SIZE:
                    self._write_chunk(last=False)
                step = min(CHUNK_SIZE - len(self._waiting), size - taken)
                self._waiting += content[taken : taken + step]
                taken += step
        return size

    def close(self) -> None:
        """Write the last chunk. What was written before is then a whole archive. A second call does nothing.

        Raises:
            OSError: of the file beneath; the archive is then cut, and a second call does not mend it.
        """
        if self.closed:
            return
        try:
            self._write_chunk(last=True)
            self._file.flush()
        finally:
            super().close()

    def abandon(self) -> None:
        """Let go of the archive without its last chunk: whoever reads it learns that it is cut."""
        if not self.closed:
            self._waiting.clear()
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def __del__(self) -> None:
        # The inherited one calls close(), which would make a whole archive of what an exception has left behind.
        self.abandon()

    def _write_chunk(self, *, last: bool) -> None:
        sealed = self._chunks.seal(bytes(self._waiting), last=last)
        self._waiting.clear()
        try:
            self._write(sealed)
        except BaseException:
            # How much of it got out nobody knows: whatever came after would be read as something else, or not at all.
            self.abandon()
            raise

    def _write(self, data: bytes) -> None:
        rest = data
        while rest:
            # A raw file may take less than it is given, and one that does not block nothing.
            written = self._file.write(rest)
            if not written:
                raise BlockingIOError("the file of the archive takes nothing: it must not be non-blocking")
            rest = rest[written:]

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the archive is closed")


class OpeningReader(io.BufferedIOBase):
    """A binary file, open for reading, whose content comes out of an archive.

    The end of a ``with`` block reads to the end of the archive (see :meth:`finish`) unless an exception leaves it. The
    file beneath stays open. Making one takes as long as the archive says, within the bounds of
    :class:`keys.passphrase.Cost`, at worst some seconds and 1 GiB: not on an event loop.

    Args:
        file: where from; only read, from where it stands, and to its end.
        passphrase: as a person typed it.

    Raises:
        NotAnArchive: the file is none.
        WrongArchivePassphrase: the passphrase is wrong, or the beginning was changed; also from what reads.
        DamagedArchive: it is cut short or was changed; also from what reads.
        ArchiveError: the passphrase is empty or too long, or the memory that the archive asks for cannot be had.
        OSError: of the file beneath, here and from what reads.
    """

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        super().__init__()
        self._file = file
        self._content = memoryview(b"")  # opened and not yet taken
        self._peeked = b""  # read to learn whether a chunk is the last
        self._at_end = False
        self._failed: ArchiveError | None = None
        header = self._read_file(HEADER_SIZE)
        if not header.startswith(MAGIC):
            raise NotAnArchive("this is not a sealed archive of blindrelay")
        if len(header) < HEADER_SIZE:
            raise DamagedArchive("the archive is cut short: not even its head is whole; take another copy of it")
        cost, salt = _read_header(header)
        self._chunks = _Chunks(passphrase, cost, salt, header)
        self._next_chunk()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end; without `size` all that is left."""
        parts = []
        left = size if size is not None and size >= 0 else None
        while left is None or left > 0:
            part = self.read1(-1 if left is None else left)
            if not part:
                break
            parts.append(part)
            if left is not None:
                left -= len(part)
        return b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, and at most one chunk; ``b""`` at the end alone (or if `size` is 0)."""
        if self.closed:
            raise ValueError("the archive is closed")
        while not self._content and not self._at_end:
            self._next_chunk()
        part = bytes(self._content if size < 0 else self._content[:size])
        self._content = self._content[len(part) :]
        return part

    def finish(self) -> None:
        """Read to the end of the archive, and so make sure that it is whole. What was not read yet is let go.

        Needed because a reader of what is inside may stop earlier: tarfile does at the end mark of a tar archive.
        """
        while self.read1():
            continue

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.closed:
                self.finish()
        finally:
            self.close()

    def _next_chunk(self) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            self._content = memoryview(self._open_chunk())
        except ArchiveError as error:
            # Else a reader that tries again would take the next chunk for the one that is missing.
            self._failed = error
            raise

    def _open_chunk(self) -> bytes:
        wanted = CHUNK_SIZE + p.TAG_SIZE
        read = self._peeked + self._read_file(wanted + 1 - len(self._peeked))
        sealed, self._peeked = read[:wanted], read[wanted:]
        at_end = not self._peeked
        first = self._chunks.count == 0
        try:
            content = self._chunks.open(sealed, last=at_end)
        except OpenError:
            if at_end and len(sealed) == wanted and self._chunks.opens(sealed, last=False):
                raise DamagedArchive("the archive is cut short: its end is missing; take another copy of it") from None
            if first:
                raise WrongArchivePassphrase(
                    "the archive does not open: the passphrase is wrong, or its beginning was changed or cut"
                ) from None
            raise DamagedArchive(
                f"the archive is cut short or was changed after {self._chunks.count * CHUNK_SIZE} bytes of content; "
                "take another copy of it"
            ) from None
        if at_end and not content and not first:
            # One content has one form of archive.
            raise DamagedArchive("the archive ends in an empty chunk, which is never written")
        self._at_end = at_end
        return content

    def _read_file(self, size: int) -> bytes:
        parts = []
        while size > 0:
            part = self._file.read(size)  # less than asked for from a pipe or a raw file
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class _Chunks:
    """The sealing and opening of one archive's chunks, in their order."""

    __slots__ = ("_key", "_prefix", "count")

    def __init__(self, passphrase: str, cost: pw.Cost, salt: bytes, header: bytes) -> None:
        try:
            encoded = pw.encode_typed(passphrase)
        except ValueError as error:
            raise ArchiveError(str(error)) from None
        try:
            key = p.passphrase_key(encoded, salt, opslimit=cost.opslimit, memlimit=cost.memlimit)
        except MemoryError:
            raise ArchiveError(
                f"the passphrase of the archive takes {cost.memlimit >> 20} MiB of memory, which cannot be had"
            ) from None
        self._key = p.derive_key(_PURPOSE, key + header)
        self._prefix = header[-_PREFIX:]
        self.count = 0

    def seal(self, content: bytes, *, last: bool) -> bytes:
        sealed = p.aead_seal(self._key, self._nonce(last=last), content)
        self.count += 1
        return sealed

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        content = p.aead_open(self._key, self._nonce(last=last), sealed)
        self.count += 1
        return content

    def opens(self, sealed: bytes, *, last: bool) -> bool:
        """Tell whether a chunk would open; it is not counted."""
        try:
            p.aead_open(self._key, self._nonce(last=last), sealed)
        except OpenError:
            return False
        return True

    def _nonce(self, *, last: bool) -> bytes:
        return self._prefix + self.count.to_bytes(_COUNTER, "big") + bytes([last])

    def __repr__(self) -> str:
        return "_Chunks(…)"


def _read_header(header: bytes) -> tuple[pw.Cost, bytes]:
    at = len(MAGIC)
    opslimit = int.from_bytes(header[at : at + _OPSLIMIT], "little")
    at += _OPSLIMIT
    memlimit = int.from_bytes(header[at : at + _MEMLIMIT], "little")
    at += _MEMLIMIT
    try:
        cost = pw.Cost(opslimit, memlimit)
    except ValueError as error:
        raise NotAnArchive(f"the head of the archive was changed: {error}") from None
    return cost, header[at : at + p.SALT_SIZE]
