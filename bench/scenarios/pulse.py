"""What a silent session costs per beat: a ping, and with ours a SERVER_PING too; with and without the client's pong."""

from typing import Final

from bench.context import Context, add_round
from bench.stats import Figure

_BEAT: Final = 2.0
_ROUNDS: Final = 3


def run(context: Context) -> list[Figure]:
    """Measure over a few beats; pings are counted where they arrive."""
    count = 500 if context.quick else 3000
    seconds = (2 if context.quick else 4) * _BEAT
    figures = []
    for answer, name in ((True, "answered"), (False, "not answered")):
        if context.quick and not answer:
            continue
        figure = Figure(f"pulse/one beat, {name}", "µs", more_is_better=False)
        context.tell(f"pulse: {count} silent sessions, pings {name}")
        with context.starter.relays(ping_after=_BEAT) as targets, context.worker() as worker:
            for target in targets:
                worker.call("open_crowd", target, count, answer=answer)
            names = [target.name for target in targets]
            # First beats, in which ours seals what it sends again ever after.
            worker.call("idle", names, 2 * _BEAT)
            for _ in range(_ROUNDS):
                results = worker.call("idle", names, seconds)
                for target in targets:
                    result = results[target.name]
                    if target.pid is None or not result["pings"]:
                        figure.note(f"{target.name}: no pings came in {seconds:.0f} s")
                        continue
                    add_round(figure, target, result["relay_cpu"] / result["pings"] * 1e6)
        figures.append(figure)
    return figures
