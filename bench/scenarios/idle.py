"""Connections that say nothing: resident memory of the relay's process for each, and CPU per minute."""

from contextlib import ExitStack
from typing import Final

from bench import machine
from bench.context import Context, add_round
from bench.load.worker import Worker
from bench.stats import Figure
from bench.targets import Target

_PING_AFTER: Final = 20.0
_BATCHES: Final = 3
_FIRST: Final = 100
_SPARE: Final = 300


def run(context: Context) -> list[Figure]:
    """Measure. Clients answer pings, which come as often as by default."""
    allowed = machine.raise_file_limit(context.idle + _SPARE)
    count = min(context.idle, allowed - _SPARE) // _BATCHES
    memory = Figure("idle/memory of a connection", "KiB", more_is_better=False)
    kernel = Figure("idle/kernel memory of both its ends", "KiB", more_is_better=False)
    cpu = Figure("idle/cpu of all", "s/min", more_is_better=False)
    memory.note(f"{_BATCHES * count:,} connections")
    if _BATCHES * count + _BATCHES < context.idle:
        memory.note(f"{context.idle:,} were wanted, but this machine allows a process {allowed:,} open files")
    with context.starter.relays(ping_after=_PING_AFTER) as targets, ExitStack() as stack:
        # Each relay has a generator of its own: one could not have so many open files.
        workers = {target.name: stack.enter_context(context.worker()) for target in targets}
        for target in targets:
            # The first ones grow what is there once for all: the event loop's tables, the allocator's pools.
            workers[target.name].call("open_crowd", target, _FIRST, kind=" first")
        for batch in range(_BATCHES):
            context.tell(f"idle: {count:,} more with each relay, {batch + 1} of {_BATCHES}")
            for target in targets:
                _connect(memory, kernel, target, workers[target.name], count, f" {batch}")
        if context.quick:
            return [memory, kernel]
        context.tell(f"idle: {_BATCHES * count:,} with each relay, for a while")
        for target in targets:
            kinds = [f"{target.name} {batch}" for batch in range(_BATCHES)]
            workers[target.name].ask("idle", kinds, 2 * _PING_AFTER)
        for target in targets:
            result = next(iter(workers[target.name].answer().values()))
            if target.pid is not None:
                add_round(cpu, target, result["relay_cpu"] / result["seconds"] * 60)
    return [memory, kernel, cpu]


def _connect(memory: Figure, kernel: Figure, target: Target, worker: Worker, count: int, kind: str) -> None:
    machine_before = machine.kernel_socket_kib()
    before = machine.resident_kib(target.pid) if target.pid is not None else None
    result = worker.call("open_crowd", target, count, verify=False, kind=kind)
    if target.pid is not None and before is not None:
        add_round(memory, target, (machine.resident_kib(target.pid) - before) / count)
    add_round(kernel, target, (machine.kernel_socket_kib() - machine_before) / count)
    if result["retries"]:
        memory.note(f"{target.name}: {result['retries']} had to try again")
