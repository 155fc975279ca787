"""The scenarios, by name, in the order in which they run."""

from collections.abc import Callable
from typing import Final, NamedTuple

from bench.context import Context
from bench.scenarios import fan, handshakes, idle, latency, presence, pulse, sessions, stalled, storm, throughput
from bench.stats import Figure


class Scenario(NamedTuple):
    """One scenario, and about how many seconds it takes (quick, full)."""

    run: Callable[[Context], list[Figure]]
    quick: float
    full: float


SCENARIOS: Final[dict[str, Scenario]] = {
    "throughput": Scenario(throughput.run, 26, 230),
    "latency": Scenario(latency.run, 12, 70),
    "fan": Scenario(fan.run, 10, 30),
    "handshakes": Scenario(handshakes.run, 8, 20),
    "storm": Scenario(storm.run, 6, 45),
    "stalled": Scenario(stalled.run, 10, 35),
    "presence": Scenario(presence.run, 6, 30),
    "pulse": Scenario(pulse.run, 18, 70),
    "idle": Scenario(idle.run, 8, 75),
    "sessions": Scenario(sessions.run, 3, 45),
}
