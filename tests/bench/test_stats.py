"""bench/stats.py: medians, percentiles, ratios."""

from __future__ import annotations

import pytest

from bench.stats import BASE, OURS, Figure, medians, percentile


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 5.0), (0.9, 9.0), (0.91, 10.0), (0.999, 10.0), (1.0, 10.0)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    values = [float(value) for value in (3, 1, 2, 10, 9, 8, 7, 6, 5, 4)]
    assert percentile(values, share) == expected


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1)])
def test_percentile_refuses_nonsense(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_the_medians() -> None:
    # The machine was slow in the second round, for both.
    figure = Figure("x", "frames/s", more_is_better=True, values={OURS: [40.0, 8.0, 50.0], BASE: [10.0, 2.0, 10.0]})
    assert figure.ratios(OURS) == [4.0, 4.0, 5.0]
    assert figure.ratio(OURS) == 4.0
    assert figure.value(OURS) == 40.0


def test_without_the_base_there_is_no_ratio() -> None:
    figure = Figure("x", "µs", more_is_better=False, values={OURS: [1.0]})
    assert figure.ratio(OURS) is None
    assert figure.better(OURS) is None
    assert figure.value(BASE) is None


@pytest.mark.parametrize(("ours", "more", "less"), [(2.0, True, False), (0.5, False, True), (1.0, True, True)])
def test_better_follows_the_direction(ours: float, more: bool, less: bool) -> None:
    values = {OURS: [ours], BASE: [1.0]}
    assert Figure("x", "", more_is_better=True, values=values).better(OURS) is more
    assert Figure("x", "", more_is_better=False, values=values).better(OURS) is less


def test_a_note_stands_once() -> None:
    figure = Figure("x", "", more_is_better=True)
    figure.note("a")
    figure.note("a")
    assert figure.notes == ["a"]


def test_medians_take_what_is_there() -> None:
    assert medians([{"a": 1.0}, {"a": 3.0, "b": 5.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}
