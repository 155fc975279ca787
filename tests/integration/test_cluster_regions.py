"""Relays in two regions, joined as docs/scaling.md says: by gateways, and by a leaf node.

All that regions add to deploy/nats.conf is taken from that document, and the permissions, the TLS and the certificates
are the shipped ones: a document that were wrong would fail here.

Who has just come is known in another region once NATS has carried it there, on a way of its own. Until then they are
offline there, so these tests let clients find each other first.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from relay.backplane.bus import Outcome
from relay.backplane.nats_bus import NatsBus
from relay.backplane.options import ClusterOptions
from tests.integration.test_conversation import (  # noqa: F401 - they are collected here too
    test_offline_error_names_target_and_nonce,
    test_presence,
    test_those_online_are_told_in_one_frame,
)
from tests.support.clients import eventually, run_async
from tests.support.nats_cluster import ClusterProcess
from tests.support.nats_regions import Regions
from tests.support.talk import talk
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.needs("openssl")

NOTIFIER = Identity.generate()
EU, EU_TOO, US = range(3)


@pytest.fixture(scope="module", params=["gateways", "leaf"])
def nats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Regions]:
    running = Regions(tmp_path_factory.mktemp(request.param), leaf=request.param == "leaf")
    yield running
    running.close()


@pytest.fixture(scope="module")
def relay(nats: Regions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    """Two relays in one region, and one in another."""
    running = ClusterProcess(
        tmp_path_factory.mktemp("relays"),
        nats=nats,
        arguments=nats.arguments,
        notifier_id=NOTIFIER.id,
        # Of a region that is cut off.
        may_warn=("cluster_node_gone",),
    )
    try:
        yield running
        running.check()
    finally:
        running.close()


@run_async
async def test_frames_and_presence_cross_both_ways(relay: ClusterProcess) -> None:
    async with relay.clients(EU) as europe, relay.clients(US) as america:
        alice, bob = await europe.open(), await america.open()
        for one, other in ((alice, bob), (bob, alice)):
            await talk(one, other)
            await one.subscribe(other.public)
            assert await one.expect(c.PeerOnline) == c.PeerOnline.of([other.public.x_pub])
            absent = Identity.generate().public
            nonce = await one.send(absent, b"to nobody")
            assert await one.expect(c.RecipientOffline) == c.RecipientOffline(absent.id, nonce)
        for number in range(20):
            await alice.send(bob.public, b"a%d" % number)
            await bob.send(alice.public, b"b%d" % number)
        assert [await bob.text_from(alice.public) for _ in range(20)] == [b"a%d" % n for n in range(20)]
        assert [await alice.text_from(bob.public) for _ in range(20)] == [b"b%d" % n for n in range(20)]
        await bob.close()
        assert await alice.expect(c.PeerOffline) == c.PeerOffline.of([bob.public.x_pub])


@run_async
async def test_large_frames_cross(relay: ClusterProcess) -> None:
    """Nothing between the regions takes less than a server does."""
    async with relay.clients(EU) as europe, relay.clients(US) as america:
        alice, bob = await europe.open(), await america.open()
        await talk(alice, bob)
        for text in (bytes(900_000), bytes(range(256)) * 3000):
            await alice.send(bob.public, text)
            assert await bob.text_from(alice.public) == text


@run_async
async def test_introductions_cross_both_ways(relay: ClusterProcess) -> None:
    async with relay.clients(EU_TOO) as europe, relay.clients(US) as america:
        alice, bob = await europe.open(), await america.open()
        for one, other in ((alice, bob), (bob, alice)):
            await talk(one, other)
            await one.command(c.Introduce(other.id, "it is me"))
            assert await other.expect(c.IntroFrom) == c.IntroFrom(one.public.x_pub, one.public.ed_pub, "it is me")


@run_async
async def test_an_id_has_one_session_in_all_regions(relay: ClusterProcess) -> None:
    for first, second in ((EU, US), (US, EU_TOO)):
        async with relay.clients(first) as here, relay.clients(second) as there:
            alice = await here.open()
            await talk(await there.open(), alice)
            refused = await there.connect(alice.identity)
            await refused.greet()
            assert await refused.expect(c.IdInUse) == c.IdInUse()
            await alice.round_trip()


@run_async
async def test_the_notifier_is_in_another_region(relay: ClusterProcess) -> None:
    async with relay.clients(US) as america, relay.clients(EU) as europe, relay.clients(EU_TOO) as too:
        notifier = await america.open(NOTIFIER)
        absent = Identity.generate().id
        for clients in (europe, too):
            alice = await clients.open()
            await talk(alice, notifier)
            await alice.command(c.Wake(absent, c.WakeType.CALL))
            assert await notifier.expect(c.Wake) == c.Wake(absent, c.WakeType.CALL)
            await alice.command(c.PushRegister(c.PushKind.FCM, b"token"))
            assert await notifier.expect(c.PushForward) == c.PushForward(alice.id, c.PushKind.FCM, b"token")


@run_async
async def test_nats_says_at_once_who_is_nowhere_and_brings_answers_home(nats: Regions) -> None:
    """Also to a bus that has only just subscribed to its answers: gateways treat these in their own way."""
    ca, certificate, key = (Path(nats.arguments[at]) for at in (1, 3, 5))
    one, two = (
        NatsBus(ClusterOptions((nats.url(index),), bytes(32), ca=ca, certificate=certificate, key=key))
        for index in (EU_TOO, US)
    )
    await one.connect()
    await two.connect()
    for here, there, subject in ((one, two, "blindrelay.id.one"), (two, one, "blindrelay.id.two")):
        assert await ask(here, subject) is Outcome.NO_RESPONDERS

        def answer(data: bytes, reply: str, _subject: str, bus: NatsBus = there) -> None:
            bus.publish(reply, data)

        there.subscribe(subject, answer)
        async with asyncio.timeout(30):
            while await ask(here, subject) is not Outcome.ANSWER:
                pass
    await one.close()
    await two.close()


async def ask(bus: NatsBus, subject: str) -> Outcome:
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def answered(what: Outcome, _data: bytes) -> bool:
        if not outcome.done():
            outcome.set_result(what)
        return False

    bus.request(subject, b"?", 30, answered)
    found = await outcome
    assert found is not Outcome.TIMEOUT
    return found


@pytest.mark.parametrize("nats", ["gateways"], indirect=True)
@run_async
async def test_a_region_is_cut_off_and_comes_back(relay: ClusterProcess, nats: Regions) -> None:
    async with relay.clients(EU) as europe, relay.clients(EU_TOO) as too, relay.clients(US) as america:
        alice, bob, eve = await europe.open(), await too.open(), await america.open()
        dave = await america.open()
        await alice.subscribe(eve.public)
        assert await alice.expect(c.PeerOnline)
        await talk(alice, eve)
        await talk(eve, alice)
        for one, other in ((alice, eve), (eve, alice)):
            # The answer says to the first one's node that the question arrived.
            await one.send(other.public, b"before")
            assert await other.text_from(one.public) == b"before"
        before = {index: nodes_gone(relay, index) for index in (EU, EU_TOO, US)}
        for line in nats.lines:
            line.cut(silent=False)
        # Who does not know that, sends to whom it knew: what was not acknowledged is given up with the node.
        nonce = await alice.send(eve.public, b"into the sea")
        # In each region all goes on meanwhile, and those of the other are offline.
        await alice.send(bob.public, b"and here?")
        assert await bob.text_from(alice.public) == b"and here?"
        await dave.send(eve.public, b"and here?")
        assert await eve.text_from(dave.public) == b"and here?"
        for index, lost in ((EU, 1), (EU_TOO, 1), (US, 2)):
            await eventually(
                lambda index=index, lost=lost: nodes_gone(relay, index) == before[index] + lost,  # type: ignore[misc]
                "the other region is given up",
            )
        assert {await alice.next(), await alice.next()} == {
            c.RecipientOffline(eve.id, nonce),
            c.PeerOffline.of([eve.public.x_pub]),
        }
        for one, other in ((alice, eve), (eve, alice)):
            nonce = await one.send(other.public, b"are you there?")
            # What was on its way when the line was cut may have been told before.
            while (await one.expect(c.RecipientOffline)).nonce != nonce:
                pass
        twice = await america.open(bob.identity)
        await twice.send(eve.public, b"I am in both")
        assert await eve.text_from(bob.public) == b"I am in both"
        for line in nats.lines:
            line.heal()
        # The later one of the two stays.
        assert (await bob.closed()).code == 1008
        assert await alice.expect(c.PeerOnline) == c.PeerOnline.of([eve.public.x_pub])
        await talk(alice, twice)
        await talk(twice, alice)
        await talk(eve, alice)


def nodes_gone(relay: ClusterProcess, index: int) -> int:
    return sum(record["event"] == "cluster_node_gone" for record in relay.relays[index].records)
