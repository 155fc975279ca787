"""Whatever a server sends: nothing but the client's own errors comes out, and nothing that did not verify."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

import pytest
from websockets.utils import accept_key

from keys.identity import Identity
from keys.invite import RelayCard
from peers.client import (
    ClientError,
    ClientOptions,
    Connected,
    Disconnected,
    NotAdmitted,
    Notice,
    PeerPacket,
    Reason,
    RelayClient,
    WrongRelayKeys,
)
from tests.peers.client.scripted import WAIT, Connection, ScriptedRelay, expect, next_event, until
from tests.support.clients import run_async
from wire import commands as c

if TYPE_CHECKING:
    from peers.client import Event

SEED = 20260101


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return `data` with a flipped bit, cut, lengthened, or with a part of it doubled; never as it was."""
    at = chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data + chance.randbytes(1 + at % 40)
        case _:
            return data[:at] + chance.randbytes(1 + at % 8) + data[at:]


def commands() -> list[c.Body]:
    friend = Identity.generate().public
    return [
        c.PeerOnline.of([WATCHED]),
        c.PeerOffline.of([WATCHED]),
        c.IntroFrom(friend.x_pub, friend.ed_pub, "Zoë"),
        c.RecipientOffline(b"target_8", bytes(24)),
        c.Info("a notice"),
        c.Wake(b"target_8", 1),
        c.PushForward(b"target_8", 1, b"token"),
        c.Restarting(5),
        c.NotAdmitted("go away"),
        c.ServerPing(),
    ]


WATCHED = bytes([7]) * 32


@run_async
async def test_a_frame_that_does_not_verify_ends_the_session_and_is_counted() -> None:
    async def first(at: Connection) -> None:
        await at.welcome()
        frame = at.session.seal(c.Info("forged"))
        await at.ws.send(frame[:-1] + bytes([frame[-1] ^ 1]))
        await at.say(c.Info("behind it"))
        await at.stay()

    async def short(at: Connection) -> None:
        await at.welcome()
        await at.ws.send(bytes(111))
        await at.stay()

    async def second_answer(at: Connection) -> None:
        await at.welcome()
        await at.say(c.HandshakeOk())
        await at.stay()

    async def odd_bodies(at: Connection) -> None:
        await at.welcome()
        await at.say(c.Unknown(c.Command.INFO, b"\xff"), c.Unknown(c.Command.PEER_ONLINE, bytes(31)), c.Info("good"))
        await at.stay()

    async with ScriptedRelay(first, short, second_answer, odd_bodies) as relay, relay.client() as client:
        for number in (1, 2, 3):
            await expect(client, Connected)
            lost = await expect(client, Disconnected)
            assert lost.reason is Reason.VIOLATION
            assert client.bad_frames == number
        # What verifies and is not understood is the relay's own: the session goes on.
        await expect(client, Connected)
        assert await next_event(client) == Notice("good")
        assert client.bad_frames == 5


@run_async
async def test_who_meddles_is_not_come_back_to_soon() -> None:
    async def meddle(at: Connection) -> None:
        await at.welcome()
        await at.deliver(b"target_8", bytes(104))
        await at.ws.send(b"no frame")
        await at.stay()

    # The dice always show the most, and every nonce is the same: nothing of this is ever sealed for anybody.
    async with ScriptedRelay(meddle) as relay:
        options = ClientOptions(backoff_min=0.001, backoff_max=0.05)
        async with RelayClient(Identity.generate(), relay.card, options, random=lambda size: b"\xff" * size) as client:
            delays = [round((await until(client, Disconnected)).retry_in, 4) for _ in range(7)]
    assert delays == [0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]


@run_async
async def test_mutations_of_every_command_are_never_delivered() -> None:
    chance = random.Random(SEED)
    rounds = 30

    async def forge(at: Connection) -> None:
        await at.welcome()
        body = chance.choice(commands())
        await at.ws.send(mutated(at.session.seal(body), chance))
        await at.ws.close(1001)

    async with ScriptedRelay(*[forge] * rounds, wait) as relay, relay.client() as client:
        await client.watch([WATCHED])
        for _ in range(rounds):
            await expect(client, Connected)
            while not isinstance(event := await next_event(client), Disconnected):
                # A changed header makes it a peer's packet, for which nothing but the contact's keys vouch.
                assert isinstance(event, PeerPacket), event
            assert not client.is_online(WATCHED)
        await expect(client, Connected)


async def wait(at: Connection) -> None:
    await (await at.welcome()).stay()


@run_async
async def test_mutations_of_the_answer_open_no_session() -> None:
    chance = random.Random(SEED)
    answers: list[c.ErrorBody | None] = [None, c.IdInUse(), c.NotAdmitted("no"), c.BadVersion(9)]

    async def forge(at: Connection) -> None:
        await at.hello()
        answer = chance.choice(answers)
        await at.ws.send(mutated(at.session.accept() if answer is None else at.session.refuse(answer), chance))
        await at.stay()

    async with ScriptedRelay(forge) as relay:
        for _ in range(40):
            async with relay.client() as client:
                with pytest.raises(WrongRelayKeys):
                    await next_event(client)


