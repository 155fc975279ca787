"""A relay of several processes is replaced by another one on its port, with a NATS server that both have."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from keys.identity import Identity
from tests.support.bulk import BulkClient
from tests.support.clients import eventually, run_async
from tests.support.nats_cluster import Nats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

CLIENTS = 16


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    servers = Nats(tmp_path, 1)
    yield servers
    servers.close()


def sessions(relay: RelayProcess) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.admin_port}/sessions", timeout=20) as answer:
        told: dict[str, Any] = json.load(answer)
    return int(told["sessions"])


@run_async
async def test_clients_of_both_reach_each_other(
    nats: Nats, start_relay: Callable[..., RelayProcess], tmp_path: Path
) -> None:
    secret = tmp_path / "cluster.secret"
    secret.touch(0o600)
    secret.write_text(f"{secrets.token_hex(32)}\n")
    how = ["--workers", "2", "--reuse-port", "--nats", nats.url(0), "--cluster-secret-file", str(secret)]
    first = start_relay(arguments=how, admin="127.0.0.1:0")
    alice = await BulkClient.open(first.port, Identity.generate(), first.public)
    second = await asyncio.to_thread(start_relay, arguments=[*how, "--port", str(first.port)], admin="127.0.0.1:0")
    others = [await BulkClient.open(first.port, Identity.generate(), first.public) for _ in range(CLIENTS)]
    for other in others:
        await other.write(other.frames(alice.identity.id, 0, 3))
    for other in others:
        await alice.received(other.identity.id, 3)
        assert not other.refused
    here, there = [await asyncio.to_thread(sessions, relay) for relay in (first, second)]
    assert here + there == CLIENTS + 1
    # That the kernel gave all to one of two has a chance of one in thirty thousand.
    assert here > 1
    assert there
    first.signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait) == 0
    again = await BulkClient.open(first.port, alice.identity, first.public)
    await eventually(lambda: sum(other.lost for other in others) == here - 1, "those of the first are told")
    left = [other for other in others if not other.lost]
    for other in left:
        await other.write(other.frames(again.identity.id, 3, 1))
        await again.received(other.identity.id, 1)
    for client in (again, *left):
        client.transport.abort()
