"""The bridge: beginning, end, and what runs in between."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from peers.chat.bridge import environment
from peers.chat.bridge.inward import Inward
from peers.chat.bridge.outward import Outward
from peers.chat.bridge.place import Place, open_place, peers_of
from peers.chat.bridge.report import Report
from peers.chat.exits import Exit
from peers.chat.pipes import Input, Output, hold_standard_streams
from peers.chat.signals import Signals

LINGER: Final = 30.0
"""Seconds for what was written to be delivered after the last line."""
_CLOSING: Final = 2.0
"""Seconds that a reader of our stdout has for the last lines."""


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """What can be asked of a bridge.

    Attributes:
        profile: the profile to use, where the environment names no identity; None is the default one.
        peers: contacts of the profile to talk with; none are all whom its owner added.
        watch: a file whose new lines are sent as well; WSCHAT_WATCH where this is None.
        json: lines of JSON on both sides.
        linger: seconds for what was written to be delivered once stdin has ended.
        quiet: say nothing on stderr but what went wrong.
    """

    profile: str | None = None
    peers: tuple[str, ...] = ()
    watch: Path | None = None
    json: bool = False
    linger: float = LINGER
    quiet: bool = False


def run(environ: Mapping[str, str], options: BridgeOptions) -> int:
    """Run a bridge until its stdin ends, nobody reads its stdout, or a signal comes; returns the exit status.

    DONE after SIGTERM and SIGHUP too: what was not delivered goes out at the next start. NOT_IN_TIME: stdin ended, and
    something was not delivered within the time to linger. USAGE: a line could not be sent. INTERRUPTED: by SIGINT.

    Raises:
        ProfileError, StoreError, DatabaseError: it cannot begin, or the store can no longer be used.
        RelayRefused: the relay does not serve us.
    """
    hold_standard_streams()
    place = open_place(environ, options.profile)
    watch = options.watch or environment.watched(environ)
    watch = None if watch is None else watch.absolute()
    with place.lock():
        return asyncio.run(_run(place, options, watch))


async def _run(place: Place, options: BridgeOptions, watch: Path | None) -> int:
    async with place.session as session:
        peers = await peers_of(place, options.peers)
        report = Report(json=options.json, quiet=options.quiet)
        # Before anything is carried: what comes from now on is printed.
        outward = await Outward.begin(place, peers, Output(1), report, json=options.json)
        inward = Inward(place, peers, report, json=options.json)
        signals = Signals()
        tasks = _Tasks(
            printed=asyncio.create_task(outward.run(), name="bridge-printed"),
            signal=asyncio.create_task(signals.wait(), name="bridge-signal"),
        )
        try:
            await session.carry(place.carrier_options)
            tasks.failure = asyncio.create_task(session.failure(), name="bridge-failure")
            tasks.sources.add(asyncio.create_task(inward.take_all(Input(0)), name="bridge-stdin"))
            if watch is not None:
                tasks.sources.add(asyncio.create_task(inward.follow(watch), name="bridge-watch"))
            status = await _until_end(tasks, inward, report, options.linger)
            outward.finish()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await asyncio.shield(tasks.printed)
            return status
        finally:
            await tasks.end()
            inward.close()
            signals.close()


@dataclass(slots=True)
class _Tasks:
    """What runs while a bridge does.

    Attributes:
        sources: of lines; the bridge ends with the last of them.
    """

    printed: asyncio.Task[None]
    signal: asyncio.Task[signal.Signals]
    failure: asyncio.Task[None] | None = None
    sources: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def stopped(self) -> bool:
        """Whether a signal came, or an error that leaves nothing to do; raises that."""
        for task in (self.failure, self.printed):
            if task is not None and task.done():
                task.result()
        return self.signal.done()

    def running(self) -> set[asyncio.Task[Any]]:
        both = {self.printed, self.signal, *self.sources}
        return both if self.failure is None else both | {self.failure}

    async def end(self) -> None:
        for task in self.running():
            task.cancel()
        await asyncio.gather(*self.running(), return_exceptions=True)


async def _until_end(tasks: _Tasks, inward: Inward, report: Report, linger: float) -> Exit:
    """Wait for what ends the bridge, and then for what was written to arrive; returns the exit status."""
    while not tasks.stopped and not tasks.printed.done() and not all(task.done() for task in tasks.sources):
        await asyncio.wait({task for task in tasks.running() if not task.done()}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks.sources:
            if task.done():
                task.result()
    # Whoever stops us wants an end; one who has only closed our stdin or stdout wants to have said what he said.
    delivered = asyncio.create_task(inward.delivered(), name="bridge-delivered")
    deadline = asyncio.get_running_loop().time() + linger
    try:
        while not tasks.stopped and not delivered.done():
            rest = deadline - asyncio.get_running_loop().time()
            if rest <= 0:
                break
            ends = {task for task in tasks.running() - tasks.sources if not task.done()}
            await asyncio.wait({delivered, *ends}, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
        if tasks.signal.done():
            return Exit.INTERRUPTED if tasks.signal.result() is signal.SIGINT else Exit.DONE
        if not delivered.done():
            report.trouble("not everything was delivered in time; it goes out when the bridge runs again")
        else:
            delivered.result()
        if inward.refused:
            return Exit.USAGE
        return Exit.DONE if delivered.done() else Exit.NOT_IN_TIME
    finally:
        delivered.cancel()
        await asyncio.gather(delivered, return_exceptions=True)
