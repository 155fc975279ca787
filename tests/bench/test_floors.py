"""bench/floors.py: reading floors.toml, and judging by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.floors import BadFloors, Floor, judge, read_floors
from bench.scenarios import throughput
from bench.stats import BASE, OURS, Figure

if TYPE_CHECKING:
    from pathlib import Path


def figure(ratio: float, rounds: int = 3) -> Figure:
    return Figure("a/b", "", more_is_better=True, values={OURS: [ratio] * rounds, BASE: [1.0] * rounds})


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "floors.toml"
    path.write_text(text)
    return path


def test_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[[floor]]\nfigure = "a/b"\nat_least = 3\nreason = "r"\n[[floor]]\nfigure = "c"\nat_most = 0.5\nreason = "s"\n',
    )
    assert read_floors(path) == [Floor("a/b", "r", at_least=3), Floor("c", "s", at_most=0.5)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "floors.toml"),
        ('x = 1\n[[floor]]\nfigure = "a"\nat_least = 1\nreason = "r"', "nothing else"),
        ('[[floor]]\nfigure = "a"\nat_least = 1\nreason = "r"\nwhy = 1', "a floor has"),
        ('[[floor]]\nfigure = "a"\nat_least = 1', "a reason"),
        ('[[floor]]\nfigure = "a"\nat_least = 1\nreason = " "', "a reason"),
        ('[[floor]]\nfigure = "a"\nreason = "r"', "at_least or at_most"),
        ('[[floor]]\nfigure = "a"\nat_least = 1\nat_most = 2\nreason = "r"', "at_least or at_most"),
        ('[[floor]]\nfigure = "a"\nat_least = true\nreason = "r"', "at_least or at_most"),
        ('[[floor]]\nfigure = "a"\nat_least = 0\nreason = "r"', "above 0"),
        ('[[floor]]\nfigure = "latency p99.9/x"\nat_most = 1\nreason = "r"', "tail"),
        ('[[floor]]\nfigure = "a"\nat_least = 1\nreason = "r"\n' * 2, "two floors"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(BadFloors, match=complaint):
        read_floors(write(tmp_path, text))


@pytest.mark.parametrize(
    ("floor", "ratio", "holds"),
    [
        (Floor("a/b", "r", at_least=3.0), 3.0, True),
        (Floor("a/b", "r", at_least=3.0), 2.99, False),
        (Floor("a/b", "r", at_most=0.5), 0.5, True),
        (Floor("a/b", "r", at_most=0.5), 0.51, False),
    ],
)
def test_judge(floor: Floor, ratio: float, holds: bool) -> None:
    (verdict,) = judge([floor], [figure(ratio)])
    assert verdict.holds is holds
    assert verdict.ratio == ratio


def test_a_figure_that_was_not_measured_is_not_judged() -> None:
    assert judge([Floor("other", "r", at_least=1.0)], [figure(1.0)]) == []


def test_two_rounds_are_too_few() -> None:
    with pytest.raises(BadFloors, match="3 rounds"):
        judge([Floor("a/b", "r", at_least=1.0)], [figure(1.0, rounds=2)])


def test_the_floors_of_the_ci_are_readable_and_known_to_the_quick_run() -> None:
    cells = {f"{kind}/{cell.name}" for kind in ("throughput", "cpu per frame") for cell in throughput.cells(quick=True)}
    floors = read_floors()
    assert floors
    for floor in floors:
        if floor.figure.partition("/")[2].count("in flight"):
            assert floor.figure in cells
