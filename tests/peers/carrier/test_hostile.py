"""Contacts with genuine keys, strangers, and a relay that does not answer: what they must not bring about."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity, PublicIdentity
from peers.carrier import CarrierOptions, incoming
from peers.carrier import carrier as carrier_module
from peers.client import ClientOptions, RelayClient
from peers.database import DatabaseError
from peers.store import contacts, feed, file_rows, messages, unsettled
from peers.store.feed import Kind
from peers.store.message_rows import State
from tests.peers.carrier.moving import MIB, arrived, make, offer
from tests.peers.carrier.scripted_peer import ScriptedPeer
from tests.support.clients import run_async
from tests.support.cutting import CuttingProxy
from wire.peer_commands import (
    Call,
    Delete,
    DeliveryAck,
    Edit,
    FileOffer,
    FileWant,
    PeerCommand,
    Pull,
    Text,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.carrier.conversation import Person
    from tests.support.relay_process import RelayProcess
    from wire.commands import Body

FAST = CarrierOptions(client=ClientOptions(backoff_min=0.02, backoff_max=0.2), resend=0.5)
SAID = messages.uuid()


def offer_of(size: int) -> FileOffer:
    return FileOffer(messages.uuid(), "a", "", size, Pull(messages.uuid(), 32768, bytes(32)))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(Text(messages.uuid(), "x"), id="text"),
        pytest.param(Edit(SAID, "y"), id="edit"),
        pytest.param(Delete(SAID), id="delete"),
        pytest.param(Call(PeerCommand.CALL_REQUEST), id="call"),
        pytest.param(offer_of(5), id="offer"),
    ],
)
@pytest.mark.parametrize("met", [True, False], ids=["known", "first"])
@run_async
async def test_who_is_removed_while_their_packets_come_ends_nothing(
    relay: RelayProcess, alice: Person, bob: Person, body: Body, met: bool
) -> None:
    to_alice, to_bob = await bob.adds(alice), await alice.adds(bob)
    mallory = Identity.generate()
    row = await bob.store.write(contacts.add, bob.now(), mallory.public, nickname="Mallory")
    # Before the carrier knows: it learns of what another process does by its next look.
    blind = asyncio.Event()
    changed = bob.store.changed

    async def held(version: int, within: float | None = None) -> int:
        await blind.wait()
        return await changed(version, within)

    async with alice.at(relay, FAST), ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bob.store, "changed", held)
            async with bob.at(relay, FAST) as carrier:
                await peer.until_there()
                if met:
                    await peer.say(Text(SAID, "hello"))
                    await peer.next(DeliveryAck)
                await bob.store.write(contacts.remove, bob.now(), row.id)
                await peer.say(body)
                said = await alice.says(to_bob, "still there?")
                await alice.until_delivered(said)
                await peer.relay.barrier()
                # This one stands behind the packet on the relay's way to Bob.
                again = await alice.says(to_bob, "and now?")
                await alice.until_delivered(again)
                failing = asyncio.create_task(carrier.failure())
                await asyncio.sleep(0)
                assert not failing.done()
                failing.cancel()
                blind.set()
    assert await bob.heard(to_alice) == ["still there?", "and now?"]


@run_async
async def test_strangers_with_slow_files_hold_up_nobody_else(
    relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path
) -> None:
    to_bob, to_alice = await alice.adds(bob), await bob.adds(alice)
    content = make(tmp_path / "a.bin", MIB)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bob.at(relay, FAST))
        await stack.enter_async_context(alice.at(relay, FAST))
        for number in range(4):
            # They offer all that is asked for at once, and send nothing of it.
            peer = ScriptedPeer(relay, Identity.generate(), bob.keys.identity.public)
            await (await stack.enter_async_context(peer)).until_there()
            await peer.relay.introduce(bob.keys.identity.public.id, f"stranger {number}")
            await peer.say(*(offer_of(MIB) for _ in range(3)))
            running: set[bytes] = set()
            while len(running) < 3:
                want = await peer.next(FileWant)
                running |= {want.file_id} if want.count else set()
        row = await offer(alice, to_bob, tmp_path / "a.bin")
        assert await arrived(bob, to_alice, row) == content
        waiting = await bob.store.read(file_rows.list_of, None, open_only=True)
        assert len(waiting) == 12


@run_async
async def test_a_relay_that_is_slow_to_answer_ends_nothing(
    relay: RelayProcess, alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_bob = await alice.adds(bob)
    timed_out = asyncio.Event()
    barrier = RelayClient.barrier

    async def impatient(self: RelayClient, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - that of the client
        task = asyncio.current_task()
        try:
            await barrier(self, min(timeout, 0.2))
        except TimeoutError:
            if task is not None and task.get_name() == "carrier-settle":
                timed_out.set()
            raise

    async with CuttingProxy(relay.port, relay.public) as his, alice.at(relay, FAST), bob.at(his, FAST):
        said = await alice.says(to_bob, "seen?")
        await alice.until_delivered(said)
        to_alice = await bob.knows(alice)
        monkeypatch.setattr(RelayClient, "barrier", impatient)
        his.freeze()
        await bob.store.write(messages.mark_read, bob.now(), to_alice.id, 10**9)
        await timed_out.wait()
        his.thaw()
        await alice.until(messages.get, lambda row: row.state == State.READ, said.id)
        await bob.until(unsettled.changes_to_send, lambda rows: not rows, to_alice.id, 10)


@run_async
async def test_who_introduces_other_keys_again_and_again_is_told_of_once(
    relay: RelayProcess, alice: Person, bob: Person
) -> None:
    mallory = Identity.generate()
    false = PublicIdentity(mallory.public.x_pub, Identity.generate().public.ed_pub)
    await bob.store.write(contacts.add, bob.now(), false, nickname="Carol")
    async with bob.at(relay, FAST), ScriptedPeer(relay, mallory, bob.keys.identity.public) as peer:
        await peer.until_there()
        for _ in range(20):
            await peer.relay.introduce(bob.keys.identity.public.id, "Carol")
        await peer.relay.barrier()
        # By the same way, behind them.
        to_bob = await alice.adds(bob)
        async with alice.at(relay, FAST):
            await alice.until_delivered(await alice.says(to_bob, "hello"))
    notices = [event for event in await bob.store.read(feed.read, 0) if event.kind is Kind.NOTICE]
    assert len(notices) == 1
    assert "other keys" in notices[0].detail


@run_async
async def test_a_store_that_fails_says_so_once(
    relay: RelayProcess, alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write that waits fails with it, and none of them may write to the terminal of whoever uses it."""
    to_bob = await alice.adds(bob)
    await bob.adds(alice)
    for number in range(50):
        await alice.says(to_bob, f"text {number}")
    loud: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loud.append(context))

    def full(*_: object) -> bool:
        raise sqlite3.OperationalError("full")

    monkeypatch.setattr(incoming, "_received", full)
    async with alice.at(relay, FAST), bob.at(relay, FAST) as carrier:
        with pytest.raises(DatabaseError):
            await carrier.failure()
    del carrier
    gc.collect()
    await asyncio.sleep(0)
    assert loud == []


@run_async
async def test_a_carrier_that_runs_for_long_keeps_the_feed_small(
    relay: RelayProcess, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "_TIDY", 0.05)
    async with bob.at(relay, FAST):
        old = await bob.store.write(feed.add, 1, Kind.PRESENCE, detail="online")
        await bob.until(feed.read, lambda events: all(event.seq != old for event in events), 0)
