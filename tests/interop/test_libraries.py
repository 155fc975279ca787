"""Clients built with several WebSocket libraries talk to each other through the real process."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Self, TypeVar

import pytest

from keys.contact import Contact
from keys.identity import Identity
from keys.packet import OVERHEAD
from tests.support.clients import WAIT, Closed, run_async
from tests.support.libraries import LIBRARIES, Library, split
from wire import commands as c
from wire.limits import MAX_FRAME
from wire.session import ClientSession, PeerFrame

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet

    from tests.support.relay_process import RelayProcess

T = TypeVar("T")
LARGEST = MAX_FRAME - 8 - OVERHEAD
"""Bytes of plaintext in a frame of exactly 1 MiB."""

NODE = "node-ws"


def _parameters(names: Iterable[tuple[str, ...]]) -> list[ParameterSet]:
    # Those without Node.js also run where there is none.
    return [pytest.param(*each, marks=[pytest.mark.needs("node", "npm")] if NODE in each else []) for each in names]


all_libraries = pytest.mark.parametrize("name", _parameters((name,) for name in LIBRARIES))
all_pairs = pytest.mark.parametrize(
    ("first", "second"), _parameters(itertools.combinations_with_replacement(LIBRARIES, 2))
)


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Path | None:
    """The directory of the Node.js client, for a test that has it among its parameters."""
    if NODE not in request.node.callspec.params.values():
        return None
    directory: Path = request.getfixturevalue("node_ws")
    return directory


class Person:
    """Our codec on somebody else's WebSocket."""

    def __init__(self, library: Library, identity: Identity, relay: RelayProcess) -> None:
        self.library = library
        self.identity = identity
        self.session = ClientSession(identity, relay.public)

    async def greet(self) -> None:
        await self.library.send(self.session.hello())

    async def expect(self, kind: type[T]) -> T:
        """Return what comes next, but for keepalives."""
        async with asyncio.timeout(WAIT):
            item = self.session.receive(await self.library.receive())
            while isinstance(item, c.ServerPing):
                item = self.session.receive(await self.library.receive())
        assert isinstance(item, kind), item
        return item

    def sealed(self, peer: Person, plaintext: bytes) -> bytes:
        """Return a frame."""
        packet = Contact(self.identity, peer.identity.public).seal(plaintext)
        return self.session.send(peer.identity.id, packet)

    async def send(self, peer: Person, plaintext: bytes) -> None:
        await self.library.send(self.sealed(peer, plaintext))

    async def text_from(self, peer: Person) -> bytes:
        frame = await self.expect(PeerFrame)
        assert frame.sender_id == peer.identity.id
        return Contact(self.identity, peer.identity.public).open(frame.packet)


class People:
    """Connects people; all leave at the end."""

    def __init__(self, relay: RelayProcess, node: Path | None) -> None:
        self._relay = relay
        self._node = node
        self._all: list[Person] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for person in self._all:
            async with asyncio.timeout(WAIT):
                await person.library.close()

    async def connect(self, name: str, identity: Identity | None = None, path: str = "/ws") -> Person:
        url = f"ws://127.0.0.1:{self._relay.port}{path}"
        async with asyncio.timeout(WAIT):
            library = await LIBRARIES[name].open(url, self._node)
        person = Person(library, identity or Identity.generate(), self._relay)
        self._all.append(person)
        return person

    async def open(self, name: str, identity: Identity | None = None, path: str = "/ws") -> Person:
        person = await self.connect(name, identity, path)
        await person.greet()
        await person.expect(c.HandshakeOk)
        challenge = await person.expect(c.Challenge)
        await person.library.send(person.session.command(c.Proof(challenge.random)))
        return person


@all_pairs
@run_async
async def test_each_pair_talks_both_ways(relay: RelayProcess, node: Path | None, first: str, second: str) -> None:
    async with People(relay, node) as people:
        one, other = await people.open(first), await people.open(second)
        for size in (0, 3, 125, 126, 65_535, 65_536, 300_000, LARGEST):
            for sender, recipient in ((one, other), (other, one)):
                plaintext = os.urandom(size)
                await sender.send(recipient, plaintext)
                assert await recipient.text_from(sender) == plaintext


