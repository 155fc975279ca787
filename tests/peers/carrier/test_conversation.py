"""A conversation through a real relay, from store to store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peers.carrier import CarrierOptions
from peers.client import ClientOptions
from peers.store import contacts, feed, jobs, messages, unsettled
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier.conversation import Person
from tests.support.clients import run_async
from tests.support.cutting import CuttingProxy
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from pathlib import Path

    from peers.store.message_rows import MessageRow

FAST = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2))


@run_async
async def test_a_stranger_writes_and_is_answered(relay: RelayProcess, alice: Person, bob: Person) -> None:
    to_bob = await alice.adds(bob)
    first = await alice.says(to_bob, "Are you there?")
    async with alice.at(relay), bob.at(relay):
        assert (await alice.until_delivered(first)).delivered_at is not None
        to_alice = await bob.knows(alice)
        assert (to_alice.label, to_alice.trust, to_alice.knows_us) == ("Alice", "unverified", True)
        assert await bob.heard(to_alice) == ["Are you there?"]
        answer = await bob.says(to_alice, "I am: ☺")
        await bob.until_delivered(answer)
        assert await alice.heard(to_bob) == ["I am: ☺"]
        (got,) = [row for row in await alice.store.read(messages.history, to_bob.id) if not row.outgoing]
        assert await alice.store.write(messages.mark_read, alice.now(), to_bob.id, got.id) == 1
        await bob.until(messages.get, lambda row: row.state == State.READ and row.read_at is not None, answer.id)


@run_async
async def test_edits_and_deletions_arrive_once_and_are_settled(relay: RelayProcess, alice: Person, bob: Person) -> None:
    to_bob = await alice.adds(bob)
    async with alice.at(relay), bob.at(relay):
        said = [await alice.says(to_bob, text) for text in ("one", "two", "three")]
        await alice.until_delivered(said[-1])
        to_alice = await bob.knows(alice)
        await alice.store.write(messages.edit, alice.now(), said[0].id, "uno")
        await alice.store.write(messages.edit, alice.now(), said[0].id, "eins")
        await alice.store.write(messages.delete, alice.now(), said[1].id, for_both=True)
        await alice.until(unsettled.changes_to_send, lambda rows: not rows, to_bob.id, 10)
        assert await bob.heard(to_alice) == ["eins", "three"]
        assert (await alice.store.read(contacts.get, to_bob.id)).extended


@run_async
async def test_what_is_written_before_anybody_is_there_arrives_in_order(
    relay: RelayProcess, alice: Person, bob: Person
) -> None:
    to_bob = await alice.adds(bob)
    texts = [f"message {number}" for number in range(300)]
    async with alice.at(relay):
        said = [await alice.says(to_bob, text) for text in texts]
        await alice.until(feed.connection, lambda state: state["state"] == "connected")
        rows = await alice.store.read(unsettled.to_send, to_bob.id, 1000)
        assert [row.state for row in rows] == [State.QUEUED] * 300
        async with bob.at(relay):
            await alice.until_delivered(said[-1])
            assert await bob.heard(await bob.knows(alice)) == texts
    assert not await alice.store.read(unsettled.contacts_to_send)


@run_async
async def test_a_message_that_was_deleted_before_it_left_is_not_sent(
    relay: RelayProcess, alice: Person, bob: Person
) -> None:
    to_bob = await alice.adds(bob)
    secret = await alice.says(to_bob, "what I regret")
    kept = await alice.says(to_bob, "what I keep")
    await alice.store.write(messages.delete, alice.now(), secret.id, for_both=True)
    async with alice.at(relay), bob.at(relay):
        await alice.until_delivered(kept)
        rows = await bob.store.read(messages.history, (await bob.knows(alice)).id)
    assert [row.text for row in rows] == ["what I keep"]


@run_async
async def test_a_blocked_contact_is_not_heard_and_not_told(relay: RelayProcess, alice: Person, bob: Person) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    async with bob.at(relay):
        await bob.store.write(contacts.set_blocked, bob.now(), to_alice.id, blocked=True)
        async with alice.at(relay):
            await alice.until(contacts.get, lambda row: row.online, to_bob.id)
            said = await alice.says(to_bob, "hello?")
            await alice.until(messages.get, lambda row: row.state == State.SENT, said.id)
    assert await bob.heard(to_alice) == []
    # What was not heard was not acknowledged either, and goes out again.
    await bob.store.write(contacts.set_blocked, bob.now(), to_alice.id, blocked=False)
    async with alice.at(relay), bob.at(relay):
        await alice.until_delivered(said)
    assert await bob.heard(to_alice) == ["hello?"]


@run_async
async def test_a_new_contact_is_greeted_when_they_come(relay: RelayProcess, alice: Person, bob: Person) -> None:
    await alice.adds(bob)
    async with alice.at(relay), bob.at(relay):
        assert (await bob.knows(alice)).origin == "introduction"


@run_async
async def test_an_introduction_with_other_keys_is_refused(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    """Somebody who has a contact's X25519 key, as all their contacts do, and another Ed25519 key."""
    mallory = Person(tmp_path / "mallory", "Alice")
    false = type(alice.keys.identity.public)(alice.keys.identity.public.x_pub, mallory.keys.identity.public.ed_pub)
    known = await bob.store.write(contacts.add, bob.now(), false, nickname="Alice")
    async with bob.at(relay), alice.at(relay):
        await alice.adds(bob)
        await bob.until(
            feed.read, lambda events: any(e.kind is Kind.NOTICE and "other keys" in e.detail for e in events), 0
        )
    assert (await bob.store.read(contacts.get, known.id)).public == false


