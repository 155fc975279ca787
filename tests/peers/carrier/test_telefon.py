"""Our side of a conversation with a telefon v2 client, and with somebody who plays old packets again."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from keys.identity import Identity
from peers.carrier import CarrierOptions
from peers.store import contacts, feed, messages, unsettled
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier.telefon import Telefon, uuid
from tests.support.clients import Clients, run_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from keys.identity import PublicIdentity
    from tests.peers.carrier.conversation import Person
    from tests.support.relay_process import RelayProcess

TEXT, DELIVERED, DELETE, EDIT, READ, CALL, REJECT = 0x20, 0x27, 0x28, 0x29, 0x2A, 0x30, 0x32
CHANGE_ACK = 0x60


async def added(alice: Person, theirs: Identity) -> int:
    row = await alice.store.write(contacts.add, 1, theirs.public, nickname="Tele\u241finfo")
    return row.id


@asynccontextmanager
async def talking(
    relay: RelayProcess, alice: Person, options: CarrierOptions | None = None
) -> AsyncIterator[tuple[Telefon, PublicIdentity, int]]:
    """A client of the web app whom Alice has as a contact, and herself, both at the relay: the client, her keys, its
    row."""
    theirs, ours = Identity.generate(), alice.keys.identity.public
    contact = await added(alice, theirs)
    async with Clients(relay) as clients, alice.at(relay, options):
        yield await Telefon.open(clients, theirs, ours), ours, contact


@run_async
async def test_texts_both_ways_with_their_acknowledgements(relay: RelayProcess, alice: Person) -> None:
    async with talking(relay, alice) as (app, ours, contact):
        said = await alice.store.write(messages.compose, alice.now(), contact, "hello ☺")
        assert await app.next() == (TEXT, said.uuid + "hello ☺".encode())
        assert app.introduced == [ours]
        await app.send(ours, DELIVERED, said.uuid)
        await alice.until_delivered(said)
        await app.send(ours, READ, said.uuid)
        await alice.until(messages.get, lambda row: row.state == State.READ, said.id)

        theirs_uuid = uuid()
        await app.send(ours, TEXT, theirs_uuid + "привет".encode())
        assert await app.next() == (DELIVERED, theirs_uuid)
        (got,) = [row for row in await alice.store.read(messages.history, contact) if not row.outgoing]
        assert got.text == "привет"
        await alice.store.write(messages.mark_read, alice.now(), contact, got.id)
        assert await app.next() == (READ, theirs_uuid)
        await alice.until(unsettled.changes_to_send, lambda rows: not rows, contact, 10)


@run_async
async def test_what_was_not_acknowledged_is_sent_again_when_they_come_back(relay: RelayProcess, alice: Person) -> None:
    theirs, ours = Identity.generate(), alice.keys.identity.public
    contact = await added(alice, theirs)
    async with Clients(relay) as clients, alice.at(relay):
        app = await Telefon.open(clients, theirs, ours)
        said = await alice.store.write(messages.compose, alice.now(), contact, "hello")
        assert (await app.next())[0] == TEXT
        await app.close()
        await alice.until(contacts.get, lambda row: not row.online, contact)
        app = await Telefon.open(clients, theirs, ours)
        assert await app.next() == (TEXT, said.uuid + b"hello")
        assert app.introduced == [ours]  # no packet of theirs has opened yet, so they may not know us
        await app.send(ours, DELIVERED, said.uuid)
        await alice.until_delivered(said)


@run_async
async def test_what_was_not_acknowledged_in_time_is_sent_again(relay: RelayProcess, alice: Person) -> None:
    async with talking(relay, alice, CarrierOptions(resend=0.2)) as (app, ours, contact):
        await app.introduce(ours, "Tele")
        await app.send(ours, READ, uuid())  # of nothing that we said
        said = await alice.store.write(messages.compose, alice.now(), contact, "hello")
        for _ in range(3):
            assert await app.next() == (TEXT, said.uuid + b"hello")
        # With every repetition our keys, which they may have lost.
        assert app.introduced
        await app.send(ours, DELIVERED, said.uuid)
        await alice.until_delivered(said)


@run_async
async def test_their_edits_and_deletions_work_on_their_own_messages_alone(relay: RelayProcess, alice: Person) -> None:
    theirs, ours = Identity.generate(), alice.keys.identity.public
    contact = await added(alice, theirs)
    async with Clients(relay) as clients, alice.at(relay):
        app = await Telefon.open(clients, theirs, ours)
        said = await alice.store.write(messages.compose, alice.now(), contact, "mine")
        assert (await app.next())[0] == TEXT
        await app.send(ours, DELIVERED, said.uuid)
        await app.send(ours, EDIT, said.uuid + b"not mine")
        await app.send(ours, DELETE, said.uuid)
        assert (await app.next())[0] == CHANGE_ACK  # of the deletion, which was kept for a message of theirs to come
        assert (await alice.store.read(messages.get, said.id)).text == "mine"

        one, two = uuid(), uuid()
        await app.send(ours, TEXT, one + b"one")
        await app.send(ours, DELETE, two)  # before it comes, as after a loss
        await app.send(ours, TEXT, two + b"two")
        edit = await app.send(ours, EDIT, one + b"eins")
        answers = [await app.next() for _ in range(4)]
        assert answers == [(DELIVERED, one), (CHANGE_ACK, answers[1][1]), (DELIVERED, two), (CHANGE_ACK, edit[:24])]
        rows = await alice.store.read(messages.history, contact)
        assert [row.text for row in rows if row.deleted_at is None] == ["mine", "eins"]


@run_async
async def test_a_packet_that_is_played_again_does_nothing(relay: RelayProcess, alice: Person) -> None:
    """What a malicious relay can do. All of these packets are genuine."""
    async with talking(relay, alice) as (app, ours, contact):
        app.knows(ours)
        one = uuid()
        text = await app.send(ours, TEXT, one + b"first words")
        old = await app.send(ours, EDIT, one + b"second words")
        await app.send(ours, EDIT, one + b"last words")
        call = await app.send(ours, CALL)
        assert [(await app.next())[0] for _ in range(4)] == [DELIVERED, CHANGE_ACK, CHANGE_ACK, REJECT]
        before = await alice.store.read(feed.last)
        for packet in (old, call, text, old, call):
            await app.replay(ours, packet)
        # A text is acknowledged again: its acknowledgement may have been lost. A call is not answered again.
        assert [await app.next() for _ in range(3)] == [
            (CHANGE_ACK, old[:24]),
            (DELIVERED, one),
            (CHANGE_ACK, old[:24]),
        ]
        rows = await alice.store.read(messages.history, contact)
        assert [(row.kind, row.text) for row in rows] == [("text", "last words"), ("call", "")]
        later = await alice.store.read(feed.read, before)
        assert [event.kind for event in later if event.kind is not Kind.PRESENCE] == []


@run_async
async def test_a_deleted_message_does_not_come_back(relay: RelayProcess, alice: Person) -> None:
    async with talking(relay, alice) as (app, ours, contact):
        app.knows(ours)
        one = uuid()
        text = await app.send(ours, TEXT, one + b"regretted")
        await app.send(ours, DELETE, one)
        await app.replay(ours, text)
        assert [(await app.next())[0] for _ in range(3)] == [DELIVERED, CHANGE_ACK, DELIVERED]
        (row,) = await alice.store.read(messages.history, contact)
        assert (row.text, row.deleted_at is not None) == ("", True)
        assert await alice.store.read(messages.search, "regretted") == []


@run_async
async def test_our_changes_are_told_a_bounded_number_of_times(relay: RelayProcess, alice: Person) -> None:
    """Telefon acknowledges neither edits nor deletions."""
    async with talking(relay, alice, CarrierOptions(resend=0.1)) as (app, ours, contact):
        said = await alice.store.write(messages.compose, alice.now(), contact, "words")
        assert (await app.next())[0] == TEXT
        await app.send(ours, DELIVERED, said.uuid)
        await alice.until_delivered(said)
        await alice.store.write(messages.edit, alice.now(), said.id, "other words")
        await alice.until(unsettled.changes_to_send, lambda rows: not rows, contact, 10)
        await alice.store.write(messages.delete, alice.now(), said.id, for_both=True)
        told = [await app.next()]
        while told[-1][0] != DELETE:
            told.append(await app.next())
        # On a slow machine the text may have been sent again before its acknowledgement was read.
        changes = [one for one in told if one != (TEXT, said.uuid + b"words")]
        assert changes == [(EDIT, said.uuid + b"other words")] * 3 + [(DELETE, said.uuid)]


@run_async
async def test_noise_is_dropped(relay: RelayProcess, alice: Person) -> None:
    theirs, ours = Identity.generate(), alice.keys.identity.public
    contact = await added(alice, theirs)
    stranger = Identity.generate()
    async with Clients(relay) as clients, alice.at(relay):
        app = await Telefon.open(clients, theirs, ours)
        app.knows(ours)
        other = await Telefon.open(clients, stranger, ours)
        await other.send(ours, TEXT, uuid() + b"who are you?")  # nobody whom we know
        await app.replay(ours, bytes(200))  # does not open
        await app.send(ours, TEXT, b"short")
        await app.send(ours, TEXT, uuid() + b"\xff")
        await app.send(ours, 0x24, b"{}")
        await app.send(ours, 0x35, b"v=0 sdp")
        await app.send(ours, 0x21, b"\1")
        await app.send(ours, 0xEE, b"from the future")
        last = uuid()
        await app.send(ours, TEXT, last + b"\x1b[2Jafter all that")
        assert await app.next() == (DELIVERED, last)
        assert await alice.heard(await alice.store.read(contacts.get, contact)) == ["\x1b[2Jafter all that"]
        assert len(await alice.store.read(contacts.everyone)) == 1
