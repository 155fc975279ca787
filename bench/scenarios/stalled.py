"""What one reader that takes nothing costs the others: their throughput with it, over that without it.

Its sender sends as much as the relay takes. Ours then refuses (0x03, at most 400 a second for one client by its default
limits, which stay) and the base waits in the middle of its handler; neither may let the others feel it.
"""

from typing import Final

from bench.context import Context, add_round, combine
from bench.load.worker import Worker
from bench.stats import Figure
from bench.targets import Target

_PAIRS: Final = 16
_WINDOW: Final = 8
_SIZE: Final = 256
# The relay's own bounds for one recipient, as they are by default.
_LIMITS: Final = {"queue_size": 4 << 20, "queue_total": 256 << 20}


def run(context: Context) -> list[Figure]:
    """Measure."""
    kept = Figure("stalled/kept by the others", "of 1", more_is_better=True)
    context.tell("stalled: others beside a reader that takes nothing")
    with (
        context.starter.relays(_LIMITS) as targets,
        context.worker() as worker,
        context.worker() as flooder,
    ):
        worker.call("connect_edges", targets, "pairs", _PAIRS)
        worker.call("load_rings", _SIZE)
        for _ in range(context.rounds):
            for target in targets:
                without = _rate(worker, target, context.slice)
                flooder.call("stall", target, 4096)
                # The queue fills up first: what is measured is the state after.
                flooder.call("push", target, 0.5)
                flooder.ask("push", target, context.slice + 0.4)
                with_it = _rate(worker, target, context.slice)
                pushed = flooder.answer()
                flooder.call("unstall", target)
                add_round(kept, target, with_it / without)
                kept.details[target.name] = {"bytes sent to it": pushed["sent"], "frames refused": pushed["refused"]}
    return [kept]


def _rate(worker: Worker, target: Target, seconds: float) -> float:
    return combine([worker.call("measure", target, _WINDOW, seconds)])["rate"]
