"""Clients that die without a word leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keys.identity import Identity
from tests.support import doomed
from tests.support.clients import WAIT, Clients, eventually, run_async, upgrade_request, ws_frame
from wire import commands as c
from wire import frames, mask
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Client
    from tests.support.relay_process import RelayProcess

ROUNDS = 20
CLIENTS = 4
EVERY_CHANGE = {"presence_per_second": 0}
"""Comings and goings are told at once, however many."""


def instructions(relay: RelayProcess, identity: Identity, target_id: bytes) -> tuple[str, str]:
    """What a doomed client says: its greeting, and a frame that is long enough for death to come amid one."""
    shared = identity.shared_with(relay.public.x_pub)
    greeting = upgrade_request() + ws_frame(frames.build_handshake(identity, shared))
    packet = os.urandom(30_000)
    frame = ws_frame(frames.build_frame(mask.client_to_server(shared), target_id, packet))
    return greeting.hex(), frame.hex()


async def doomed_process(
    relay: RelayProcess, identities: list[Identity], target_id: bytes
) -> asyncio.subprocess.Process:
    """Start a process in which these clients are connected and send."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", Path(doomed.__file__), str(relay.port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([instructions(relay, each, target_id) for each in identities]).encode())
    process.stdin.close()
    async with asyncio.timeout(WAIT):
        assert await process.stdout.readline() == b"ready\n"
    return process


async def presence(watcher: Client, kind: type[c.PeerOnline | c.PeerOffline], identities: list[Identity]) -> None:
    """Wait until the watcher was told this of all of them; packets for it are let pass."""
    missing = {each.public.x_pub for each in identities}
    while missing:
        item = await watcher.next()
        if not isinstance(item, PeerFrame):
            assert isinstance(item, kind), item
            missing -= set(item.x_pubs)


@run_async
async def test_killed_processes_leave_no_session(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits=EVERY_CHANGE)
    identities = [Identity.generate() for _ in range(CLIENTS)]
    async with Clients(relay) as clients:
        survivor = await clients.open()
        await survivor.command(c.Subscribe.of(each.public.x_pub for each in identities))
        for _ in range(ROUNDS):
            process = await doomed_process(relay, identities, survivor.id)
            await presence(survivor, c.PeerOnline, identities)
            process.kill()
            await process.wait()
            await presence(survivor, c.PeerOffline, identities)
            await eventually(lambda: relay.connections() == 1, "sockets stay")
        for each in identities:
            nonce = await survivor.send(each, b"anybody there?")
            assert await survivor.expect(c.RecipientOffline) == c.RecipientOffline(each.id, nonce)
        again = [await clients.open(each) for each in identities]
        await presence(survivor, c.PeerOnline, identities)
        for client in again:
            await survivor.send(client.public, b"welcome back")
            assert await client.text_from(survivor.public) == b"welcome back"


@run_async
async def test_reconnect_storm_after_a_kill(start_relay: Callable[..., RelayProcess]) -> None:
    """The same ids come back at once, while the relay may not yet know that their old sockets are dead."""
    relay = start_relay(limits=EVERY_CHANGE)
    identities = [Identity.generate() for _ in range(CLIENTS)]
    nobody = os.urandom(8)
    for _ in range(5):
        process = await doomed_process(relay, identities, nobody)
        process.kill()
        async with Clients(relay) as clients:
            people = await asyncio.gather(*(clients.open(each) for each in identities))
            for client, peer in zip(people, people[1:] + people[:1], strict=True):
                await client.send(peer.public, b"back")
            for client, peer in zip(people, people[-1:] + people[:-1], strict=True):
                assert await client.text_from(peer.public) == b"back"
        await process.wait()
    await eventually(lambda: relay.connections() == 0, "sockets stay")


@run_async
async def test_socket_that_dies_amid_a_frame(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(limits=EVERY_CHANGE)
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        frame = ws_frame(alice.session.send(bob.id, os.urandom(300_000)))
        for part in (1, 3, 13, 14, 100, len(frame) - 1):
            await bob.subscribe(alice.public)
            await bob.expect(c.PeerOnline)
            await alice.raw.write(frame[:part])
            alice.abort()
            await bob.expect(c.PeerOffline)
            alice = await clients.open(alice.identity)
            await bob.expect(c.PeerOnline)
            await bob.command(c.Unsubscribe.of([alice.public.x_pub]))
        await bob.round_trip()
