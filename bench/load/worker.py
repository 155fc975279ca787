"""A load generator's process, and the handle by which the benchmark tells it what to do.

What is asked runs in the other process; links, edges and crowds stay there and are known here by a name.
"""

import gc
import multiprocessing
import os
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Self

from bench import machine
from bench.load.crowd import Crowd, Flood, idle
from bench.load.flows import Load
from bench.load.observer import Observer
from bench.load.opening import Link, Opened, Opener, open_links, prepare, settle
from bench.load.packets import Edge, check_number, ring_length, seal_ring
from bench.targets import Target
from keys.identity import Identity

_ANSWER = 600.0


class GeneratorFailed(Exception):
    """A load generator could not do what it was asked; the text is its own."""


class Jobs:
    """What a load generator can be asked to do. Everything by the name of the target it is about."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Identity, Identity]] = []
        self._edges: dict[str, list[Edge]] = {}
        self._loads: dict[str, Load] = {}
        self._crowds: dict[str, Crowd] = {}
        self._floods: dict[str, Flood] = {}
        self._observers: dict[str, Observer] = {}
        self._links: dict[str, list[Link]] = {}

    # --- Edges -------------------------------------------------------------------------------------------------------

    def connect_edges(self, targets: Sequence[Target], shape: str, count: int) -> None:
        """Connect `count` edges with each target: ``pairs``, ``fan-in`` (one recipient) or ``fan-out`` (one sender)."""
        hub = Identity.generate()
        self._pairs = [
            (
                hub if shape == "fan-out" else Identity.generate(),
                hub if shape == "fan-in" else Identity.generate(),
            )
            for _ in range(count)
        ]
        for target in targets:
            everybody = list({end.id: end for pair in self._pairs for end in pair}.values())
            links = {link.identity.id: link for link in open_links(target, everybody)}
            self._links[target.name] = list(links.values())
            self._edges[target.name] = [Edge(links[a.id], links[b.id]) for a, b in self._pairs]

    def load_rings(self, size: int) -> None:
        """Seal frames of `size` bytes for all edges, and open a few of them as their recipients."""
        length = ring_length(size, len(self._pairs))
        for edges in self._edges.values():
            for edge in edges:
                edge.frames = []
        for number, (sender, recipient) in enumerate(self._pairs):
            packets = seal_ring(sender, recipient, size, length)
            if number < 4 and not check_number(sender, recipient, packets[1], 1):
                raise AssertionError("a sealed packet holds something else")
            for edges in self._edges.values():
                edges[number].load(packets)

    def measure(
        self, target: Target, window: int, seconds: float, ramp: float = 0.2, rate: float = 0.0
    ) -> dict[str, float]:
        """Load one target for a while."""
        load = self._loads.get(target.name)
        if load is None:
            load = self._loads[target.name] = Load(self._edges[target.name], window, target.pid)
        load.window = window
        return load.run(seconds, ramp, rate).as_dict()

    def give_way(self) -> None:
        """Let others on our core go first: the observer is to be quick."""
        os.nice(10)

    # --- A stalled reader --------------------------------------------------------------------------------------------

    def stall(self, target: Target, size: int) -> None:
        """Begin to flood a recipient that does not read."""
        here, there = Identity.generate(), Identity.generate()
        sender, recipient = open_links(target, (here, there))
        edge = Edge(sender, recipient)
        edge.load(seal_ring(here, there, size, 64))
        self._floods[target.name] = Flood(sender, recipient, edge.frames)

    def push(self, target: Target, seconds: float) -> dict[str, float]:
        """Flood for a while."""
        flood = self._floods[target.name]
        flood.run(seconds)
        return {"sent": flood.sent, "refused": flood.refused}

    def unstall(self, target: Target) -> None:
        """Hang up."""
        self._floods.pop(target.name).close()

    # --- An observer -------------------------------------------------------------------------------------------------

    def connect_observer(self, target: Target, size: int) -> None:
        """Connect two friends."""
        here, there = Identity.generate(), Identity.generate()
        first, second = open_links(target, (here, there))
        out, back = Edge(first, second), Edge(second, first)
        out.load(seal_ring(here, there, size, 64))
        back.load(seal_ring(there, here, size, 64))
        self._observers[target.name] = Observer(out, back)

    def go_first(self) -> None:
        """Let nobody on our core make us wait, where the system allows it: what is measured is the relay's delay."""
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))

    def observe(self, target: Target, seconds: float, interval: float) -> list[float]:
        """Return the times of round trips."""
        return self._observers[target.name].watch(seconds, interval)

    # --- Crowds ------------------------------------------------------------------------------------------------------

    def open_crowd(
        self, target: Target, count: int, at_once: int = 64, *, answer: bool = True, verify: bool = True, kind: str = ""
    ) -> dict[str, Any]:
        """Open connections and keep them; a target may have crowds of several kinds."""
        opened = self._open(target, [Identity.generate() for _ in range(count)], at_once)
        if verify:
            opened.confirm()
        crowd = self._crowds[target.name + kind] = Crowd(opened.links, target.pid, answer=answer)
        settle(target.pid)
        crowd.drain()
        return _opened_dict(opened)

    def storm(self, target: Target) -> dict[str, Any]:
        """Drop the whole crowd and let all of them come back at the same time."""
        crowd = self._crowds.pop(target.name)
        identities = [link.identity for link in crowd.links]
        tickets = prepare(target, identities)
        crowd.close()
        settle(target.pid)
        opened = Opener(target, at_once=len(tickets)).open(tickets)
        opened.confirm()
        self._crowds[target.name] = Crowd(opened.links, target.pid)
        return _opened_dict(opened)

    def idle(self, names: Sequence[str], seconds: float) -> dict[str, dict[str, float]]:
        """Let crowds idle at the same time: each relay's CPU time is its own."""
        return {
            name: quiet.as_dict() for name, quiet in idle({name: self._crowds[name] for name in names}, seconds).items()
        }

    def watch_friend(self, target: Target) -> dict[str, float]:
        """Let the crowd watch one friend, let the friend come, and wait until all were told."""
        crowd = self._crowds[target.name]
        friend = Identity.generate()
        crowd.watch(friend)
        settle(target.pid)
        crowd.drain()
        ticket = prepare(target, [friend])
        before = crowd.messages
        wanted = before + len(crowd.links)
        opened = Opener(target).open(ticket)
        told = idle({"": crowd}, 60.0, lambda: crowd.messages >= wanted)[""]
        result = told.as_dict()
        result["told"] = crowd.messages - before
        result["seconds"] += opened.seconds
        result["relay_cpu"] += opened.relay.on_cpu
        for link in opened.links:
            link.close()
        settle(target.pid)
        crowd.drain()
        return result

    def close_crowd(self, target: Target) -> None:
        """Hang up on everybody and wait until the relay has noticed."""
        self._crowds.pop(target.name).close()
        settle(target.pid)

    @staticmethod
    def _open(target: Target, identities: Sequence[Identity], at_once: int) -> Opened:
        return Opener(target, at_once).open(prepare(target, identities))


