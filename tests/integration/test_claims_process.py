"""Two sessions of one id (PROTOCOL.md §8.3), over the real process.

The order of events is what counts. A holder that is to be found dead has a relay that waits shortly, one that is to be
found alive a relay that waits for longer than any test.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.clients import PONG, Clients, Closed, run_async
from tests.support.relay_process import RelayProcess
from wire import commands as c
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clients import Client

REPLACED = (1008, "replaced by a newer session")


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    # A session that was put out may read on for as long as a test needs.
    limits = {"claim_wait": 0.3, "closing_deadline": 60}
    running = RelayProcess(tmp_path_factory.mktemp("hasty"), limits=limits)
    yield running
    running.check()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    running = RelayProcess(tmp_path_factory.mktemp("patient"), limits={"claim_wait": 300, "claim_queue": 2})
    yield running
    running.check()


async def proven(clients: Clients, identity: Identity | None = None, *, pongs: bool = True) -> Client:
    """A session that the relay knows to be proven."""
    client = await clients.open(identity, pongs=pongs)
    await client.round_trip()
    return client


async def refused(newcomer: Client) -> None:
    assert await newcomer.expect(c.IdInUse) == c.IdInUse()
    assert (await newcomer.closed()).code == 1008


async def put_out(holder: Client) -> None:
    closed = await holder.closed()
    assert (closed.code, closed.reason) == REPLACED


@run_async
async def test_dead_holder_is_replaced(hasty: RelayProcess) -> None:
    async with Clients(hasty) as clients:
        watcher, holder = await clients.open(), await proven(clients, pongs=False)
        await watcher.subscribe(holder.public)
        await watcher.expect(c.PeerOnline)
        newcomer = await clients.open(holder.identity)
        await put_out(holder)
        assert len(holder.pings) == 1
        assert await watcher.expect(c.PeerOffline) == c.PeerOffline.of([holder.public.x_pub])
        assert await watcher.expect(c.PeerOnline) == c.PeerOnline.of([holder.public.x_pub])
        await watcher.send(holder.public, b"which of you?")
        assert await newcomer.text_from(watcher.public) == b"which of you?"


@run_async
async def test_old_client_is_proven_by_a_command_it_never_sent_before(hasty: RelayProcess) -> None:
    async with Clients(hasty) as clients:
        holder = await clients.open(prove=False, pongs=False)
        await holder.command(c.Subscribe.of([os.urandom(31) + b"\x01"]))
        await holder.round_trip()
        await clients.open(holder.identity)
        await put_out(holder)
        assert len(holder.pings) == 1, "a proven holder is asked first"


@run_async
async def test_pong_that_nobody_asked_for_is_no_life(hasty: RelayProcess) -> None:
    async with Clients(hasty) as clients:
        holder = await proven(clients, pongs=False)
        newcomer = await clients.connect(holder.identity)
        await newcomer.greet()
        for payload in (b"", b"guess", os.urandom(8)):
            await holder.raw.send(payload, PONG)
        await newcomer.welcomed()
        await put_out(holder)


@run_async
async def test_living_holder_keeps_the_id(patient: RelayProcess) -> None:
    async with Clients(patient) as clients:
        watcher, holder = await clients.open(), await proven(clients)
        await watcher.subscribe(holder.public)
        await watcher.expect(c.PeerOnline)
        for count in (1, 2):
            newcomer = await clients.connect(holder.identity)
            await newcomer.greet()
            await refused(newcomer)
            assert len(holder.pings) == count
        await watcher.send(holder.public, b"still you?")
        assert await holder.text_from(watcher.public) == b"still you?"
        await watcher.round_trip()  # and no presence in between


@run_async
async def test_unproven_holder_yields_at_once(patient: RelayProcess) -> None:
    async with Clients(patient) as clients:
        holder = await clients.open(prove=False)
        # Frames for peers prove nothing: they could be recorded ones.
        await holder.round_trip()
        newcomer = await clients.open(holder.identity, prove=False)
        await put_out(holder)
        assert holder.pings == []
        third = await clients.open(holder.identity)
        await put_out(newcomer)
        await third.round_trip()


@run_async
async def test_wrong_proof_proves_nothing(patient: RelayProcess) -> None:
    async with Clients(patient) as clients:
        holder = await clients.open(prove=False)
        await holder.command(c.Proof(os.urandom(32)))
        await holder.round_trip()
        await clients.open(holder.identity)
        await put_out(holder)
        assert holder.pings == []


@pytest.mark.parametrize("prove", [True, False])
@run_async
async def test_other_keys_with_the_same_id_are_always_refused(patient: RelayProcess, prove: bool) -> None:
    async with Clients(patient) as clients:
        holder = await clients.open(prove=prove)
        await holder.round_trip()
        x_seed, _ = holder.identity.seeds
        impostor = await clients.connect(Identity(x_seed, os.urandom(32)))
        assert impostor.id == holder.id
        await impostor.greet()
        await refused(impostor)
        assert holder.pings == []
        await holder.round_trip()
        await holder.close()
        # Once it is free the id is anybody's who has the key that it is made from.
        again = await clients.open(impostor.identity)
        await again.round_trip()


@run_async
async def test_id_is_free_when_its_holder_leaves_while_asked(patient: RelayProcess) -> None:
    async with Clients(patient) as clients:
        for leave in ("abort", "close"):
            holder = await proven(clients, pongs=False)
            newcomer = await clients.connect(holder.identity)
            await newcomer.greet()
            await _handled(clients)
            if leave == "abort":
                holder.abort()
            else:
                await holder.close()
            await newcomer.welcomed()
            await newcomer.round_trip()


@run_async
async def test_later_newcomer_waits_for_the_earlier(patient: RelayProcess) -> None:
    async with Clients(patient) as clients:
        holder = await proven(clients, pongs=False)
        first, second, third = [await clients.connect(holder.identity) for _ in range(3)]
        for newcomer in (first, second):
            await newcomer.greet()
            await _handled(clients)
        assert len(holder.pings) == 1, "one question at a time"
        # The line of this relay is two long.
        await third.greet()
        await refused(third)
        await holder.raw.send(holder.pings[0], PONG)
        await refused(first)
        await holder.round_trip()
        assert len(holder.pings) == 2, "now the second one's turn"
        await holder.raw.send(holder.pings[0], PONG)  # an answer to the first question is none to the second
        await holder.round_trip()
        await holder.raw.send(holder.pings[1], PONG)
        await refused(second)
        await holder.round_trip()


@run_async
async def test_second_newcomer_moves_up_when_the_first_gives_up(patient: RelayProcess) -> None:
    async with Clients(patient) as clients:
        holder = await proven(clients, pongs=False)
        first, second = [await clients.connect(holder.identity) for _ in range(2)]
        for newcomer in (first, second):
            await newcomer.greet()
            await _handled(clients)
        first.abort()
        await _handled(clients)
        holder.abort()
        await second.welcomed()
        await second.round_trip()


@run_async
async def test_two_newcomers_and_a_dead_holder(hasty: RelayProcess) -> None:
    """The earlier one gets the id, and then meets the later as an unproven holder does."""
    async with Clients(hasty) as clients:
        holder = await proven(clients, pongs=False)
        first, second = [await clients.connect(holder.identity) for _ in range(2)]
        for newcomer in (first, second):
            await newcomer.greet()
            await _handled(clients)
        await put_out(holder)
        await first.expect(c.HandshakeOk)
        await first.expect(c.Challenge)
        await put_out(first)
        await second.welcomed()
        await second.round_trip()


@run_async
async def test_frames_that_waited_for_a_dead_holder_are_answered(hasty: RelayProcess) -> None:
    """Each frame is either among those that its socket was given, or its sender gets 0x03."""
    async with Clients(hasty) as clients:
        sender = await clients.open()
        holder = await clients.open(pongs=False, receive_buffer=4096)
        await holder.round_trip()
        holder.stop_reading()
        await sender.subscribe(holder.public)
        await sender.expect(c.PeerOnline)
        packets = [os.urandom(16 * 1024) for _ in range(600)]
        for packet in packets:
            await sender.send_packet(holder.id, packet)
        full = os.urandom(8)
        await sender.send_packet(full, packets[0])
        nonces = []
        while (refusal := await sender.expect(c.RecipientOffline)).target_id != full:
            nonces.append(refusal.nonce)

        newcomer = await clients.open(holder.identity)
        while not isinstance(item := await sender.next(), c.PeerOffline):
            assert isinstance(item, c.RecipientOffline)
            nonces.append(item.nonce)
        # The answers are sealed in slices and may go on behind the news.
        here = False
        holder.read_on()
        delivered = []
        try:
            while True:
                delivered.append((await holder.expect(PeerFrame)).packet)
        except Closed as closed:
            assert (closed.code, closed.reason) == REPLACED
        while len(delivered) + len(nonces) < len(packets) or not here:
            item = await sender.next()
            if isinstance(item, c.PeerOnline):
                here = True
            else:
                assert isinstance(item, c.RecipientOffline)
                nonces.append(item.nonce)
        assert len(nonces) > 10
        assert delivered == packets[: len(delivered)]
        # Those that found no room first, then, in order too, those that waited.
        assert sorted(nonces) == sorted(packet[:24] for packet in packets[len(delivered) :])
        await sender.send(newcomer.public, b"again")
        assert await newcomer.text_from(sender.public) == b"again"
        await sender.round_trip()


async def _handled(clients: Clients) -> None:
    """Return when the relay has surely handled what others sent before: it has answered somebody who sent later."""
    raw = await clients.connect()
    await raw.greet()
    await raw.welcomed()
    await raw.round_trip()
    await raw.close()
