"""A client comes that thousands watch: the time until all were told, and the CPU for each."""

from bench.context import Context, add_round
from bench.stats import Figure


def run(context: Context) -> list[Figure]:
    """Measure; every watcher's notice is sealed for it alone, in both relays."""
    count = 500 if context.quick else 5000
    told = Figure("presence/all told", "ms", more_is_better=False)
    cost = Figure("presence/cpu for each", "µs", more_is_better=False)
    told.note(f"{count:,} watchers")
    with context.starter.relays() as targets, context.worker() as worker:
        for target in targets:
            context.tell(f"presence: connecting {count} watchers with the {target.name}")
            worker.call("open_crowd", target, count)
        for _ in range(context.rounds):
            for target in targets:
                result = worker.call("watch_friend", target)
                if result["told"] < count:
                    told.note(f"{target.name}: only {result['told']:.0f} were told")
                add_round(told, target, result["seconds"] * 1e3)
                if target.pid is not None:
                    add_round(cost, target, result["relay_cpu"] / count * 1e6)
    return [told, cost]
