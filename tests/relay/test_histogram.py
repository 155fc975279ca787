"""Histograms of plain integers."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.histogram import Histogram


def test_bounds_are_inclusive_and_the_last_bucket_is_open() -> None:
    histogram = Histogram((1, 2.5))
    for value in (0, 1, 1.1, 2.5, 2.6, 1000):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.cumulative() == [(1, 2), (2.5, 4), (float("inf"), 6)]
    assert histogram.total == pytest.approx(1007.2)
    assert histogram.observed == 6


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1)])
def test_bounds_that_do_not_ascend(bounds: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        Histogram(bounds)


@given(st.lists(st.floats(min_value=0, max_value=10)))
def test_every_observation_is_in_one_bucket(values: list[float]) -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    for value in values:
        histogram.observe(value)
    assert histogram.observed == len(values)
    for bound, count in histogram.cumulative():
        assert count == sum(value <= bound for value in values)
