"""What clients say to each other and to the relay, over the real process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keys.contact import Contact
from keys.identity import Identity
from tests.support.clients import CLOSE, TEXT, Clients, closed_by, run_async, ws_frame
from wire import commands as c
from wire import frames
from wire.limits import MAX_FRAME, MIN_FRAME
from wire.session import PeerFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.relay_process import RelayProcess


@pytest.mark.parametrize("path", ["/ws", "/api0", "/ws?peer=K0abc&x=%20", "/api0?"])
@run_async
async def test_two_talk(relay: RelayProcess, path: str) -> None:
    async with Clients(relay) as clients:
        alice, bob = await clients.open(path=path), await clients.open()
        await alice.send(bob.public, b"hello")
        assert await bob.text_from(alice.public) == b"hello"
        await bob.send(alice.public, b"hello yourself")
        assert await alice.text_from(bob.public) == b"hello yourself"


@run_async
async def test_order_is_kept_and_packets_are_untouched(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        sizes = [MIN_FRAME - 8, 120, 130, 65_515, 65_540, 200_000, MAX_FRAME - 8, MIN_FRAME - 8]
        packets = [os.urandom(size) for size in sizes]
        for packet in packets:
            await alice.send_packet(bob.id, packet)
        for packet in packets:
            assert await bob.expect(PeerFrame) == PeerFrame(alice.id, packet)


@run_async
async def test_one_may_write_to_oneself(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice = await clients.open()
        packet = os.urandom(200)
        await alice.send_packet(alice.id, packet)
        assert await alice.expect(PeerFrame) == PeerFrame(alice.id, packet)


@run_async
async def test_offline_error_names_target_and_nonce(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice, absent = await clients.open(), Identity.generate()
        nonces = [await alice.send(absent, b"are you there?") for _ in range(3)]
        for nonce in nonces:
            assert await alice.expect(c.RecipientOffline) == c.RecipientOffline(absent.id, nonce)


@run_async
async def test_another_version_is_told_ours(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        client = await clients.connect()
        client.session.hello()
        shared = client.identity.shared_with(relay.public.x_pub)
        await client.raw.send(frames.build_handshake(client.identity, shared, version=3))
        assert await client.expect(c.BadVersion) == c.BadVersion(2)
        assert (await client.closed()).code == 1008


NOT_HANDSHAKES: dict[str, Callable[[bytes], bytes]] = {  # made from one that is
    "empty": lambda _: b"",
    "too short to parse": lambda good: good[:135],
    "noise": lambda good: os.urandom(len(good)),
    "one bit of the signature": lambda good: good[:-1] + bytes((good[-1] ^ 1,)),
    "one bit of the ciphertext": lambda good: good[:60] + bytes((good[60] ^ 1,)) + good[61:],
    "somebody else's key in front": lambda good: Identity.generate().public.x_pub + good[32:],
    "a low order key": lambda good: bytes(32) + good[32:],
    "a key that is not canonical": lambda good: good[:31] + bytes((good[31] | 0x80,)) + good[32:],
    "a frame for a peer": lambda _: os.urandom(400),
    "longer than any handshake": lambda good: good + bytes(4000),
}


@pytest.mark.parametrize("what", NOT_HANDSHAKES)
@run_async
async def test_no_handshake_no_answer(relay: RelayProcess, what: str) -> None:
    alice = Identity.generate()
    good = frames.build_handshake(alice, alice.shared_with(relay.public.x_pub))
    async with Clients(relay) as clients:
        raw = await clients.socket()
        await raw.send(NOT_HANDSHAKES[what](good))
        opcode, payload = await raw.receive()
        assert opcode == CLOSE
        # Beyond what a stranger may send at all it is RFC 6455's own code.
        assert closed_by(payload).code == (1009 if what == "longer than any handshake" else 1008)


@run_async
async def test_handshake_for_another_relay(relay: RelayProcess) -> None:
    alice, other = Identity.generate(), Identity.generate()
    async with Clients(relay) as clients:
        raw = await clients.socket()
        await raw.send(frames.build_handshake(alice, alice.shared_with(other.public.x_pub)))
        opcode, payload = await raw.receive()
        assert (opcode, closed_by(payload).code) == (CLOSE, 1008)


@run_async
async def test_handshake_is_accepted_once(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice, bob = await clients.connect(), await clients.open()
        hello = alice.session.hello()
        await alice.raw.send(hello)
        await alice.welcomed()
        await alice.round_trip()

        async def replay() -> None:
            thief = await clients.socket()
            await thief.send(hello)
            closed = await thief.receive_close()
            assert (closed.code, closed.reason) == (1008, "a handshake is accepted once")

        await replay()
        await bob.send(alice.public, b"still here?")
        assert await alice.text_from(bob.public) == b"still here?"
        assert alice.pings == [], "a replay is refused before the holder is asked anything"

        await bob.subscribe(alice.public)
        assert await bob.expect(c.PeerOnline) == c.PeerOnline.of([alice.public.x_pub])
        await alice.close()
        await bob.expect(c.PeerOffline)
        await replay()
        again = await clients.open(alice.identity)
        await bob.expect(c.PeerOnline)
        await again.round_trip()
        await replay()


@run_async
async def test_presence(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        carol, absent = Identity.generate(), Identity.generate()

        await alice.subscribe(bob.public, carol.public, absent.public)
        assert await alice.expect(c.PeerOnline) == c.PeerOnline.of([bob.public.x_pub])
        there = await clients.open(carol)
        assert await alice.expect(c.PeerOnline) == c.PeerOnline.of([carol.public.x_pub])
        await there.close()
        assert await alice.expect(c.PeerOffline) == c.PeerOffline.of([carol.public.x_pub])
        there = await clients.open(carol)
        assert await alice.expect(c.PeerOnline) == c.PeerOnline.of([carol.public.x_pub])
        there.abort()
        assert await alice.expect(c.PeerOffline) == c.PeerOffline.of([carol.public.x_pub])

        # Nobody online: no answer at all, and so the next thing is that of the round trip.
        await alice.subscribe(absent.public)
        await alice.round_trip()
        await alice.command(c.Unsubscribe.of([bob.public.x_pub]))
        await alice.round_trip()
        await bob.close()
        there = await clients.open(carol)
        assert await alice.expect(c.PeerOnline) == c.PeerOnline.of([carol.public.x_pub])


@run_async
async def test_those_online_are_told_in_one_frame(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        here = await clients.open_many(Identity.generate() for _ in range(5))
        alice = await clients.open()
        await alice.subscribe(*(each.public for each in here), Identity.generate().public)
        online = await alice.expect(c.PeerOnline)
        assert set(online.x_pubs) == {each.public.x_pub for each in here}
        await alice.round_trip()


@run_async
async def test_same_id_is_not_the_same_key(relay: RelayProcess) -> None:
    """A subscription is to the whole key: eight bytes of it can be searched for."""
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        lookalike = bob.public.x_pub[:8] + os.urandom(23) + b"\x01"
        await alice.command(c.Subscribe.of([lookalike]))
        await alice.round_trip()


@run_async
async def test_introduction_carries_the_keys_of_the_session(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        await alice.command(c.Introduce(bob.id, "Alice ␟claude"))
        assert await bob.expect(c.IntroFrom) == c.IntroFrom(alice.public.x_pub, alice.public.ed_pub, "Alice ␟claude")
        # With these keys alone the two can talk.
        contact = Contact(bob.identity, alice.public)
        await alice.send_packet(bob.id, Contact(alice.identity, bob.public).seal(b"it is me"))
        assert contact.open((await bob.expect(PeerFrame)).packet) == b"it is me"
        # To nobody: nothing happens.
        await alice.command(c.Introduce(Identity.generate().id, "Alice"))
        await alice.round_trip()


@run_async
async def test_what_a_client_may_say_for_nothing(relay: RelayProcess) -> None:
    """Text, commands of a later version, a second handshake, commands that were already sent: ignored."""
    async with Clients(relay) as clients:
        alice, bob = await clients.open(), await clients.open()
        await alice.raw.send(b"pong", TEXT)
        await alice.raw.write(ws_frame(b"po", TEXT, fin=False) + ws_frame(b"ng", 0))
        await alice.command(c.Unknown(0x7E, b"from the future"))
        await alice.command(c.Unknown(c.Command.HANDSHAKE_REQUEST, c.HandshakeRequest(alice.public.ed_pub).encode()))
        introduction = alice.session.command(c.Introduce(bob.id, "Alice"))
        await alice.raw.send(introduction)
        await alice.raw.send(introduction)
        await alice.round_trip()
        await bob.expect(c.IntroFrom)
        await bob.round_trip()


@run_async
async def test_proof_of_other_bytes_changes_nothing_visible(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice = await clients.open(prove=False)
        await alice.command(c.Proof(os.urandom(32)))
        await alice.round_trip()
