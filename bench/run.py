"""The scenarios, one after another; and those again whose figures fall below their floors."""

import time
from collections.abc import Callable, Mapping, Sequence

from bench.context import Context
from bench.floors import Floor, Verdict, judge
from bench.scenarios import Scenario
from bench.stats import Figure

Tell = Callable[[str, float], None]
"""Takes a line for people, and the seconds of work that are done by the plan."""


class Runs:
    """Figures by the scenario that gave them.

    Args:
        scenarios: those to run, by name.
        context: makes the settings of one scenario from what tells of its progress.
        quick: whether it is the short run, for the plan.
    """

    def __init__(
        self, scenarios: Mapping[str, Scenario], context: Callable[[Callable[[str], None]], Context], *, quick: bool
    ) -> None:
        self._scenarios = scenarios
        self._context = context
        self._quick = quick
        self._done = 0.0
        self.by_scenario: dict[str, list[Figure]] = {}

    @property
    def figures(self) -> list[Figure]:
        """All figures, in the order of the scenarios."""
        return [figure for figures in self.by_scenario.values() for figure in figures]

    @property
    def expected(self) -> float:
        """Seconds that one run of all takes, about."""
        return sum(map(self._seconds, self._scenarios))

    def run(self, tell: Tell) -> None:
        """Run each once."""
        for name in self._scenarios:
            self.by_scenario[name] = self._measure(name, tell)

    def judge(self, floors: Sequence[Floor], tell: Tell) -> list[Verdict]:
        """Judge; what falls below its floor is measured once more, and the median of all rounds counts.

        So a neighbour who was loud for half a minute fails nobody, and what is really slower fails twice.
        """
        verdicts = judge(floors, self.figures)
        failed = {verdict.floor.figure for verdict in verdicts if not verdict.holds}
        for name, figures in self.by_scenario.items():
            if failed.isdisjoint(figure.name for figure in figures):
                continue
            tell(f"{name}: below a floor, measured again", self._done)
            again = {figure.name: figure for figure in self._measure(name, tell)}
            for figure in figures:
                if figure.name in again:
                    figure.add(again[figure.name])
        return judge(floors, self.figures) if failed else verdicts

    def _measure(self, name: str, tell: Tell) -> list[Figure]:
        begun = time.monotonic()

        def tell_within(text: str) -> None:
            tell(text, self._done + min(time.monotonic() - begun, self._seconds(name)))

        figures = self._scenarios[name].run(self._context(tell_within))
        self._done += self._seconds(name)
        tell("", self._done)
        return figures

    def _seconds(self, name: str) -> float:
        scenario = self._scenarios[name]
        return scenario.quick if self._quick else scenario.full
