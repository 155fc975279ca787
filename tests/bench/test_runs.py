"""What falls below its floor is measured again, and nothing else is."""

from collections.abc import Callable
from typing import cast

from bench.context import Context
from bench.floors import Floor
from bench.run import Runs
from bench.scenarios import Scenario
from bench.stats import BASE, OURS, Figure


class Script:
    """A scenario that gives these ratios, run after run."""

    def __init__(self, name: str, *ratios: float) -> None:
        self.name = name
        self.ratios = list(ratios)
        self.runs = 0

    def __call__(self, _context: Context) -> list[Figure]:
        self.runs += 1
        ratio = self.ratios.pop(0)
        values = {OURS: [ratio] * 3, BASE: [1.0] * 3}
        return [Figure(f"{self.name}/x", "µs", more_is_better=True, values=values)]


def measure(floors: list[Floor], *scripts: Script) -> tuple[Runs, list[bool]]:
    def context(_tell: Callable[[str], None]) -> Context:
        return cast("Context", None)

    runs = Runs({each.name: Scenario(each, 1, 10) for each in scripts}, context, quick=True)
    runs.run(lambda _text, _done: None)
    return runs, [verdict.holds for verdict in runs.judge(floors, lambda _text, _done: None)]


def floor(name: str, at_least: float) -> Floor:
    return Floor(f"{name}/x", "because", at_least=at_least)


def test_what_holds_is_measured_once() -> None:
    one, other = Script("one", 2.0), Script("other", 1.0)
    runs, holds = measure([floor("one", 1.5)], one, other)
    assert holds == [True]
    assert (one.runs, other.runs) == (1, 1)
    assert [figure.name for figure in runs.figures] == ["one/x", "other/x"]


def test_a_loud_neighbour_fails_nobody() -> None:
    one, other = Script("one", 1.0, 3.0), Script("other", 2.0)
    runs, holds = measure([floor("one", 1.5), floor("other", 1.5)], one, other)
    assert holds == [True, True]
    assert (one.runs, other.runs) == (2, 1)
    assert runs.figures[0].ratios(OURS) == [1.0] * 3 + [3.0] * 3


def test_what_is_slower_fails_twice() -> None:
    one = Script("one", 1.0, 1.2)
    _, holds = measure([floor("one", 1.5)], one)
    assert holds == [False]
    assert one.runs == 2
