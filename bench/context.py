"""What every scenario is given: where to run, how large, and whom to tell of progress."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.load.worker import Worker
from bench.machine import Cores
from bench.stats import Figure, medians
from bench.targets import Starter, Target

_GENERATORS = 3
_FULL = 0.05
"""An idle share below this is none."""


@dataclass(slots=True)
class Context:
    """The settings of one run of the benchmark.

    Attributes:
        quick: the short run for the CI.
        idle: connections of the idle scenario.
        rounds: interleaved rounds of each figure.
        slice: seconds of load per round and relay.
        tell: called with a line for people, for each thing that is begun.
    """

    starter: Starter
    cores: Cores
    quick: bool
    idle: int
    rounds: int
    slice: float
    tell: Callable[[str], None]

    def worker(self) -> Worker:
        """Start one load generator."""
        return Worker(self.cores.generators[-1])


class Fleet:
    """As many load generators as there are cores for them, three at most, that share the edges between them."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers

    def connect(self, targets: Sequence[Target], shape: str, count: int) -> None:
        """Connect edges; a shape with a hub is one generator's."""
        if shape != "pairs":
            self.workers = self.workers[:1]
        share, more = divmod(count, len(self.workers))
        for number, worker in enumerate(self.workers):
            # One after the other: they would measure each other's handshakes.
            worker.call("connect_edges", targets, shape, share + (number < more))

    def load_rings(self, size: int) -> None:
        """Seal frames of `size` bytes."""
        for worker in self.workers:
            worker.ask("load_rings", size)
        for worker in self.workers:
            worker.answer()

    def measure(self, target: Target, window: int, seconds: float, rate: float = 0.0) -> dict[str, float]:
        """Load one target from all generators at once."""
        for worker in self.workers:
            worker.ask("measure", target, window, seconds, rate=rate / len(self.workers))
        return combine([worker.answer() for worker in self.workers])


def combine(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Put together what several generators measured of one relay at the same time.

    The relay's times are those in the first one's window; of the generators' shares the busiest counts.
    """
    result = dict(parts[0])
    result["rate"] = sum(part["frames"] / part["seconds"] for part in parts)
    busiest = max(parts, key=lambda part: (part["generator_cpu"] + part["generator_waiting"]) / part["seconds"])
    seconds = result["seconds"]
    result["generator_busy"] = busiest["generator_cpu"] / busiest["seconds"]
    result["generator_idle"] = max(
        0.0, 1 - (busiest["generator_cpu"] + busiest["generator_waiting"]) / busiest["seconds"]
    )
    result["relay_busy"] = result["relay_cpu"] / seconds
    result["relay_waiting_share"] = result["relay_waiting"] / seconds
    result["relay_idle"] = max(0.0, 1 - (result["relay_cpu"] + result["relay_waiting"]) / seconds)
    return result


@contextmanager
def fleet(context: Context) -> Iterator[Fleet]:
    """Start the generators."""
    with ExitStack() as stack:
        yield Fleet([stack.enter_context(Worker(core)) for core in context.cores.generators[:_GENERATORS]])


def add_round(figure: Figure, target: Target, value: float) -> None:
    """Note the value of one round."""
    figure.values.setdefault(target.name, []).append(value)


def add_shares(figure: Figure, target: Target, rounds: Sequence[dict[str, float]]) -> None:
    """Note the idle shares over the rounds, and say so when it was not the relay that was measured."""
    shares = medians(
        [
            {name: one[name] for name in ("generator_idle", "relay_busy", "relay_idle", "relay_waiting_share")}
            for one in rounds
        ]
    )
    if target.pid is None:
        shares = {"generator_idle": shares["generator_idle"]}
    figure.details.setdefault(target.name, {}).update(shares)
    if shares["generator_idle"] < _FULL and shares.get("relay_idle", 1.0) >= _FULL:
        figure.note(
            f"{target.name}: the generator was the limit ({shares['generator_idle']:.0%} idle): it is at least this"
        )
    if shares.get("relay_waiting_share", 0.0) > _FULL:
        figure.note(f"{target.name}: others had its core for {shares['relay_waiting_share']:.0%} of the time")


def shares_of(result: dict[str, Any]) -> dict[str, float]:
    """Return the idle shares of openings, as :func:`combine` gives those of a load."""
    seconds = result["seconds"]
    return {
        "generator_idle": max(0.0, 1 - (result["generator_cpu"] + result["generator_waiting"]) / seconds),
        "relay_busy": result["relay_cpu"] / seconds,
        "relay_idle": max(0.0, 1 - (result["relay_cpu"] + result["relay_waiting"]) / seconds),
        "relay_waiting_share": result["relay_waiting"] / seconds,
    }