@run_async
async def test_one_conversation_of_all(relay: RelayProcess, node_ws: Path) -> None:
    """Everybody writes to everybody at once, and gets each sender's words in order."""
    count = 50
    async with People(relay, node_ws) as people:
        group = [await people.open(name, path=path) for name, path in itertools.product(LIBRARIES, ("/ws", "/api0"))]

        async def write(person: Person) -> None:
            for number in range(count):
                for peer in group:
                    if peer is not person:
                        await person.send(peer, b"%d" % number)

        async def read(person: Person) -> dict[bytes, list[int]]:
            contacts = {
                peer.identity.id: Contact(person.identity, peer.identity.public) for peer in group if peer is not person
            }
            heard: dict[bytes, list[int]] = {client_id: [] for client_id in contacts}
            for _ in range(count * len(contacts)):
                frame = await person.expect(PeerFrame)
                heard[frame.sender_id].append(int(contacts[frame.sender_id].open(frame.packet)))
            return heard

        heard, _ = await asyncio.gather(asyncio.gather(*map(read, group)), asyncio.gather(*map(write, group)))
        assert all(numbers == list(range(count)) for each in heard for numbers in each.values())


@all_libraries
@run_async
async def test_no_extension_is_agreed_to(relay: RelayProcess, node: Path | None, name: str) -> None:
    async with People(relay, node) as people:
        person = await people.open(name)
        assert person.library.extensions == ""


@pytest.mark.parametrize("name", _parameters((name,) for name in LIBRARIES if LIBRARIES[name].fragments))
@run_async
async def test_fragments(relay: RelayProcess, node: Path | None, name: str) -> None:
    async with People(relay, node) as people:
        one, other = await people.open(name), await people.open("websockets")
        for size, parts in ((10, 3), (5_000, 12), (200_000, 5), (LARGEST, 9)):
            plaintext = os.urandom(size)
            await one.library.send_fragments(split(one.sealed(other, plaintext), parts))
            assert await other.text_from(one) == plaintext
        await one.send(other, b"whole again")
        assert await other.text_from(one) == b"whole again"


@all_libraries
@run_async
async def test_pings_and_texts_of_clients(relay: RelayProcess, node: Path | None, name: str) -> None:
    async with People(relay, node) as people:
        one, other = await people.open(name), await people.open("websockets")
        async with asyncio.timeout(WAIT):
            for payload in (b"x", bytes(range(125))):
                await one.library.ping(payload)
                await one.library.send_text("pong")
        await one.send(other, b"after that")
        assert await other.text_from(one) == b"after that"


@all_libraries
@run_async
async def test_path_and_query(relay: RelayProcess, node: Path | None, name: str) -> None:
    async with People(relay, node) as people:
        one = await people.open(name, path="/api0?v=2&peer=K0abc%20d")
        other = await people.open(name, path="/ws?")
        await one.send(other, b"hello")
        assert await other.text_from(one) == b"hello"


@all_libraries
@run_async
async def test_library_that_reads_answers_for_its_id(relay: RelayProcess, node: Path | None, name: str) -> None:
    """The ping that a newcomer causes is answered by the library itself."""
    async with People(relay, node) as people:
        holder = await people.open(name)
        # An answer to a command shows that the PROOF before it was taken.
        await holder.library.send(holder.session.command(c.Subscribe.of([holder.identity.public.x_pub])))
        await holder.expect(c.PeerOnline)
        reading = asyncio.create_task(holder.expect(PeerFrame))
        newcomer = await people.connect("websockets", holder.identity)
        await newcomer.greet()
        await newcomer.expect(c.IdInUse)
        other = await people.open("websockets")
        await other.send(holder, b"still you")
        assert (await reading).sender_id == other.identity.id


@all_libraries
@run_async
async def test_refusal_arrives_before_the_close(relay: RelayProcess, node: Path | None, name: str) -> None:
    async with People(relay, node) as people:
        holder = await people.open("websockets")
        x_seed, _ = holder.identity.seeds
        impostor = await people.connect(name, Identity(x_seed, os.urandom(32)))
        await impostor.greet()
        await impostor.expect(c.IdInUse)
        async with asyncio.timeout(WAIT):
            with pytest.raises(Closed) as closed:
                await impostor.library.receive()
        assert closed.value.code == 1008


@all_libraries
@run_async
async def test_leaving_is_told(relay: RelayProcess, node: Path | None, name: str) -> None:
    async with People(relay, node) as people:
        watcher, one = await people.open("websockets"), await people.open(name)
        await watcher.library.send(watcher.session.command(c.Subscribe.of([one.identity.public.x_pub])))
        await watcher.expect(c.PeerOnline)
        await one.library.close()
        await watcher.expect(c.PeerOffline)