@run_async
async def test_jobs_are_done_once(relay: RelayProcess, alice: Person, bob: Person) -> None:
    to_bob = await alice.adds(bob)
    job = await alice.store.write(jobs.add, alice.now(), to_bob.id, "wake")
    async with alice.at(relay):
        await alice.until(jobs.waits, lambda waits: not waits, job)


@run_async
async def test_the_network_fails_again_and_again(relay: RelayProcess, alice: Person, bob: Person) -> None:
    """Connections that die at every place in a conversation of both sides lose nothing and double nothing."""
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    async with CuttingProxy(relay.port, relay.public) as network, alice.at(network, FAST), bob.at(network, FAST):
        last: list[MessageRow] = []
        for number in range(60):
            network.cut_after(200 + 137 * number)
            last = [await alice.says(to_bob, f"a{number}"), await bob.says(to_alice, f"b{number}")]
            if number % 10 == 0:
                network.cut()
        await alice.until_delivered(last[0])
        await bob.until_delivered(last[1])
        for person in (alice, bob):
            await person.until(unsettled.contacts_to_send, lambda waiting: not waiting)
        assert network.connections > 4
    assert sorted(await bob.heard(to_alice), key=lambda text: int(text[1:])) == [f"a{n}" for n in range(60)]
    assert sorted(await alice.heard(to_bob), key=lambda text: int(text[1:])) == [f"b{n}" for n in range(60)]


@run_async
async def test_a_relay_that_is_killed_and_comes_back(tmp_path: Path, alice: Person, bob: Person) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    keys = tmp_path / "keys"
    keys.mkdir()
    first = RelayProcess(keys)
    async with CuttingProxy(first.port, first.public) as network, alice.at(network, FAST), bob.at(network, FAST):
        await alice.until_delivered(await alice.says(to_bob, "before"))
        first.process.kill()
        first.process.wait()
        meanwhile = await alice.says(to_bob, "meanwhile")
        await alice.until(feed.connection, lambda state: state["state"] == "waiting")
        assert not (await alice.store.read(contacts.get, to_bob.id)).online
        second = RelayProcess(keys)
        try:
            network.target = second.port
            await alice.until_delivered(meanwhile)
            await bob.until_delivered(await bob.says(to_alice, "after"))
        finally:
            second.process.kill()
            second.process.wait()
    assert await bob.heard(to_alice) == ["before", "meanwhile"]
    assert await alice.heard(to_bob) == ["after"]


@run_async
async def test_a_session_that_went_silent_is_replaced(relay: RelayProcess, alice: Person, bob: Person) -> None:
    """A cable that was pulled: no reset, no end, nothing. The acknowledgement is missing, and so it is sent again."""
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    patient = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2, liveness=2.0))
    async with CuttingProxy(relay.port, relay.public) as network, alice.at(relay), bob.at(network, patient):
        await alice.until_delivered(await alice.says(to_bob, "one"))
        network.freeze()
        two = await alice.says(to_bob, "two")
        await bob.until(feed.connection, lambda state: state["state"] == "waiting")
        network.thaw()
        await alice.until_delivered(two)
    assert await bob.heard(to_alice) == ["one", "two"]
