"""What must not end a carrier: a contact who is removed while they write, and a relay that takes its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peers.carrier import CarrierOptions, outgoing
from peers.carrier.carrier import Carrier
from peers.client import ClientOptions, RelayClient
from peers.store import contacts, feed, messages, unsettled
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier.conversation import Person
from tests.peers.carrier.scripted_peer import ScriptedPeer
from tests.support.clients import run_async
from tests.support.cutting import CuttingProxy
from tests.support.relay_process import RelayProcess
from wire.peer_commands import Call, Delete, DeliveryAck, Edit, FileOffer, PeerCommand, Pull, Text

if TYPE_CHECKING:
    from pathlib import Path

    from wire.commands import Body


_ID = bytes(range(16))


@pytest.mark.parametrize(
    "body",
    [
        Text(_ID, "Are you there?"),
        Edit(_ID, "Were you there?"),
        Delete(_ID),
        DeliveryAck(_ID),
        Call(PeerCommand.CALL_REQUEST),
        FileOffer(_ID, "a.txt", "text/plain", 5, None),
        FileOffer(_ID, "a.txt", "text/plain", 5, Pull(_ID, 32768, bytes(32))),
    ],
    ids=lambda body: type(body).__name__,
)
@run_async
async def test_what_somebody_says_who_was_removed_is_dropped(
    body: Body, relay: RelayProcess, alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes them, and their packet comes before the news of it."""
    mallory = Person(alice.directory, "Mallory")
    to_mallory = await alice.adds(mallory)
    await alice.adds(bob)

    async def no_news(carrier: Carrier, contact: int) -> None:
        assert contact == to_mallory.id

    async with alice.at(relay):
        identity, ours = mallory.keys.identity, alice.keys.identity.public
        async with (
            ScriptedPeer(relay, identity, ours) as peer,
            ScriptedPeer(relay, bob.keys.identity, ours) as friend,
        ):
            await peer.until_there()
            await friend.until_there()
            await peer.say(Text(bytes(16), "first"))
            await peer.next(DeliveryAck)
            monkeypatch.setattr(Carrier, "_reload", no_news)
            await alice.store.write(contacts.remove, alice.now(), to_mallory.id)
            await peer.say(body)
            await peer.relay.barrier()
            await friend.say(Text(_ID, "still carried"))
            assert (await friend.next(DeliveryAck)).uuid == _ID
    assert [row.label for row in await alice.store.read(contacts.everyone)] == ["Bob"]


@run_async
async def test_read_marks_wait_for_a_relay_that_does_not_answer_in_time(
    relay: RelayProcess, alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    barrier = RelayClient.barrier

    async def slow(self: RelayClient, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - as the one it stands for
        nonlocal asked
        asked += 1
        if asked <= 2:
            raise TimeoutError
        await barrier(self, timeout)

    monkeypatch.setattr(outgoing, "_REFUSAL", 0.02)
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    async with alice.at(relay), bob.at(relay):
        said = await bob.says(to_alice, "Have you seen it?")
        await bob.until_delivered(said)
        got = (await alice.store.read(messages.history, to_bob.id))[-1]
        monkeypatch.setattr(RelayClient, "barrier", slow)
        await alice.store.write(messages.mark_read, alice.now(), to_bob.id, got.id)
        await bob.until(messages.get, lambda row: row.state == State.READ, said.id)
        await alice.until(unsettled.changes_to_send, lambda rows: not rows, to_bob.id, 10)
        assert asked > 2
        await alice.until_delivered(await alice.says(to_bob, "I have."))


@run_async
async def test_a_notice_is_told_once_however_often_the_relay_says_it(
    tmp_path: Path, alice: Person, bob: Person
) -> None:
    to_bob = await alice.adds(bob)
    notice = "Down on Sunday. Back on Monday \u241f or Tuesday."
    running = RelayProcess(tmp_path, variables={"RELAY_NOTICE": notice})
    fast = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2))
    async with CuttingProxy(running.port, running.public) as network, alice.at(network, fast), bob.at(running):
        await alice.until_delivered(await alice.says(to_bob, "before"))
        network.cut()
        await alice.until(feed.read, lambda events: sum('"connected"' in each.detail for each in events) == 2, 0)
        # The notice comes before anything that can be acknowledged.
        await alice.until_delivered(await alice.says(to_bob, "after"))
    told = [event.detail for event in await alice.store.read(feed.read, 0) if event.kind is Kind.NOTICE]
    assert told == ["the relay says: Down on Sunday. Back on Monday \u241f or Tuesday."]
    running.check()
