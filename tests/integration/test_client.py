"""The client library against the relay itself."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from keys.contact import Contact
from keys.identity import Identity, PublicIdentity
from keys.invite import RelayCard
from peers.client import (
    ClientOptions,
    Connected,
    Disconnected,
    IdInUse,
    Introduction,
    NotAdmitted,
    NotConnected,
    PeerPacket,
    PeersOffline,
    PeersOnline,
    Reason,
    RelayClient,
    Restarting,
    Undelivered,
    WakeRequested,
    WakeType,
    WrongRelayKeys,
)
from tests.peers.client.scripted import WAIT, eventually, expect, until
from tests.support.certificates import make_certificate, trusting
from tests.support.clients import run_async

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

TOKEN = "0f0c2a4be1d35f8790aa6bdc41e2738d"


def card(relay: RelayProcess, public: PublicIdentity | None = None) -> RelayCard:
    return RelayCard(public or relay.public, f"ws://127.0.0.1:{relay.port}/ws")


def client(relay: RelayProcess, identity: Identity | None = None, token: str | None = None) -> RelayClient:
    options = ClientOptions(token=token, backoff_min=0.05, backoff_max=0.5)
    return RelayClient(identity or Identity.generate(), card(relay), options)


@run_async
async def test_two_clients_talk(relay: RelayProcess) -> None:
    alice, bob = Identity.generate(), Identity.generate()
    at_alice, at_bob = Contact(alice, bob.public), Contact(bob, alice.public)
    async with client(relay, alice) as a:
        await expect(a, Connected)
        await a.watch([bob.public.x_pub])
        await a.barrier(WAIT)
        assert not a.is_online(bob.public.x_pub)
        async with client(relay, bob) as b:
            await b.watch([alice.public.x_pub])
            await expect(b, Connected)
            assert await expect(b, PeersOnline) == PeersOnline((alice.public.x_pub,))
            assert await expect(a, PeersOnline) == PeersOnline((bob.public.x_pub,))
            assert a.is_online(bob.public.x_pub)
            texts = [os.urandom(size) for size in (0, 1, 1000, 1024 * 1024 - 200)]
            for text in texts:
                await a.send(bob.id, at_alice.seal(text))
                await b.send(alice.id, at_bob.seal(text))
            for text in texts:
                came = await expect(a, PeerPacket)
                assert (came.sender_id, at_alice.open(came.packet)) == (bob.id, text)
                came = await expect(b, PeerPacket)
                assert (came.sender_id, at_bob.open(came.packet)) == (alice.id, text)
        assert await expect(a, PeersOffline) == PeersOffline((bob.public.x_pub,))
        assert not a.is_online(bob.public.x_pub)
        await a.unwatch([bob.public.x_pub])
        await a.barrier(WAIT)
        async with client(relay, bob) as b:
            await b.connected(WAIT)
            await b.send(alice.id, at_bob.seal(b"not watched"))
            await expect(a, PeerPacket)


@run_async
async def test_what_stands_before_a_barrier_was_read(relay: RelayProcess) -> None:
    count = 300
    async with client(relay) as a, client(relay) as b:
        await a.connected(WAIT)
        await expect(b, Connected)
        nobody, packets = os.urandom(8), [os.urandom(3000) for _ in range(count)]
        target = b._identity.id
        await asyncio.gather(*(a.send(target, packet) for packet in packets))
        await a.barrier(WAIT)
        assert a._link is not None
        a._link._socket.transport.abort()  # whatever had not been read would be lost with it
        assert [(await expect(b, PeerPacket)).packet for _ in packets] == packets
        # Refusals may come after the pong, and come in order.
        await until(a, Disconnected)
        await until(a, Connected)
        for packet in packets:
            await a.send(nobody, packet)
        await a.barrier(WAIT)
        assert [await expect(a, Undelivered) for _ in packets] == [Undelivered(nobody, each[:24]) for each in packets]


@run_async
async def test_an_introduction(relay: RelayProcess) -> None:
    alice, bob = Identity.generate(), Identity.generate()
    async with client(relay, alice) as a, client(relay, bob) as b:
        await a.connected(WAIT)
        await b.connected(WAIT)
        await a.introduce(bob.id, "Alice\u241finfo")
        assert await until(b, Introduction) == Introduction(alice.public, "Alice\u241finfo")


@run_async
async def test_the_notifier_is_an_ordinary_client(start_relay: Callable[..., RelayProcess]) -> None:
    notifier, sleeper = Identity.generate(), os.urandom(8)
    relay = start_relay(notifier_id=notifier.id)
    async with client(relay, notifier) as n, client(relay) as a:
        await n.connected(WAIT)
        await a.connected(WAIT)
        await a.wake(sleeper, WakeType.CALL)
        assert await until(n, WakeRequested) == WakeRequested(sleeper, 1)


@pytest.mark.parametrize("wrong", ["both", "only the signing key"])
@run_async
async def test_a_card_with_other_keys(relay: RelayProcess, wrong: str) -> None:
    other = Identity.generate().public
    public = other if wrong == "both" else PublicIdentity(relay.public.x_pub, other.ed_pub)
    lost = RelayClient(Identity.generate(), card(relay, public), ClientOptions(backoff_min=0.05, backoff_max=0.1))
    async with lost:
        with pytest.raises(WrongRelayKeys, match="compare the card"):
            await lost.connected(WAIT)


@run_async
async def test_tokens(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(variables={"RELAY_TOKEN": TOKEN})
    async with client(relay, token=TOKEN) as welcome:
        await welcome.connected(WAIT)
    for token in (None, TOKEN[:-1] + "0"):
        async with client(relay, token=token) as stranger:
            with pytest.raises(NotAdmitted, match="token"):
                await stranger.connected(WAIT)


@run_async
async def test_tls(start_relay: Callable[..., RelayProcess], tmp_path: Path) -> None:
    files, others = make_certificate(tmp_path), make_certificate(tmp_path, "others")
    relay = start_relay(arguments=["--tls-cert", str(files.chain), "--tls-key", str(files.key)])
    where, ours = RelayCard(relay.public, relay.url), Identity.generate()
    async with RelayClient(ours, where, ClientOptions(ssl=trusting(files))) as trusts:
        await expect(trusts, Connected)
        packet = bytes(900_000)
        await trusts.send(ours.id, packet)
        assert (await expect(trusts, PeerPacket)).packet == packet
    for context in (trusting(others), None):
        async with RelayClient(ours, where, ClientOptions(ssl=context)) as doubts:
            lost = await expect(doubts, Disconnected)
            assert lost.reason is Reason.TLS
            assert "self-signed certificate" in lost.text


@run_async
async def test_not_on_the_list(start_relay: Callable[..., RelayProcess], tmp_path: Path) -> None:
    welcome, stranger = Identity.generate(), Identity.generate()
    allowed = tmp_path / "allow"
    allowed.write_text(welcome.public.x_pub.hex() + "\n")
    relay = start_relay(arguments=["--allow-file", str(allowed)])
    async with client(relay, welcome) as a, client(relay, stranger) as b:
        await a.connected(WAIT)
        with pytest.raises(NotAdmitted, match="not open to you"):
            await b.connected(WAIT)


@run_async
async def test_one_identity_twice(relay: RelayProcess) -> None:
    twice = Identity.generate()
    async with client(relay, twice) as first:
        await expect(first, Connected)
        await first.barrier(WAIT)  # its CHALLENGE is answered: it holds the id
        second = client(relay, twice)
        async with second:
            await expect(second, IdInUse)
            assert (await expect(second, Disconnected)).reason is Reason.ID_IN_USE
            assert first.is_connected
            with pytest.raises(NotConnected, match="elsewhere"):
                await second.send(os.urandom(8), os.urandom(200))
            await first.__aexit__(None, None, None)
            await until(second, Connected)
            await second.barrier(WAIT)


@run_async
async def test_a_restart_of_the_relay(start_relay: Callable[..., RelayProcess]) -> None:
    first = start_relay(drain=0)
    alice, bob = Identity.generate(), Identity.generate()
    async with client(first, alice) as a, client(first, bob) as b:
        await a.watch([bob.public.x_pub])
        await until(a, PeersOnline)
        await b.connected(WAIT)
        first.signal(signal.SIGTERM)
        told = await until(a, Restarting)
        assert 0.5 <= told.reconnect_in <= 5
        gone = await until(a, Disconnected)
        assert gone.reason is Reason.RESTARTING
        assert told.reconnect_in <= gone.retry_in <= told.reconnect_in * 1.1 + 0.1
        assert not a.is_online(bob.public.x_pub)
        assert await asyncio.to_thread(first.wait) == 0
        second = await asyncio.to_thread(start_relay, arguments=["--port", str(first.port)])
        assert (second.port, second.public) == (first.port, first.public)
        await until(a, Connected)
        await until(a, PeersOnline)
        assert a.is_online(bob.public.x_pub)
        await b.connected(WAIT)
        await a.send(bob.id, Contact(alice, bob.public).seal(b"again"))
        assert Contact(bob, alice.public).open((await until(b, PeerPacket)).packet) == b"again"


@run_async
async def test_a_relay_that_is_killed(start_relay: Callable[..., RelayProcess]) -> None:
    first = start_relay()
    async with client(first) as a:
        await expect(a, Connected)
        await asyncio.to_thread(first.kill)
        assert (await expect(a, Disconnected)).reason is Reason.LOST
        await eventually(lambda: not a.is_connected, "still connected")
        with pytest.raises(NotConnected):
            await a.send(os.urandom(8), os.urandom(200))
        assert (await expect(a, Disconnected)).reason is Reason.UNREACHABLE
        await asyncio.to_thread(start_relay, arguments=["--port", str(first.port)])
        await until(a, Connected)
        await a.barrier(WAIT)


@run_async
async def test_a_flood_between_two_arrives_whole_and_in_order(relay: RelayProcess) -> None:
    """More than all buffers on the way hold: the sender waits for the socket, and what is refused is told."""
    count = 600
    alice, bob = Identity.generate(), Identity.generate()
    async with client(relay, alice) as a, client(relay, bob) as b:
        await expect(a, Connected)
        await expect(b, Connected)

        async def pour() -> None:
            for number in range(count):
                await a.send(bob.id, number.to_bytes(24, "big") + bytes(64_000))
            await a.barrier(WAIT)

        pouring = asyncio.create_task(pour())
        came: list[int] = []
        refused: list[int] = []

        async def take() -> None:
            while len(came) + len(refused) < count:
                packet = (await until(b, PeerPacket)).packet
                came.append(int.from_bytes(packet[:24], "big"))

        async def hear() -> None:
            while True:
                refused.append(int.from_bytes((await until(a, Undelivered)).nonce, "big"))

        hearing = asyncio.create_task(hear())
        await asyncio.wait_for(take(), WAIT)
        await pouring
        hearing.cancel()
        assert came == sorted(came)
        assert sorted(came + refused) == list(range(count))
