"""A mailbox in a process of its own that kills itself, as kill -9 does, at the n-th statement that its database runs.

So it dies before, between and after the statements of a transaction, before its COMMIT and right after it. What it has
confirmed to somebody it writes to a pipe, as a face of the mailbox would to a socket.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.mailbox.app import AppSession
from tests.peers.mailbox.lab import ALICE, BOB, Box, asked, contents, secret
from wire import mailbox_commands as asks
from wire.mailbox_answers import Delivery
from wire.mailbox_codes import MailboxCommand, Word

if TYPE_CHECKING:
    import sqlite3
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

    from peers import database

# Forked from a server that has imported everything once: some hundred processes in a few seconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])

ENVELOPE = ALICE.public.x_pub + bytes(104)
NEXT = Word(MailboxCommand.FETCH_NEXT)


def start(path: Path, kill_at: int) -> tuple[ForkServerProcess, Connection]:
    """Start the scenario; what it tells comes out of the connection, which ends with it."""
    told, tells = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(str(path), kill_at, tells), daemon=True)
    process.start()
    tells.close()
    return process, told


def _run(path: str, kill_at: int, tells: Connection) -> None:
    asyncio.run(_scenario(Path(path), kill_at, tells.send))


async def _scenario(path: Path, kill_at: int, tell: Any) -> None:
    box = Box(path)
    await box.open()
    _count_statements(box.store._database, kill_at)
    await scenario(box, tell)
    await box.store.close()


async def scenario(box: Box, tell: Any) -> None:
    """All that changes a store, some of it together; tells before and after each."""

    async def deposit(number: int, **changed: Any) -> None:
        tell(("deposit", number))
        await box.deposit(asked(number, **changed))
        tell(("kept", number))

    # Together in one commit, then one alone.
    await asyncio.gather(*(deposit(number) for number in range(4)))
    await deposit(4)
    await deposit(5, ttl=60)
    lease = await box.fetch(limit=3)
    tell(("handed", *contents(lease)))
    tell(("ack", 0, 1))
    await box.says(asks.Ack(1, tuple(item.number for item in lease.items[:2])), BOB)
    tell(("acked", 0, 1))
    tell(("drop", 3))
    await box.says(asks.Drop(1, BOB.public.x_pub, secret(3)))
    tell(("dropped", 3))
    bob, alice = AppSession(box.mailbox, BOB.public.x_pub), AppSession(box.mailbox, ALICE.public.x_pub)
    stored = await alice.serve(asks.Store(BOB.public.x_pub, ENVELOPE), b"1" * 24, box.at)
    assert stored == Word(MailboxCommand.STORED)
    tell(("stored",))
    assert isinstance(await bob.serve(NEXT, b"2" * 24, box.at), Delivery)
    tell(("aside",))
    await bob.serve(NEXT, b"3" * 24, box.at)
    tell(("set aside",))
    tell(("expire", 5))
    box.passes(3 * 3600)
    await box.tend()
    tell(("expired", 5))
    await box.store.tidy(box.tick)
    tell(("done",))


def _count_statements(db: database.Database, kill_at: int) -> None:
    steps = 0

    def step(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    commit = db._commit

    def watched(group: Any) -> None:
        step("")
        connection: sqlite3.Connection = db._writer
        connection.set_trace_callback(step)
        commit(group)
        connection.set_trace_callback(None)
        step("")  # committed, and nobody was told

    db._commit = watched  # type: ignore[method-assign]
