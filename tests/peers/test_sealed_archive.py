"""peers/sealed_archive.py: round trips, and every way in which an archive can be cut, changed or put together anew."""

import errno
import gc
import io
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys import passphrase as pw
from keys import primitives as p
from peers.sealed_archive import (
    CHUNK_SIZE,
    HEADER_SIZE,
    MAGIC,
    ArchiveError,
    DamagedArchive,
    NotAnArchive,
    OpeningReader,
    SealingWriter,
    WrongArchivePassphrase,
)
from tests.keys.known import CHEAP, drawn

PASSPHRASE = "correct horse"
SEALED_CHUNK = CHUNK_SIZE + 16
SIZES = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE, 3 * CHUNK_SIZE + 17]


def content_of(size: int) -> bytes:
    """Bytes in which no two chunks are alike."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


def sealed(content: bytes, passphrase: str = PASSPHRASE) -> bytes:
    file = io.BytesIO()
    with SealingWriter(file, passphrase, CHEAP) as writer:
        writer.write(content)
    return file.getvalue()


def opened(archive: bytes, passphrase: str = PASSPHRASE) -> bytes:
    with OpeningReader(io.BytesIO(archive), passphrase) as reader:
        return reader.read()


def chunks(archive: bytes) -> tuple[bytes, list[bytes]]:
    header, body = archive[:HEADER_SIZE], archive[HEADER_SIZE:]
    return header, [body[at : at + SEALED_CHUNK] for at in range(0, len(body), SEALED_CHUNK)]


class Dribble(io.RawIOBase):
    """A raw file that gives and takes a few bytes at a time, as pipes may."""

    def __init__(self, content: bytes = b"") -> None:
        self.held = bytearray(content)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), len(self.held), 7001)
        buffer[:size] = self.held[:size]
        del self.held[:size]
        return size

    def write(self, data: Any) -> int:
        part = bytes(data[:4999])
        self.held += part
        return len(part)


# --- Round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size: int) -> None:
    content = content_of(size)
    archive = sealed(content)
    assert len(archive) == HEADER_SIZE + size + 16 * max(1, -(-size // CHUNK_SIZE))
    assert opened(archive) == content


@settings(deadline=None)
@given(st.lists(st.integers(0, 3 * CHUNK_SIZE // 2), max_size=5), st.lists(st.integers(1, CHUNK_SIZE * 2), max_size=5))
def test_how_it_is_written_and_read_makes_no_difference(writes: list[int], reads: list[int]) -> None:
    content = content_of(sum(writes))
    file = io.BytesIO()
    with SealingWriter(file, PASSPHRASE, CHEAP, drawn(b"s" * 16, b"p" * 16)) as writer:
        at = 0
        for size in writes:
            assert writer.write(memoryview(content)[at : at + size]) == size
            at += size
    at_once = io.BytesIO()
    with SealingWriter(at_once, PASSPHRASE, CHEAP, drawn(b"s" * 16, b"p" * 16)) as writer:
        writer.write(content)
    assert file.getvalue() == at_once.getvalue()
    with OpeningReader(io.BytesIO(file.getvalue()), PASSPHRASE) as reader:
        parts = []
        left = len(content)
        for size in reads:
            parts.append(reader.read(size))
            assert len(parts[-1]) == min(size, left)
            left -= len(parts[-1])
        assert b"".join(parts) + reader.read() == content


def test_a_read_is_short_only_at_the_end() -> None:
    with OpeningReader(io.BytesIO(sealed(content_of(CHUNK_SIZE + 10))), PASSPHRASE) as reader:
        assert len(reader.read(CHUNK_SIZE + 5)) == CHUNK_SIZE + 5
        assert reader.read(0) == b""
        assert len(reader.read(9)) == 5
        assert reader.read(9) == reader.read() == b""


def test_files_that_take_and_give_little_at_a_time() -> None:
    content = content_of(2 * CHUNK_SIZE + 5)
    pipe = Dribble()
    with SealingWriter(cast("BinaryIO", pipe), PASSPHRASE, CHEAP) as writer:
        writer.write(content)
    with OpeningReader(cast("BinaryIO", pipe), PASSPHRASE) as reader:
        assert reader.read() == content


def test_it_begins_where_the_file_stands_and_leaves_it_open() -> None:
    file = io.BytesIO()
    file.write(b"before")
    with SealingWriter(file, PASSPHRASE, CHEAP) as writer:
        writer.write(b"content")
    file.seek(6)
    with OpeningReader(file, PASSPHRASE) as reader:
        assert reader.read() == b"content"
    assert not file.closed


def test_tar_archives_stream_through(tmp_path: Path) -> None:
    content = content_of(3 * CHUNK_SIZE)
    path = tmp_path / "backup"
    with (
        path.open("wb") as file,
        SealingWriter(file, PASSPHRASE, CHEAP) as writer,
        tarfile.open(fileobj=writer, mode="w|") as tar,
    ):
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert b"ustar" not in path.read_bytes()
    with (
        path.open("rb") as source,
        OpeningReader(source, PASSPHRASE) as reader,
        tarfile.open(fileobj=reader, mode="r|") as contents,
    ):
        found = {}
        for member in contents:
            extracted = contents.extractfile(member)
            assert extracted is not None
            found[member.name] = extracted.read()
    assert found == {"a": content, "b": content}


def test_the_passphrase_has_one_form_from_every_keyboard() -> None:
    assert opened(sealed(b"content", "\u00e9t\u00e9"), "e\u0301te\u0301") == b"content"


def test_nothing_is_alike_in_two_archives_of_one_content() -> None:
    one, other = sealed(b"content"), sealed(b"content")
    assert one[HEADER_SIZE:] != other[HEADER_SIZE:]
    assert one[len(MAGIC) + 12 : HEADER_SIZE - 16] != other[len(MAGIC) + 12 : HEADER_SIZE - 16]
    assert one[HEADER_SIZE - 16 : HEADER_SIZE] != other[HEADER_SIZE - 16 : HEADER_SIZE]


def test_the_bytes_are_those_that_the_docstring_names() -> None:
    file = io.BytesIO()
    with SealingWriter(file, PASSPHRASE, pw.Cost(2, 16384), drawn(b"s" * 16, b"p" * 16)) as writer:
        writer.write(content_of(CHUNK_SIZE + 3))
    header, (first, second) = chunks(file.getvalue())
    assert header == MAGIC + b"\2\0\0\0" + b"\0\x40\0\0\0\0\0\0" + b"s" * 16 + b"p" * 16
    key = p.passphrase_key(PASSPHRASE.encode(), b"s" * 16, opslimit=2, memlimit=16384)
    key = p.derive_key("blindrelay sealed archive 1: key of the chunks", key + header)
    assert p.aead_open(key, b"p" * 16 + bytes(7) + b"\0", first) == content_of(CHUNK_SIZE)
    assert p.aead_open(key, b"p" * 16 + bytes(6) + b"\1\1", second) == content_of(CHUNK_SIZE + 3)[CHUNK_SIZE:]


def test_content_of_any_size_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "big"
    block = content_of(1 << 20)
    blocks = 50
    tracemalloc.start()
    try:
        with path.open("wb") as file, SealingWriter(file, PASSPHRASE, CHEAP) as writer:
            for i in range(blocks):
                writer.write(i.to_bytes(4, "big") + block)
        with path.open("rb") as source, OpeningReader(source, PASSPHRASE) as reader:
            for i in range(blocks):
                assert reader.read(4) == i.to_bytes(4, "big")
                assert reader.read(len(block)) == block
            assert reader.read(1) == b""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > blocks << 20
    assert peak < 5 << 20  # two of the blocks that the test itself asks for, and a few chunks


# --- What must not open ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", ["correct hors", "correct horse ", "Correct horse"])
def test_another_passphrase(passphrase: str) -> None:
    for size in SIZES:
        with pytest.raises(WrongArchivePassphrase, match="the passphrase is wrong"):
            OpeningReader(io.BytesIO(sealed(content_of(size))), passphrase)


def test_every_truncation_of_a_small_archive_is_refused() -> None:
    archive = sealed(b"a small content of some bytes")
    for size in range(len(archive)):
        expected = NotAnArchive if size < len(MAGIC) else DamagedArchive if size < HEADER_SIZE else None
        with pytest.raises(expected or WrongArchivePassphrase):
            opened(archive[:size])


@pytest.mark.parametrize("size", [size for size in SIZES if size > CHUNK_SIZE])
def test_truncations_of_archives_of_several_chunks_are_refused(size: int) -> None:
    content = content_of(size)
    archive = sealed(content)
    ends = range(HEADER_SIZE + SEALED_CHUNK, len(archive), SEALED_CHUNK)
    cuts = {end + off for end in ends for off in (-1, 0, 1, 15, 16, 17)} | {len(archive) - 1}
    for cut in sorted(cut for cut in cuts if cut < len(archive)):
        read = bytearray()
        with pytest.raises((DamagedArchive, WrongArchivePassphrase), match="cut"):
            read_into(read, archive[:cut])
        assert content.startswith(read)
        if cut >= HEADER_SIZE + SEALED_CHUNK:  # the first chunk tells that the passphrase is right
            with pytest.raises(DamagedArchive, match="is cut short" if cut in ends else "cut short or was changed"):
                opened(archive[:cut])


def read_into(target: bytearray, archive: bytes) -> None:
    with OpeningReader(io.BytesIO(archive), PASSPHRASE) as reader:
        while part := reader.read1(10_000):
            target += part


def test_every_flipped_bit_of_a_small_archive_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # A flipped bit of the cost asks for up to 4 GiB of work: another derivation stands in that depends on the same.
    def derive(passphrase: bytes, salt: bytes, *, opslimit: int, memlimit: int) -> bytes:
        return p.derive_key("test", passphrase + salt + opslimit.to_bytes(8, "big") + memlimit.to_bytes(8, "big"))

    monkeypatch.setattr(p, "passphrase_key", derive)
    archive = sealed(b"content")
    assert opened(archive) == b"content"
    for at in range(len(archive)):
        for bit in range(8):
            changed = archive[:at] + bytes([archive[at] ^ 1 << bit]) + archive[at + 1 :]
            expected: tuple[type[ArchiveError], ...] = (WrongArchivePassphrase,)
            if at < len(MAGIC):
                expected = (NotAnArchive,)
            elif at < len(MAGIC) + 12:
                expected = (NotAnArchive, WrongArchivePassphrase)  # a cost out of bounds, or another key
            with pytest.raises(expected):
                opened(changed)


def test_a_changed_header_does_not_open_although_the_derived_key_would_be_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(p, "passphrase_key", lambda *_, **__: b"k" * 32)
    archive = sealed(b"content")
    for at in range(len(MAGIC) + 12, HEADER_SIZE):
        with pytest.raises(WrongArchivePassphrase):
            opened(archive[:at] + bytes([archive[at] ^ 1]) + archive[at + 1 :])


@pytest.mark.parametrize("at", [0, SEALED_CHUNK - 1, SEALED_CHUNK, SEALED_CHUNK + 70, 2 * SEALED_CHUNK, -1])
def test_changes_show_at_the_chunk_that_they_are_in(at: int) -> None:
    content = content_of(2 * CHUNK_SIZE + 100)
    archive = bytearray(sealed(content))
    at = HEADER_SIZE + at if at >= 0 else len(archive) - 1
    archive[at] ^= 1
    whole = (at - HEADER_SIZE) // SEALED_CHUNK
    read = bytearray()
    with pytest.raises(DamagedArchive if whole else WrongArchivePassphrase):
        read_into(read, bytes(archive))
    assert read == content[: whole * CHUNK_SIZE]


def arrangements() -> Iterator[tuple[str, Callable[[list[bytes], list[bytes]], list[bytes]]]]:
    yield "first left out", lambda mine, _: mine[1:]
    yield "middle left out", lambda mine, _: [mine[0], *mine[2:]]
    yield "last left out", lambda mine, _: mine[:-1]
    yield "exchanged", lambda mine, _: [mine[0], mine[2], mine[1], *mine[3:]]
    yield "repeated", lambda mine, _: [*mine[:2], *mine[1:]]
    yield "last repeated", lambda mine, _: [*mine, mine[-1]]
    yield "last alone", lambda mine, _: mine[-1:]
    yield "continued with a byte", lambda mine, _: [*mine, b"\0"]
    yield "continued with zeros", lambda mine, _: [*mine, bytes(SEALED_CHUNK)]
    yield "continued with all of it", lambda mine, _: [*mine, *mine]
    yield "a chunk of another archive", lambda mine, other: [mine[0], other[1], *mine[2:]]
    yield "the end of another archive", lambda mine, other: [*mine[:-1], other[-1]]


@pytest.mark.parametrize("size", [3 * CHUNK_SIZE + 100, 4 * CHUNK_SIZE])
@pytest.mark.parametrize(("name", "arrange"), list(arrangements()))
def test_chunks_arranged_anew(size: int, name: str, arrange: Callable[[list[bytes], list[bytes]], list[bytes]]) -> None:
    content = content_of(size)
    header, mine = chunks(sealed(content))
    _, other = chunks(sealed(content))
    read = bytearray()
    with pytest.raises((DamagedArchive, WrongArchivePassphrase)):
        read_into(read, header + b"".join(arrange(mine, other)))
    assert content.startswith(read)


def test_an_empty_last_chunk_after_others_is_refused() -> None:
    content = content_of(CHUNK_SIZE)
    file = io.BytesIO()
    writer = SealingWriter(file, PASSPHRASE, CHEAP)
    writer.write(content)
    writer._write_chunk(last=False)
    writer.close()
    with pytest.raises(DamagedArchive, match="empty chunk"):
        opened(file.getvalue())


def test_a_reader_that_failed_goes_on_failing() -> None:
    header, mine = chunks(sealed(content_of(3 * CHUNK_SIZE)))
    damaged = header + mine[0] + bytes(SEALED_CHUNK) + mine[1] + mine[2]
    reader = OpeningReader(io.BytesIO(damaged), PASSPHRASE)
    assert reader.read(CHUNK_SIZE) == content_of(CHUNK_SIZE)
    for _ in range(3):
        with pytest.raises(DamagedArchive):
            reader.read(1)
    with pytest.raises(DamagedArchive):
        reader.finish()


def test_a_cut_after_the_last_byte_that_was_read_shows_at_the_end_of_the_block() -> None:
    archive = sealed(content_of(2 * CHUNK_SIZE + 5))
    with (
        pytest.raises(DamagedArchive, match="cut short"),
        OpeningReader(io.BytesIO(archive[: -(5 + 16)]), PASSPHRASE) as reader,
    ):
        reader.read(10)
    assert reader.closed


def test_another_exception_is_not_hidden_by_the_end_of_the_block() -> None:
    archive = sealed(content_of(2 * CHUNK_SIZE + 5))[:-1]
    with pytest.raises(LookupError), OpeningReader(io.BytesIO(archive), PASSPHRASE):
        raise LookupError


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"blindrelay sealed archive 2\n", bytes(200)])
def test_other_files(content: bytes) -> None:
    with pytest.raises(NotAnArchive, match="not a sealed archive"):
        OpeningReader(io.BytesIO(content), PASSPHRASE)


@pytest.mark.parametrize(
    ("opslimit", "memlimit"), [(0, 8192), (1, 0), (1, (1 << 30) + 1), (5, 1 << 30), (2**32 - 1, 2**64 - 1)]
)
def test_costs_out_of_bounds_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, opslimit: int, memlimit: int
) -> None:
    archive = sealed(b"content")
    monkeypatch.setattr(p, "passphrase_key", lambda *_, **__: pytest.fail("derived a key"))
    head = MAGIC + opslimit.to_bytes(4, "little") + memlimit.to_bytes(8, "little")
    with pytest.raises(NotAnArchive, match="limit must be between"):
        OpeningReader(io.BytesIO(head + archive[len(head) :]), PASSPHRASE)


@pytest.mark.parametrize(("passphrase", "why"), [("", "empty"), ("a" * 4097, "longer than"), ("\ud800", "not UTF-8")])
def test_passphrases_that_cannot_serve(passphrase: str, why: str) -> None:
    file = io.BytesIO()
    with pytest.raises(ArchiveError, match=why):
        SealingWriter(file, passphrase, CHEAP)
    assert not file.getvalue()
    with pytest.raises(ArchiveError, match=why):
        OpeningReader(io.BytesIO(sealed(b"content")), passphrase)


def test_memory_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise MemoryError

    archive = sealed(b"content")
    monkeypatch.setattr(p, "passphrase_key", fail)
    with pytest.raises(ArchiveError, match="256 MiB of memory, which cannot be had"):
        SealingWriter(io.BytesIO(), PASSPHRASE)
    with pytest.raises(ArchiveError, match="memory, which cannot be had"):
        OpeningReader(io.BytesIO(archive), PASSPHRASE)


# --- Half an archive is never taken for a whole one -----------------------------------------------------------------


def assert_cut(archive: bytes) -> None:
    with pytest.raises((DamagedArchive, WrongArchivePassphrase), match="cut"):
        opened(archive)


@pytest.mark.parametrize("size", SIZES)
def test_an_exception_leaves_a_cut_archive(size: int) -> None:
    file = io.BytesIO()
    with pytest.raises(LookupError), SealingWriter(file, PASSPHRASE, CHEAP) as writer:
        writer.write(content_of(size))
        raise LookupError
    assert writer.closed
    writer.close()
    assert_cut(file.getvalue())


def test_a_forgotten_writer_leaves_a_cut_archive() -> None:
    file = io.BytesIO()
    writer = SealingWriter(file, PASSPHRASE, CHEAP)
    writer.write(content_of(CHUNK_SIZE + 5))
    del writer
    gc.collect()
    assert_cut(file.getvalue())


class Full(io.BytesIO):
    """A file on a disk that is full for a while: what was taken before stays, as in a buffer."""

    room = HEADER_SIZE + 100

    def write(self, data: Any, /) -> int:
        if self.tell() >= self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data[: self.room - self.tell()])


def test_a_full_disk_leaves_a_cut_archive_whatever_comes_after() -> None:
    file = Full()
    writer = SealingWriter(file, PASSPHRASE, CHEAP)
    with pytest.raises(OSError, match="No space"):
        writer.write(content_of(2 * CHUNK_SIZE))
    file.room = 1 << 30
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")
    writer.close()
    assert_cut(file.getvalue())


def test_a_full_disk_at_the_end() -> None:
    file = Full()
    writer = SealingWriter(file, PASSPHRASE, CHEAP)
    writer.write(content_of(1000))
    with pytest.raises(OSError, match="No space"):
        writer.close()
    file.room = 1 << 30
    writer.close()
    assert_cut(file.getvalue())


def test_a_file_that_takes_nothing() -> None:
    class Never(io.BytesIO):
        def write(self, data: Any, /) -> int:
            return 0

    with pytest.raises(BlockingIOError):
        SealingWriter(Never(), PASSPHRASE, CHEAP)


def test_what_is_closed_is_closed() -> None:
    file = io.BytesIO()
    writer = SealingWriter(file, PASSPHRASE, CHEAP)
    assert writer.writable()
    assert not writer.readable()
    writer.write(b"content")
    writer.close()
    size = len(file.getvalue())
    writer.close()
    assert len(file.getvalue()) == size
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"more")
    reader = OpeningReader(io.BytesIO(file.getvalue()), PASSPHRASE)
    assert reader.readable()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()