def _opened_dict(opened: Opened) -> dict[str, Any]:
    return {
        "count": len(opened.links),
        "seconds": opened.seconds,
        "times": opened.times,
        "relay_cpu": opened.relay.on_cpu,
        "relay_waiting": opened.relay.waiting,
        "generator_cpu": opened.generator.on_cpu,
        "generator_waiting": opened.generator.waiting,
        "retries": opened.retries,
    }


def _serve(pipe: Connection, core: int) -> None:
    machine.pin(0, core)
    jobs = Jobs()
    gc.freeze()
    # Rings and links live as long as the process: looking through them again and again finds nothing.
    gc.disable()
    while True:
        try:
            name, arguments, keywords = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send((True, getattr(jobs, name)(*arguments, **keywords)))
        except KeyboardInterrupt:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the benchmark tells it
            pipe.send((False, f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}"))


class Worker:
    """A load generator's process, pinned to a core."""

    def __init__(self, core: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, core), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, job: str, *arguments: Any, **keywords: Any) -> None:
        """Ask for a method of :class:`Jobs`; the answer is taken with :meth:`answer`."""
        self._pipe.send((job, arguments, keywords))

    def answer(self) -> Any:
        """Wait for the answer.

        Raises:
            GeneratorFailed: what was asked could not be done.
        """
        if not self._pipe.poll(_ANSWER):
            raise GeneratorFailed(f"a load generator was silent for {_ANSWER:.0f} s")
        try:
            good, result = self._pipe.recv()
        except EOFError:
            raise GeneratorFailed("a load generator died") from None
        if not good:
            raise GeneratorFailed(result)
        return result

    def call(self, job: str, *arguments: Any, **keywords: Any) -> Any:
        """Ask and wait."""
        self.ask(job, *arguments, **keywords)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
