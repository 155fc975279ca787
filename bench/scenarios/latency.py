"""Round trips of a quiet observer while others load the relay to half of its ceiling.

Each relay at half of its own ceiling, as the target has it, and each at half of the base's: what somebody would see who
changes from one to the other. The ceiling is 256 B between 16 pairs, 8 in flight, measured just before.
"""

from statistics import median
from typing import Final

from bench.context import Context, Fleet, add_round
from bench.load.worker import Worker
from bench.stats import BASE, Figure, percentile
from bench.targets import Target

_PAIRS: Final = 16
_WINDOW: Final = 64
_SIZE: Final = 256
_SHARES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_INTERVAL: Final = 0.00197
"""Seconds between round trips: no multiple of any timer, so that they meet the relay at all phases of its work."""


def run(context: Context) -> list[Figure]:
    """Measure."""
    with context.starter.relays() as targets, context.worker() as worker, context.worker() as observer:
        context.tell("latency: measuring the ceilings")
        loaders = Fleet([worker])
        loaders.connect(targets, "pairs", _PAIRS)
        loaders.load_rings(_SIZE)
        for target in targets:
            observer.call("connect_observer", target, _SIZE)
        ceilings = {
            target.name: median(loaders.measure(target, 8, context.slice)["rate"] for _ in range(3))
            for target in targets
        }
        # From here on the observer goes first on the core that the two share.
        worker.call("give_way")
        observer.call("go_first")
        figures: list[Figure] = []
        for name, rates in (
            ("half of its own ceiling", {name: ceiling / 2 for name, ceiling in ceilings.items()}),
            ("half of the base's ceiling", dict.fromkeys(ceilings, ceilings[BASE] / 2)),
        ):
            if figures and context.quick:
                break
            context.tell(f"latency: at {name}")
            figures += _measure(context, name, targets, rates, worker, observer)
    return figures


def _measure(
    context: Context, name: str, targets: list[Target], rates: dict[str, float], worker: Worker, observer: Worker
) -> list[Figure]:
    figures = {share: Figure(f"latency {share}/{name}", "µs", more_is_better=False) for share in _SHARES}
    seconds = 1.0 if context.quick else 4.0
    loads: dict[str, list[dict[str, float]]] = {}
    for _ in range(context.rounds):
        for target in targets:
            # The load begins before the observer and ends after it.
            worker.ask("measure", target, _WINDOW, seconds + 0.5, 0.1, rates[target.name])
            times = observer.call("observe", target, seconds, _INTERVAL)
            result = worker.answer()
            loads.setdefault(target.name, []).append(result)
            for share, figure in figures.items():
                add_round(figure, target, percentile(times, _SHARES[share]) * 1e6)
    first = figures["p50"]
    for target in targets:
        rate = median(result["frames"] / result["seconds"] for result in loads[target.name])
        first.details[target.name] = {"load frames/s": rate}
        if rate < 0.9 * rates[target.name]:
            first.note(f"{target.name}: the load was {rate / rates[target.name]:.0%} of what was wanted")
    return list(figures.values())
