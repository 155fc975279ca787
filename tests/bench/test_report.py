"""bench/report.py and bench/plot.py: what people read of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench import plot, report
from bench.floors import Floor, Verdict
from bench.stats import BASE, OURS, Figure

if TYPE_CHECKING:
    from pathlib import Path

FIGURES = [
    Figure("throughput/256 B x 16 pairs, 1 in flight", "frames/s", True, {OURS: [30.0], BASE: [10.0]}),
    Figure("throughput/256 B x 16 pairs, 8 in flight", "frames/s", True, {OURS: [80.0], BASE: [10.0]}),
    Figure("latency p50/half of its own ceiling", "µs", False, {OURS: [300.0], BASE: [200.0]}, notes=["busy"]),
]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0123, "0.0123"), (3.14159, "3.14"), (314.159, "314"), (31415.9, "31,416")],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert report.format_value(value) == text


def test_markdown_names_the_losing_cases_and_the_notes() -> None:
    text = report.markdown(FIGURES, {"cpu": "one"}, "python -m bench")
    assert "| cpu | one |" in text
    assert "3.00 ×" in text
    losing = text.partition("## Where the base is ahead")[2]
    assert "latency p50" in losing
    assert "throughput" not in losing
    assert "busy" in text


def test_json_holds_the_rounds_and_the_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    verdict = Verdict(Floor("a", "r", at_least=2.0), 1.0, holds=False)
    report.write_json(path, FIGURES, {}, [verdict], "x")
    content = json.loads(path.read_text())
    assert content["figures"][0]["ratio_to_base"] == {OURS: 3.0}
    assert content["floors"] == [{"figure": "a", "bound": "at least 2 x", "ratio": 1.0, "holds": False}]


def test_curves() -> None:
    panels = plot.curves(FIGURES)
    assert panels["frames/s, 16 pairs"][f"{OURS}, 256 B"] == [("1", 30.0), ("8", 80.0)]
    assert panels["round trip at half of its own ceiling, µs"][BASE] == [("p50", 200.0)]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    plot.write_plot(path, FIGURES)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.write_plot(tmp_path / "x.png", [])
