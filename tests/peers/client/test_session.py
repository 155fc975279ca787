"""A session that goes well: what is said, what is told, and the return after its end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import uvloop

from keys.identity import Identity
from keys.invite import RelayCard
from peers.client import (
    Connected,
    Disconnected,
    Introduction,
    NotConnected,
    Notice,
    PeerPacket,
    PeersOffline,
    PeersOnline,
    PushRegistered,
    Reason,
    RelayClient,
    Restarting,
    Undelivered,
    WakeRequested,
    WakeType,
)
from peers.client.presence import PER_FRAME
from tests.peers.client.scripted import (
    WAIT,
    Connection,
    ScriptedRelay,
    eventually,
    expect,
    next_event,
    until,
)
from tests.support.clients import run_async
from wire import commands as c
from wire.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PACKET = bytes(range(200))
TARGET = b"target_8"


def x_pubs(count: int) -> list[bytes]:
    return [os.urandom(32) for _ in range(count)]


async def welcome_and_stay(at: Connection) -> None:
    await (await at.welcome()).stay()


@run_async
async def test_what_the_client_says() -> None:
    said: list[object] = []
    done = asyncio.Event()

    async def script(at: Connection) -> None:
        await at.welcome()
        await at.ws.send(at.session.challenge())
        proof = await at.heard()
        assert isinstance(proof, c.Proof)
        assert at.session.check_proof(proof)
        said.extend([await at.heard() for _ in range(4)])
        done.set()
        await at.stay()

    async with ScriptedRelay(script) as relay, relay.client() as client:
        await client.connected(WAIT)
        assert client.is_connected
        await eventually(lambda: relay.connections == 1, "not connected")
        await expect(client, Connected)
        await client.send(TARGET, PACKET)
        await client.introduce(TARGET, "Zoë")
        await client.wake(TARGET, WakeType.CALL)
        await client.push_register(2, b"{}")
        await asyncio.wait_for(done.wait(), WAIT)
    assert said[0] == (TARGET, PACKET)
    assert said[1:] == [c.Introduce(TARGET, "Zoë"), c.Wake(TARGET, 1), c.PushRegister(2, b"{}")]


@run_async
async def test_what_the_relay_says() -> None:
    friend, watched = Identity.generate().public, x_pubs(2)
    low_order, ours = bytes([1]) + bytes(31), Identity.generate()

    async def script(at: Connection) -> None:
        await at.welcome()
        await at.ws.send("a text")
        await at.say(
            c.ServerPing(),
            c.Unknown(0x7E, b"from a later version"),
            c.UnknownError(0x70, b""),
            c.IdInUse(),
            c.PeerOnline.of([os.urandom(32)]),
            c.PeerOnline.of([*watched, os.urandom(32)]),
            c.PeerOffline.of(watched[1:]),
            c.IntroFrom(low_order, friend.ed_pub, "bad x"),
            c.IntroFrom(friend.x_pub, bytes(32), "bad ed"),
            c.IntroFrom(b"\xff" * 32, friend.ed_pub, "not canonical"),
            c.IntroFrom(ours.public.x_pub, friend.ed_pub, "our own key"),
            c.IntroFrom(friend.x_pub, ours.public.ed_pub, "our own key"),
            c.IntroFrom(friend.x_pub, friend.ed_pub, "Zoë"),
            c.RecipientOffline(TARGET, PACKET[:24]),
            c.Info("two\x1b[2J\nlines"),
            c.Wake(TARGET, 1),
            c.Wake(TARGET),
            c.PushForward(TARGET, 1, b"token"),
        )
        await at.deliver(TARGET, PACKET)
        await at.stay()

    async with ScriptedRelay(script) as relay:
        client = relay.client(ours)
        async with client:
            await client.watch(watched)
            await expect(client, Connected)
            assert await next_event(client) == PeersOnline(tuple(watched))
            assert await next_event(client) == PeersOffline((watched[1],))
            assert client.is_online(watched[0])
            assert not client.is_online(watched[1])
            assert await next_event(client) == Introduction(friend, "Zoë")
            assert await next_event(client) == Undelivered(TARGET, PACKET[:24])
            assert await next_event(client) == Notice("two [2J\nlines")
            assert await next_event(client) == WakeRequested(TARGET, 1)
            assert await next_event(client) == WakeRequested(TARGET, None)
            assert await next_event(client) == PushRegistered(TARGET, 1, b"token")
            assert await next_event(client) == PeerPacket(TARGET, PACKET)
            assert client.bad_frames == 0
        assert not client.is_online(watched[0]), "nobody is while there is no session"


def test_events_do_not_show_who_talks() -> None:
    shown = repr(
        [
            PeerPacket(TARGET, PACKET),
            PeersOnline((TARGET * 4,)),
            PeersOffline((TARGET * 4,)),
            Introduction(Identity.generate().public, "target_8"),
            Undelivered(TARGET, PACKET[:24]),
            Notice("target_8"),
            WakeRequested(TARGET, 1),
            PushRegistered(TARGET, 1, TARGET),
        ]
    )
    assert "target_8" not in shown


@run_async
async def test_presence_is_asked_for_at_every_connection_and_forgotten_in_between() -> None:
    watched, later = x_pubs(PER_FRAME + 1), x_pubs(2)
    asked: list[list[c.ClientBody | tuple[bytes, bytes]]] = []
    cut, checked = asyncio.Event(), asyncio.Event()

    async def first(at: Connection) -> None:
        await at.welcome()
        asked.append([await at.heard(), await at.heard()])
        await at.say(c.PeerOnline.of(watched[:1]))
        asked.append([await at.heard(), await at.heard()])
        await asyncio.wait_for(cut.wait(), WAIT)
        await at.ws.close(1001, "gone for\x1b a while")

    async def second(at: Connection) -> None:
        await asyncio.wait_for(checked.wait(), WAIT)
        await at.welcome()
        asked.append([await at.heard(), await at.heard()])
        await at.stay()

    async with ScriptedRelay(first, second) as relay:
        client = relay.client()
        await client.watch(watched)  # before there is a session, and no error
        async with client:
            await expect(client, Connected)
            await expect(client, PeersOnline)
            assert client.is_online(watched[0])
            await client.watch([*later, watched[0]])
            await client.unwatch([watched[1], os.urandom(32)])
            assert asked[0] == [c.Subscribe.of(watched[:PER_FRAME]), c.Subscribe.of(watched[PER_FRAME:])]
            await eventually(lambda: len(asked) == 2, "what was added is not told")
            assert asked[1] == [c.Subscribe.of(later), c.Unsubscribe.of(watched[1:2])]
            cut.set()
            lost = await expect(client, Disconnected)
            assert lost.reason is Reason.CLOSED
            assert "1001" in lost.text
            assert "gone for a while" in lost.text
            assert not client.is_connected
            assert not client.is_online(watched[0])
            with pytest.raises(NotConnected, match="1001"):
                await client.send(TARGET, PACKET)
            with pytest.raises(NotConnected):
                await client.barrier()
            await client.unwatch(later[:1])
            checked.set()
            await expect(client, Connected)
            assert not client.is_online(watched[0]), "not told anew"
            await eventually(lambda: len(asked) == 3, "not subscribed again")
    wanted = [*watched[:1], *watched[2:], later[1]]
    assert asked[2] == [c.Subscribe.of(wanted[:PER_FRAME]), c.Subscribe.of(wanted[PER_FRAME:])]


@run_async
async def test_restarting_is_remembered() -> None:
    async def first(at: Connection) -> None:
        await at.welcome()
        await at.say(c.Restarting(30))
        await at.ws.close(1001)

    async def second(at: Connection) -> None:
        await at.welcome()
        await at.say(c.Restarting(0xFFFF_FFFF))
        at.ws.transport.abort()

    async with ScriptedRelay(first, second) as relay, relay.client() as client:
        await expect(client, Connected)
        assert await next_event(client) == Restarting(0.03)
        gone = await expect(client, Disconnected)
        assert gone.reason is Reason.RESTARTING
        assert 0.03 <= gone.retry_in <= 0.04
        await expect(client, Connected)
        assert await next_event(client) == Restarting(600), "a relay does not send us away for 50 days"
        gone = await expect(client, Disconnected)
        assert gone.reason is Reason.RESTARTING
        assert 600 <= gone.retry_in <= 660


@run_async
async def test_a_relay_that_accepts_and_closes_is_asked_less_and_less() -> None:
    async def close(at: Connection) -> None:
        await at.welcome()
        await at.ws.close(1001)

    async with ScriptedRelay(close) as relay, relay.client(backoff_min=0.001, backoff_max=1e6) as client:
        delays = [(await until(client, Disconnected)).retry_in for _ in range(8)]
    # Each is drawn below a ceiling that doubles and never goes back.
    assert all(0.001 <= delay <= 0.001 * 2 ** (n + 1) for n, delay in enumerate(delays))

    async def close_after_a_packet(at: Connection) -> None:
        await at.welcome()
        await at.deliver(TARGET, PACKET)
        await at.ws.close(1001)

    async with (
        ScriptedRelay(close_after_a_packet) as relay,
        relay.client(backoff_min=0.001, backoff_max=1e6) as client,
    ):
        delays = [(await until(client, Disconnected)).retry_in for _ in range(12)]
    assert all(delay <= 0.002 for delay in delays), "a session that was of use"


@run_async
async def test_a_session_that_lasted_makes_the_next_attempt_come_soon() -> None:
    async def close(at: Connection) -> None:
        await at.welcome()
        await at.ws.close(1001)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peers.client.client.LASTED", 0.0)
        async with ScriptedRelay(close) as relay, relay.client(backoff_min=0.001, backoff_max=1e6) as client:
            delays = [(await until(client, Disconnected)).retry_in for _ in range(12)]
    assert all(delay <= 0.002 for delay in delays)


def test_under_uvloop() -> None:
    async def talk() -> None:
        over = asyncio.Event()

        async def deaf(at: Connection) -> None:
            await at.welcome()
            await at.deliver(TARGET, PACKET)
            at.ws.transport.pause_reading()
            await over.wait()
            at.ws.transport.abort()

        async with ScriptedRelay(deaf, welcome_and_stay) as relay, relay.client(liveness=0.3) as client:
            await expect(client, Connected)
            await expect(client, PeerPacket)
            with pytest.raises(NotConnected):
                async with asyncio.timeout(WAIT):
                    while True:
                        await client.send(TARGET, bytes(900_000))
            assert (await expect(client, Disconnected)).reason is Reason.SILENT
            await expect(client, Connected)
            await client.barrier(WAIT)
            over.set()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())


@run_async
async def test_the_end() -> None:
    codes = []

    async def script(at: Connection) -> None:
        await at.welcome()
        await at.deliver(TARGET, PACKET)
        await at.stay()
        codes.append(at.ws.close_code)

    async with ScriptedRelay(script) as relay:
        client = relay.client()
        with pytest.raises(NotConnected):
            await client.send(TARGET, PACKET)
        with pytest.raises(LocalError, match="async with"):
            await client.connected()
        async with client:
            await client.connected(WAIT)
            await client.barrier(WAIT)
            waiting = asyncio.create_task(collect(client))
            await asyncio.sleep(0)
        assert await waiting == [Connected(), PeerPacket(TARGET, PACKET)], "what came can still be taken"
        assert await collect(client) == []
        assert not client.is_connected
        with pytest.raises(NotConnected):
            await client.send(TARGET, PACKET)
        with pytest.raises(NotConnected, match="closed"):
            await client.connected()
        with pytest.raises(LocalError, match="once"):
            await client.__aenter__()
        await eventually(lambda: codes == [1000], "not closed as one should")


async def collect(client: RelayClient) -> list[object]:
    async with asyncio.timeout(WAIT):
        return [event async for event in client]


@run_async
async def test_misuse_is_told_and_harms_nothing() -> None:
    async with ScriptedRelay(welcome_and_stay) as relay, relay.client() as client:
        await client.connected(WAIT)
        misuses: list[Callable[[], Awaitable[None]]] = [
            lambda: client.send(bytes(8), PACKET),
            lambda: client.send(b"short", PACKET),
            lambda: client.send(TARGET, b"short"),
            lambda: client.send(TARGET, bytes(1024 * 1024)),
            lambda: client.introduce(TARGET, "x" * 257),
            lambda: client.push_register(256, b""),
            lambda: client.watch([b"short"]),
        ]
        for misuse in misuses:
            with pytest.raises(LocalError):
                await misuse()
        await client.barrier(WAIT)
        assert relay.connections == 1


@run_async
async def test_nobody_there() -> None:
    async with ScriptedRelay(welcome_and_stay) as relay:
        card = relay.card
    client = RelayClient(Identity.generate(), RelayCard(card.public, card.url + "?token=0123456789abcdef"))
    async with client:
        lost = await expect(client, Disconnected)
        assert lost.reason is Reason.UNREACHABLE
        assert "Connection refused" in lost.text
        assert "token" not in lost.text
        with pytest.raises(TimeoutError, match="Connection refused"):
            await client.connected(0.01)
    unknown = RelayClient(Identity.generate(), RelayCard(card.public, "ws://relay..example.invalid/ws"))
    async with unknown:
        assert (await expect(unknown, Disconnected)).reason is Reason.UNREACHABLE


@run_async
async def test_barrier_that_is_not_answered() -> None:
    go = asyncio.Event()

    async def deaf(at: Connection) -> None:
        await at.welcome()
        at.ws.transport.pause_reading()
        await asyncio.wait_for(go.wait(), WAIT)
        at.ws.transport.abort()

    async with ScriptedRelay(deaf) as relay, relay.client() as client:
        await client.connected(WAIT)
        await asyncio.gather(client.send(TARGET, PACKET))
        with pytest.raises(TimeoutError, match="did not answer"):
            await client.barrier(0.05)
        waiting = asyncio.create_task(client.barrier(WAIT))
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(NotConnected):
            await waiting
