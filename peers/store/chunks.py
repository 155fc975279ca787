"""Which chunks of a file are here, kept as runs: a file that comes in order is one run, however big it is."""

from bisect import bisect_right
from collections.abc import Container, Iterator
from itertools import pairwise
from typing import Final, Self

RUNS_MAX: Final = 1024
"""Most runs that are kept. What would make another one is not taken, and has to be sent again: a peer that scatters its
chunks must not make us remember them one by one."""
_NUMBER: Final = 8
"""Bytes of a number as :meth:`Chunks.encode` writes it."""


class Chunks:
    """The chunks of one file.

    Args:
        total: how many the file has.
    """

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self._starts: list[int] = []
        self._ends: list[int] = []  # one beyond the last of each run

    def add(self, index: int) -> bool:
        """Take a chunk; False if it was here, is none of the file, or cannot be remembered."""
        if not 0 <= index < self.total:
            return False
        at = bisect_right(self._starts, index)  # the run before which a new one would stand
        if at and index < self._ends[at - 1]:
            return False
        behind = at > 0 and self._ends[at - 1] == index
        before = at < len(self._starts) and self._starts[at] == index + 1
        if behind and before:
            self._ends[at - 1] = self._ends[at]
            del self._starts[at], self._ends[at]
        elif behind:
            self._ends[at - 1] = index + 1
        elif before:
            self._starts[at] = index
        elif len(self._starts) >= RUNS_MAX:
            return False
        else:
            self._starts.insert(at, index)
            self._ends.insert(at, index + 1)
        return True

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        at = bisect_right(self._starts, index)
        return at > 0 and index < self._ends[at - 1]

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._starts)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return len(self) == self.total

    @property
    def end(self) -> int:
        """One beyond the last chunk that is here; 0 without any."""
        return self._ends[-1] if self._ends else 0

    def missing(self, most: int, but: Container[int] = ()) -> list[tuple[int, int]]:
        """Return runs ``(first, count)`` of chunks that are missing and not in `but`, the lowest first, together `most`
        chunks at most."""
        runs: list[tuple[int, int]] = []
        for index in self._gaps():
            if most <= 0:
                break
            if index in but:
                continue
            most -= 1
            if runs and sum(runs[-1]) == index:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((index, 1))
        return runs

    def _gaps(self) -> Iterator[int]:
        at = 0
        for start, end in zip(self._starts, self._ends, strict=True):
            yield from range(at, start)
            at = end
        yield from range(at, self.total)

    def encode(self) -> bytes:
        """Return what :meth:`parse` takes: the ends of each run, 8 bytes each, little endian."""
        numbers = (n for run in zip(self._starts, self._ends, strict=True) for n in run)
        return b"".join(number.to_bytes(_NUMBER, "little") for number in numbers)

    @classmethod
    def parse(cls, total: int, encoded: bytes | None) -> Self:
        """Return the chunks that were written down; none, if what was written is not about such a file."""
        chunks = cls(total)
        if not encoded or len(encoded) % (2 * _NUMBER) or len(encoded) > 2 * _NUMBER * RUNS_MAX:
            return chunks
        ends = [int.from_bytes(encoded[at : at + _NUMBER], "little") for at in range(0, len(encoded), _NUMBER)]
        if ends[-1] <= total and all(a < b for a, b in pairwise(ends)):
            chunks._starts, chunks._ends = ends[::2], ends[1::2]
        return chunks


def count(size: int, chunk: int) -> int:
    """Return how many chunks of so many bytes a file has."""
    return -(-size // chunk)


def length(size: int, chunk: int, index: int) -> int:
    """Return how many bytes a chunk has: the last one of a file may have fewer than the others."""
    return min(chunk, size - index * chunk)
