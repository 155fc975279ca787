"""Many to one and one to many: 200 clients at one."""

from typing import Final

from bench.context import Context, fleet
from bench.scenarios import throughput
from bench.stats import Figure

_CLIENTS: Final = 200
_WINDOW: Final = 4
_SIZE: Final = 256


def run(context: Context) -> list[Figure]:
    """Measure both shapes, with 4 frames of 256 B in flight on each edge."""
    figures = []
    for shape, name in (("fan-in", f"fan-in {_CLIENTS} to 1"), ("fan-out", f"fan-out 1 to {_CLIENTS}")):
        context.tell(f"fan: {name}")
        with context.starter.relays() as targets, fleet(context) as generators:
            generators.connect(targets, shape, _CLIENTS)
            generators.load_rings(_SIZE)
            figures += throughput.measure(context, generators, targets, name, _WINDOW)
    return figures
