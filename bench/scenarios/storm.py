"""A reconnect storm: all clients are cut off and come back at the same time."""

from bench.context import Context, add_round, add_shares, shares_of
from bench.stats import Figure, percentile


def run(context: Context) -> list[Figure]:
    """Measure the time until all are back, and until half are."""
    count = 500 if context.quick else 5000
    everybody = Figure("storm/all back", "s", more_is_better=False)
    half = Figure("storm/half back", "s", more_is_better=False)
    everybody.note(f"{count:,} clients")
    shares: dict[str, list[dict[str, float]]] = {}
    with context.starter.relays() as targets, context.worker() as worker:
        for target in targets:
            context.tell(f"storm: connecting {count} with the {target.name}")
            worker.call("open_crowd", target, count, verify=False)
        for number in range(3):
            context.tell(f"storm: {count} come back, round {number + 1}")
            for target in targets:
                result = worker.call("storm", target)
                shares.setdefault(target.name, []).append(shares_of(result))
                add_round(everybody, target, result["seconds"])
                add_round(half, target, percentile(result["times"], 0.5))
                if result["retries"]:
                    everybody.note(f"{target.name}: {result['retries']} had to try again")
        for target in targets:
            add_shares(everybody, target, shares[target.name])
    return [everybody, half]
