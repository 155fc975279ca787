"""`python -m bench.cluster` runs to its end and prints figures that can be true. Their worth is for a long run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs_module("nats")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command, and return what it printed."""

    def call(*arguments: str) -> str:
        from bench import cluster  # it needs the extra, and who has it not is to be told by name

        monkeypatch.setattr("sys.argv", ["bench.cluster", *arguments])
        cluster.main()
        return capsys.readouterr().out

    return call


def figures(pattern: str, text: str) -> list[float]:
    return [float(figure.replace(",", "")) for figure in re.findall(pattern, text)]


def test_one_relay_beside_two_that_are_one(run: Callable[..., str]) -> None:
    printed = run("--rounds", "1", "--seconds", "0.1")
    assert len(re.findall(r"^\d+ B, \d in flight, \d+ pairs; median of 1 rounds", printed, re.MULTILINE)) == 5
    for name in ("alone", "local", "remote"):
        rates = figures(rf"(?m)^  {name} +([\d,]+) frames/s", printed)
        costs = figures(rf"(?m)^  {name} .* ([\d.]+) µs of relay CPU a frame", printed)
        assert len(rates) == len(costs) == 5
        assert min(rates) > 0
        assert min(costs) > 0
    for name in ("sender's node", "recipient's node", "NATS"):
        assert len(figures(rf"{name} ([\d.]+) µs", printed)) == 5
    assert min(figures(r"(?:alone|local|remote) (\d+) µs", printed.splitlines()[-1])) > 0


def test_what_ids_cost(run: Callable[..., str]) -> None:
    printed = run("--ids", "200")
    assert re.search(
        r"(?m)^200 ids: [\d.]+ s until NATS knows the last \([\d.]+ s of our CPU\), -?\d+ bytes each", printed
    )
    assert re.search(r"(?m)^NATS: -?\d+ bytes each$", printed)


def test_workers_beside_one_process(run: Callable[..., str]) -> None:
    printed = run("--workers", "2", "--rounds", "1", "--seconds", "0.1")
    assert len(figures(r"one process: ([\d.]+) µs of CPU a frame", printed)) == 2
    for together, one, other in re.findall(r"2 workers: ([\d.]+) µs together \(([\d.]+) \+ ([\d.]+)\)", printed):
        # Each has its share: nobody was connected to one of them alone.
        assert 0 < float(one) < float(together)
        assert 0 < float(other) < float(together)
        assert float(one) + float(other) == pytest.approx(float(together), abs=0.02)
    assert len(figures(r"with a core for each worker: ×([\d.]+) frames", printed)) == 2