@run_async
async def test_any_binary_message() -> None:
    chance = random.Random(SEED)
    sizes = [0, 1, 8, 111, 112, 115, 136, 500, 70_000, 1024 * 1024]

    async def noise(at: Connection) -> None:
        await at.welcome()
        for _ in range(5):
            await at.ws.send(chance.randbytes(chance.choice(sizes)))
        await at.ws.send(b"x" * (1024 * 1024 + 1))
        await at.stay()

    async with ScriptedRelay(noise) as relay, relay.client() as client:
        for _ in range(25):
            await expect(client, Connected)
            while not isinstance(event := await next_event(client), Disconnected):
                assert isinstance(event, PeerPacket)
            assert event.reason is Reason.VIOLATION


def streams(chance: random.Random) -> list[bytes]:
    """What servers say that are no WebSocket servers, or bad ones: before and after the upgrade."""
    heads = [
        b"",
        b"\x00" * 50,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nRetry-After: x\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: \xff\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 \xff\xfe\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * 100_000,
        b"HTTP/2.0 400 no\r\n\r\n",
        b"HTTP/1.1 407 Proxy\r\nContent-Length: -1\r\n\r\n",
    ]
    return heads + [chance.randbytes(chance.randrange(1, 300)) for _ in range(20)]


def after_upgrade(chance: random.Random) -> list[bytes]:
    return [
        b"\x82\x7f" + b"\xff" * 8,  # a length of 2⁶⁴ − 1
        b"\x82\x80\x00\x00\x00\x00",  # masked
        b"\xf2\x01x",  # reserved bits
        b"\x00\x01x",  # a continuation of nothing
        b"\x83\x00",  # a reserved opcode
        b"\x81\x02\xff\xfe",  # a text that is none
        b"\x88\x01x",  # a Close frame of one byte
        b"\x88\x04\x03\xf0\xff\xfe",  # 1008, and a reason that is no text
        b"\x88\x02\x00\x00",  # a code that does not exist
        b"\x89\x7e\x00\xff" + bytes(255),  # a ping that is too long
        b"\x8a\x00" * 50,
        b"\x02\x01x" + b"\x00\x01x" * 6000,  # fragments without end
        *(chance.randbytes(chance.randrange(1, 200)) for _ in range(30)),
    ]


class RawServer:
    """Answers each connection by the next of some byte strings, and closes; the last is for all that follow."""

    def __init__(self, answers: list[bytes], *, upgrade: bool) -> None:
        self.answers = answers
        self.upgrade = upgrade
        self.errors: list[BaseException] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.upgrade:
                key = next(line for line in head.decode().split("\r\n") if line.lower().startswith("sec-websocket-key"))
                accept = accept_key(key.partition(":")[2].strip()).encode()
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            writer.write_eof()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@pytest.mark.parametrize("upgrade", [False, True])
@run_async
async def test_any_bytes_at_all(upgrade: bool) -> None:
    chance = random.Random(SEED)
    answers = after_upgrade(chance) if upgrade else streams(chance)
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    for answer in answers:
        server = await asyncio.start_server(RawServer([answer], upgrade=upgrade), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            card = RelayCard(Identity.generate().public, f"ws://127.0.0.1:{port}/ws")
            async with client_of(card) as client:
                try:
                    event: Event | None = await next_event(client)
                except ClientError as error:
                    assert isinstance(error, (WrongRelayKeys, NotAdmitted))
                    event = None
                assert event is None or isinstance(event, Disconnected), answer[:80]
    assert faults == [], "something was raised where nobody takes it"


def client_of(card: RelayCard) -> RelayClient:
    return RelayClient(Identity.generate(), card, ClientOptions(open_timeout=WAIT, backoff_min=5.0))


@run_async
async def test_any_bytes_inside_of_a_session() -> None:
    chance = random.Random(SEED)
    noise = after_upgrade(chance)

    async def script(at: Connection) -> None:
        data = noise.pop(0) if noise else b""
        await at.welcome()
        at.ws.transport.write(data)
        at.ws.transport.write(os.urandom(300))
        at.ws.transport.write_eof()
        await at.stay()

    rounds = len(noise)
    async with ScriptedRelay(script) as relay, relay.client() as client:
        for number in range(rounds):
            await expect(client, Connected)
            while not isinstance(event := await next_event(client), Disconnected):
                assert isinstance(event, PeerPacket), number


@run_async
async def test_a_fault_of_ours_is_not_swallowed() -> None:
    async with ScriptedRelay(wait) as relay:
        with pytest.MonkeyPatch.context() as patch:

            def broken(*_: object) -> None:
                raise ZeroDivisionError

            patch.setattr("peers.client.link.Link.receive", broken)
            client = relay.client()
            with pytest.raises(ZeroDivisionError):
                async with client:
                    await until(client, Disconnected)
            silent = relay.client()
            with pytest.raises(ZeroDivisionError):
                async with silent:
                    assert silent._task is not None
                    await asyncio.wait([silent._task])
