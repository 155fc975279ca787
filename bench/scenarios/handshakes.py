"""From TCP accept to HANDSHAKE_OK: how many per second, and the relay's CPU time for each."""

from typing import Final

from bench.context import Context, add_round, add_shares, shares_of
from bench.stats import Figure

_AT_ONCE: Final = 32


def run(context: Context) -> list[Figure]:
    """Open some hundred connections at a time, round by round; closing them is not measured."""
    rate = Figure("handshakes/rate", "handshakes/s", more_is_better=True)
    cost = Figure("handshakes/cpu", "µs", more_is_better=False)
    count = 300 if context.quick else 1000
    context.tell(f"handshakes: {count} at a time")
    shares: dict[str, list[dict[str, float]]] = {}
    with context.starter.relays() as targets, context.worker() as worker:
        for target in targets:
            # The first ones pay for what is made once: imports, memory, the kernel's tables.
            worker.call("open_crowd", target, 50)
            worker.call("close_crowd", target)
        for _ in range(context.rounds):
            for target in targets:
                result = worker.call("open_crowd", target, count, _AT_ONCE)
                worker.call("close_crowd", target)
                shares.setdefault(target.name, []).append(shares_of(result))
                add_round(rate, target, count / result["seconds"])
                if target.pid is not None:
                    add_round(cost, target, result["relay_cpu"] / count * 1e6)
        for target in targets:
            add_shares(rate, target, shares[target.name])
    return [rate, cost]
