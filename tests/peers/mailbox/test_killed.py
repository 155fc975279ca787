"""kill -9 at every statement: nothing that was confirmed is lost or comes back, and nothing is there twice."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from tests.peers.mailbox import killed
from tests.peers.mailbox.lab import BOB, Box, asked, check_sums, contents
from tests.support.clients import run_async
from wire import mailbox_commands as asks
from wire.mailbox_codes import ItemKind

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

_STEPS_MAX = 1000
"""Far more statements than there are: the loop ends by itself once a run is not killed any more."""


def hear(told: Connection) -> list[tuple[Any, ...]]:
    """All that it told before it died."""
    heard = []
    while True:
        try:
            heard.append(told.recv())
        except EOFError:
            return heard


async def check(box: Box, heard: list[tuple[Any, ...]]) -> None:
    """Open what was left, and compare it with what was said to others."""
    begun = {number for word, *numbers in heard if word in ("ack", "drop", "expire") for number in numbers}
    gone = {number for word, *numbers in heard if word in ("acked", "dropped", "expired") for number in numbers}
    kept = {number for word, *numbers in heard if word == "kept" for number in numbers}
    asked_for = {number for word, *numbers in heard if word == "deposit" for number in numbers}
    words = {word for word, *_ in heard}
    async with box:
        await box.says(asks.Restore(1), BOB)
        lease = await box.fetch()
        there = [number for number, item in zip(contents(lease), lease.items, strict=True) if not item.kind]
        envelopes = [item.content for item in lease.items if item.kind == ItemKind.ENVELOPE]
        assert len(there) == len(set(there))
        assert kept - begun <= set(there) <= asked_for - gone, heard
        assert envelopes == [killed.ENVELOPE] * len(envelopes)
        assert len(envelopes) == 1 if "stored" in words else len(envelopes) <= 1
        # Its depositors try again what was not confirmed: then it is there once.
        for number in sorted(asked_for - kept):
            await box.deposit(asked(number, ttl=60 if number == 5 else 0))
        box.passes(61)
        again = await box.fetch()
        assert sorted(n for n, item in zip(contents(again), again.items, strict=True) if not item.kind) == sorted(
            set(there) | (asked_for - kept)
        )
        await box.acknowledge(again)
        await box.tend()
        assert (await box.store.totals()).items == 0


@run_async
async def test_killed_at_every_step(tmp_path: Path) -> None:
    kills = 0
    for kill_at in range(1, _STEPS_MAX):
        path = tmp_path / f"box-{kill_at}.db"
        process, told = killed.start(path, kill_at)
        heard = await asyncio.to_thread(hear, told)
        await asyncio.to_thread(process.join)
        if process.exitcode == 0:
            assert heard[-1] == ("done",)
            await check(Box(path), heard)
            check_sums(path)
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        await check(Box(path), heard)
        check_sums(path)
    else:
        raise AssertionError(f"still killed at step {_STEPS_MAX}")
    assert kills > 100
