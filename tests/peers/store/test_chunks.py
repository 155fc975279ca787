"""The chunks of a file, against the obvious model: a set of indexes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peers.store.chunks import RUNS_MAX, Chunks, count, length

INDEXES = st.lists(st.integers(-2, 40), max_size=80)


@given(st.integers(0, 30), INDEXES, st.sets(st.integers(0, 40)), st.integers(0, 50))
def test_as_a_set_would_have_it(total: int, indexes: list[int], but: set[int], most: int) -> None:
    chunks, model = Chunks(total), set[int]()
    for index in indexes:
        new = 0 <= index < total and index not in model
        assert chunks.add(index) is new
        if new:
            model.add(index)
    assert len(chunks) == len(model)
    assert chunks.complete is (len(model) == total)
    assert chunks.end == max(model, default=-1) + 1
    assert {index for index in range(-3, total + 3) if index in chunks} == model
    wanted = [index for index in range(total) if index not in model and index not in but][:most]
    runs = chunks.missing(most, but)
    assert [index for first, number in runs for index in range(first, first + number)] == wanted
    assert len(runs) == sum(index - 1 not in wanted for index in wanted)
    again = Chunks.parse(total, chunks.encode())
    assert again.encode() == chunks.encode()
    assert len(again) == len(model)


@given(st.integers(0, 100), st.binary(max_size=80))
def test_any_bytes_are_chunks_of_the_file_or_none(total: int, encoded: bytes) -> None:
    chunks = Chunks.parse(total, encoded)
    assert 0 <= len(chunks) <= total
    assert chunks.end <= total
    assert len(chunks) + sum(number for _, number in chunks.missing(1000)) == total


def test_what_is_scattered_is_not_remembered_without_bound() -> None:
    chunks = Chunks(10**9)
    assert sum(chunks.add(index) for index in range(0, 10 * RUNS_MAX, 2)) == RUNS_MAX
    assert len(chunks.encode()) == 16 * RUNS_MAX
    assert chunks.add(1)  # what closes a gap still goes


def test_a_long_run_takes_little() -> None:
    chunks = Chunks(100_000)
    for index in range(100_000):
        chunks.add(index)
    assert chunks.complete
    assert len(chunks.encode()) == 16
    backwards = Chunks(1000)
    for index in reversed(range(1000)):
        backwards.add(index)
    assert backwards.complete
    assert len(backwards.encode()) == 16


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_chunks_are_the_whole_file(size: int, chunk: int) -> None:
    total = count(size, chunk)
    assert (total - 1) * chunk < size <= total * chunk
    if total:
        assert 1 <= length(size, chunk, total - 1) <= chunk
        assert (total - 1) * chunk + length(size, chunk, total - 1) == size
