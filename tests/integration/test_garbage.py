"""Sessions end without the garbage collector: the process rarely looks for cycles (relay/heap.py): none may be left."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Final

import pytest
import uvloop

from keys.files import ServerKeys
from keys.identity import Identity
from relay.app import Relay
from relay.outbox import Outbox
from relay.session import Session
from relay.settings import Settings
from tests.relay.harness import client_frame, upgrade
from wire import commands as c
from wire.session import ClientSession

WAIT: Final = 60.0


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(*kinds: type) -> int:
    return sum(isinstance(each, kinds) for each in gc.get_objects())


async def until(done: object) -> None:
    assert callable(done)
    async with asyncio.timeout(WAIT):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def live(server: ServerKeys, how: str) -> None:
    """A relay, two clients that talk, watch each other and are refused something, and their end."""
    relay = Relay(Settings(port=0), server)
    await relay.start()
    identities = [Identity.generate(), Identity.generate()]
    streams = []
    for identity in identities:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.listener.port)
        wire = ClientSession(identity, server.identity.public)
        writer.write(upgrade() + client_frame(wire.hello()))
        await reader.readuntil(b"\r\n\r\n")
        head = await reader.readexactly(2)
        size = head[1] if head[1] < 126 else int.from_bytes(await reader.readexactly(2), "big")
        assert isinstance(wire.receive(await reader.readexactly(size)), c.HandshakeOk)
        streams.append((reader, writer, wire))
    counters = relay.core.counters
    for at, (_reader, writer, wire) in enumerate(streams):
        other = identities[1 - at].public
        packet = bytes(23) + bytes((at,)) + bytes(80)
        writer.write(client_frame(wire.command(c.Subscribe((other.x_pub,)))))
        writer.write(client_frame(wire.send(other.id, packet)) + client_frame(wire.send(b"\x99" * 8, packet)))
        writer.write(client_frame(b"ping", 0x9) + client_frame(b"\x01", 0x2, fin=False) + client_frame(b"", 0x0))
    await until(lambda: counters.frames_in >= 14 and sum(counters.refusals.values()) >= 4)
    for _reader, writer, _wire in streams:
        if how == "closed":
            writer.write(client_frame(b"\x03\xe8", 0x8))
        elif how == "aborted":
            writer.transport.abort()
    if how != "stopped":
        await until(lambda: not relay.core.connections)
    await relay.stop()
    for _reader, writer, _wire in streams:
        writer.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["closed", "aborted", "stopped"])
@pytest.mark.usefixtures("no_collector")
def test_a_session_that_ended_is_gone_without_the_collector(how: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live(ServerKeys(Identity.generate()), how))
    assert alive(Session, Outbox) == 0
