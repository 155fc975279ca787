"""Frames per second between pairs: 1, 8, 64 in flight; 256 B, 4 KiB, 64 KiB; 16 and 1,000 pairs."""

from typing import Final, NamedTuple

from bench.context import Context, Fleet, add_round, add_shares, fleet
from bench.stats import Figure
from bench.targets import Target

SIZES: Final = {"256 B": 256, "4 KiB": 4096, "64 KiB": 65536}
WINDOWS: Final = (1, 8, 64)
PAIRS: Final = (16, 1000)
_MOST_IN_FLIGHT: Final = 512 << 20
"""Bytes: more are a measurement of the kernel's memory and of nothing else."""


class Cell(NamedTuple):
    """One cell of the matrix."""

    pairs: int
    size: str
    window: int

    @property
    def name(self) -> str:
        """The cell as floors.toml spells it."""
        return f"{self.size} x {self.pairs} pairs, {self.window} in flight"


QUICK: Final = (
    Cell(16, "256 B", 1),
    Cell(16, "256 B", 8),
    Cell(16, "256 B", 64),
    Cell(16, "4 KiB", 8),
    Cell(16, "64 KiB", 1),
)


def cells(*, quick: bool) -> list[Cell]:
    """Return the cells to measure."""
    if quick:
        return list(QUICK)
    every = [Cell(pairs, size, window) for pairs in PAIRS for size in SIZES for window in WINDOWS]
    return [cell for cell in every if cell.pairs * SIZES[cell.size] * cell.window <= _MOST_IN_FLIGHT]


def run(context: Context) -> list[Figure]:
    """Measure the matrix; all relays stay connected, and are loaded one after the other in every round."""
    figures: list[Figure] = []
    wanted = cells(quick=context.quick)
    for pairs in dict.fromkeys(cell.pairs for cell in wanted):
        with context.starter.relays() as targets, fleet(context) as generators:
            context.tell(f"throughput: connecting {pairs} pairs with each relay")
            generators.connect(targets, "pairs", pairs)
            loaded = ""
            for cell in wanted:
                if cell.pairs != pairs:
                    continue
                if cell.size != loaded:
                    generators.load_rings(SIZES[cell.size])
                    loaded = cell.size
                context.tell(f"throughput: {cell.name}")
                figures += measure(context, generators, targets, cell.name, cell.window)
    return figures


def measure(context: Context, generators: Fleet, targets: list[Target], name: str, window: int) -> list[Figure]:
    """Return the throughput figure of one load, and that of the relay's CPU per frame."""
    rate = Figure(f"throughput/{name}", "frames/s", more_is_better=True)
    cost = Figure(f"cpu per frame/{name}", "µs", more_is_better=False)
    results: dict[str, list[dict[str, float]]] = {}
    for _ in range(context.rounds):
        for target in targets:
            result = generators.measure(target, window, context.slice)
            results.setdefault(target.name, []).append(result)
            add_round(rate, target, result["rate"])
            if target.pid is not None:
                add_round(cost, target, result["relay_cpu"] / result["seconds"] / result["rate"] * 1e6)
    for target in targets:
        add_shares(rate, target, results[target.name])
    return [rate, cost]
