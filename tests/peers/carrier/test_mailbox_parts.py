"""The pure parts of leaving and picking up: one order of several mailboxes, and rests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.carrier.merging import merged
from peers.carrier.rests import Rests

subsets = st.lists(st.sets(st.integers(0, 12)), max_size=4)


@given(subsets)
def test_what_agrees_comes_in_its_order(found: list[set[int]]) -> None:
    sequences = [sorted(each) for each in found]
    order = merged(sequences)
    assert sorted(order) == sorted(set().union(*found))
    for sequence in sequences:
        assert [each for each in order if each in sequence] == sequence


@given(st.lists(st.lists(st.integers(0, 8)), max_size=4))
def test_what_contradicts_itself_comes_once_all_the_same(sequences: list[list[int]]) -> None:
    order = merged(sequences)
    assert len(order) == len(set(order))
    assert set(order) == {each for sequence in sequences for each in sequence}


@pytest.mark.parametrize(
    ("sequences", "order"),
    [
        ([[2], [1, 2]], [1, 2]),
        ([[1, 3], [2, 3]], [1, 2, 3]),
        ([[3, 4], [1, 3], [1, 2, 3]], [1, 2, 3, 4]),
        ([[1, 2], [2, 1]], [1, 2]),
        ([], []),
    ],
)
def test_orders(sequences: list[list[int]], order: list[int]) -> None:
    assert merged(sequences) == order


def test_rests_grow_and_end() -> None:
    rests = Rests(4.0, 30.0, lambda size: b"\0" * size)
    assert rests.until(1) == 0.0
    assert [rests.failed(1, 100.0) for _ in range(5)] == [104.0, 108.0, 116.0, 130.0, 130.0]
    assert rests.until(2) == 0.0
    rests.at_least(1, 200.0)
    assert rests.until(1) == 200.0
    rests.went_well(1)
    assert (rests.until(1), rests.failed(1, 0.0)) == (0.0, 4.0)
    assert Rests(4.0, 30.0, lambda size: b"\xff" * size).failed(1, 0.0) == 3.0
