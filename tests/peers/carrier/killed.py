"""A carrier in a process of its own that kills itself, as kill -9 does, at the n-th step it takes.

A step is what cannot be undone from within: before and after each commit, before and after each packet that is given
to the relay, before and after each request to a mailbox.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

from keys.files import ClientKeys
from keys.identity import Identity
from keys.invite import RelayCard
from peers.carrier import Carrier, CarrierOptions
from peers.client import RelayClient
from peers.dropping.by_http import HttpWay
from peers.store import open_store
from tests.peers.carrier.conversation import WAIT
from tests.support.steps import count_steps

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from peers.dropping.client import Request
    from wire.mailbox_answers import FromMailbox

# Forked from a server that has imported everything once: some hundred processes in a few seconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def start(
    seeds: tuple[bytes, bytes],
    nickname: str,
    store: Path,
    card: str,
    kill_at: int,
    options: CarrierOptions | None = None,
) -> ForkServerProcess:
    """Start a carrier that is killed at its n-th step (0: never, then it is to be ended from outside)."""
    process = _CONTEXT.Process(target=_run, args=(seeds, nickname, str(store), card, kill_at, options), daemon=True)
    process.start()
    return process


def _run(
    seeds: tuple[bytes, bytes], nickname: str, store: str, card: str, kill_at: int, options: CarrierOptions | None
) -> None:
    _count_steps(kill_at)
    asyncio.run(_carry(seeds, nickname, Path(store), card, options))


async def _carry(
    seeds: tuple[bytes, bytes], nickname: str, store: Path, card: str, options: CarrierOptions | None
) -> None:
    async with open_store(store) as database:
        keys = ClientKeys(Identity(*seeds), nickname)
        files_dir = store.parent / f"{store.stem}-files"
        async with (
            Carrier(database, keys, RelayCard.parse(card), options, files_dir=files_dir) as carrier,
            asyncio.timeout(WAIT),
        ):
            await carrier.failure()


def _count_steps(kill_at: int) -> None:
    step, send = count_steps(kill_at), RelayClient.send

    async def counted_send(self: RelayClient, recipient_id: bytes, packet: bytes) -> None:
        step()
        await send(self, recipient_id, packet)
        step()

    ask = HttpWay.ask

    async def counted_ask(self: HttpWay, request: Request) -> FromMailbox:
        step()
        answer = await ask(self, request)
        step()
        return answer

    RelayClient.send = counted_send  # type: ignore[method-assign]
    HttpWay.ask = counted_ask  # type: ignore[method-assign]
