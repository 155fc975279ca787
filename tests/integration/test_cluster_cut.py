"""Cuts between the servers of a NATS cluster, and between a relay and its server; and what healing makes of them.

A cut is *refused*, where connections are reset and new ones are refused, or *silent*, where they stay and nothing
passes. The relays and the servers are those of all tests here, so each test mends what it cut.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import eventually, run_async
from tests.support.nats_cluster import wired_cluster
from tests.support.talkers import Talkers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.nats_cluster import ClusterProcess
    from tests.support.talkers import Talker

REPLACED = (1008, "replaced by a newer session")
FREELY = {"frames_per_second": 0, "bytes_per_second": 0, "handshakes_per_second": 0, "presence_per_second": 0}


@pytest.fixture(scope="module")
def relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    yield from wired_cluster(tmp_path_factory.mktemp("cluster"), limits=FREELY)


@pytest.fixture(autouse=True)
def _mended(relays: ClusterProcess) -> Iterator[None]:
    yield
    relays.nats.heal()


def given_up(relays: ClusterProcess) -> int:
    """How often a node was given up so far."""
    return sum(record["event"] == "cluster_node_gone" for relay in relays.relays for record in relay.records)


async def two_at_each(talkers: Talkers) -> list[Talker]:
    """Open sessions everywhere, and wait until they reach each other."""
    everybody = [await talkers.at(place) for place in (0, 0, 1, 1, 2, 2)]
    await talkers.whole(everybody)
    return everybody


async def replaced(talker: Talker) -> None:
    """Wait for the end of a session of which there is a later one."""
    await talker.gone()
    assert talker.over is not None
    assert (talker.over.code, talker.over.reason) == REPLACED


async def all_is_well(
    talkers: Talkers, everybody: list[Talker], others: Sequence[Talker], watched: Sequence[Talker]
) -> None:
    """Find that nothing was lost or doubled, that `others` noticed nothing, and that all know who is online."""
    await talkers.traffic(everybody, 5)
    await talkers.accounted(everybody)
    talkers.in_doubt(everybody)
    for sender in others:
        for recipient in others:
            assert not set(sender.refused) & set(sender.sent[recipient.id])
    for talker in (*everybody, *watched):
        assert not talker.lost
    for watcher in everybody:
        assert all(watcher.told_of(each)[-1] for each in watched)


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
@run_async
async def test_a_short_cut_delays_and_loses_nothing(relays: ClusterProcess, silent: bool) -> None:
    async with Talkers(relays) as talkers:
        everybody = await two_at_each(talkers)
        before = given_up(relays)
        await talkers.traffic(everybody, 5)
        for talker in everybody:
            for other in everybody:
                talker.say(other, 30)
        lost = relays.nats.routes_lost(0)
        relays.nats.split({0}, silent=silent)
        await talkers.traffic(everybody, 20)
        await eventually(lambda: relays.nats.routes_lost(0) > lost, "a server noticed")
        relays.nats.heal()
        await talkers.traffic(everybody, 5)
        await talkers.accounted(everybody)
        in_doubt = talkers.in_doubt(everybody)
        # On a machine that is so busy that the cut was no short one there may be other ends.
        if given_up(relays) == before:
            assert [talker.refused for talker in everybody] == [[]] * len(everybody)
            assert in_doubt == 0


@run_async
async def test_a_split_that_is_refused_on_one_way_and_silent_on_the_other(relays: ClusterProcess) -> None:
    async with Talkers(relays) as talkers:
        everybody = await two_at_each(talkers)
        alone, _, one, _, two, _ = everybody
        others = everybody[2:]
        # They are alone's neighbours, and have been there for longer than what counts as at the same time.
        alice, bob = await talkers.at(0), await talkers.at(0)
        for watcher in everybody:
            watcher.watch(alice, bob, alone, one, two)
        for watcher in everybody:
            for each in (alice, bob, alone, one, two):
                await watcher.until_told(each, online=True)
        relays.nats.cut(0, 1, silent=False)
        relays.nats.cut(0, 2, silent=True)
        # What is under way when the nodes give each other up is in doubt; and before, all goes on where it can.
        await talkers.traffic(everybody, 20)
        for watcher in others:
            for each in (alice, bob, alone):
                await watcher.until_told(each, online=False)
        for watcher in everybody[:2]:
            for each in (one, two):
                await watcher.until_told(each, online=False)
        for place in range(3):
            assert relays.ready(place) == "ready\n"
        await asyncio.gather(*(talker.turn() for talker in everybody))
        for one_side, other_side in ((alone, one), (alone, two)):
            await one_side.refused_by(other_side)
            await other_side.refused_by(one_side)
        # Ids that are at the one side come in at the other one, too, and each is found at its own side.
        alices, bobs = await talkers.at(1, alice.identity), await talkers.at(2, bob.identity)
        for here, elsewhere in ((alice, alices), (bob, bobs)):
            for watcher in others:
                await watcher.until_told(here, online=True)
            for sender, recipient in ((alone, here), (one, elsewhere), (two, elsewhere)):
                assert await sender.fate(recipient, sender.say(recipient))
            assert not here.lost
        relays.nats.heal()
        # The later one is where the client is now.
        await asyncio.gather(replaced(alice), replaced(bob))
        for elsewhere in (alices, bobs):
            for sender in everybody:
                await sender.reach(elsewhere)
        await talkers.whole(everybody)
        for watcher in everybody:
            for each in (alices, bobs, alone, one, two):
                await watcher.until_told(each, online=True)
        for place in range(3):
            assert relays.ready(place) == "ready\n"
        await all_is_well(talkers, everybody, others, (alices, bobs, alone, one, two))


@run_async
async def test_a_relay_and_its_server_do_not_hear_each_other(relays: ClusterProcess) -> None:
    async with Talkers(relays) as talkers:
        everybody = await two_at_each(talkers)
        one, neighbour = everybody[2:4]
        others = everybody[:2] + everybody[4:]
        alice, bob = await talkers.at(1), await talkers.at(0)
        for watcher in everybody:
            watcher.watch(alice, bob, one)
        for watcher in everybody:
            for each in (alice, bob, one):
                await watcher.until_told(each, online=True)
        relays.nats.doors[1].cut(silent=True)
        await talkers.traffic(everybody, 20)
        await eventually(lambda: "degraded: cluster:" in relays.ready(1), "it says so")
        for place in (0, 2):
            assert relays.ready(place) == "ready\n"
        for watcher in others:
            await watcher.until_told(one, online=False)
        # Who is alone lets everybody in; elsewhere its server believes that it is still there, so nobody answers.
        alices, bobs = await asyncio.gather(talkers.at(0, alice.identity), talkers.at(1, bob.identity))
        await one.refused_by(others[0])
        await others[0].refused_by(one)
        for sender, recipient in ((one, neighbour), (one, alice), (neighbour, bobs), (others[2], alices)):
            assert await sender.fate(recipient, sender.say(recipient))
        for talker in (alice, bob):
            assert not talker.lost
        relays.nats.heal()
        await asyncio.gather(replaced(alice), replaced(bob))
        await eventually(lambda: relays.ready(1) == "ready\n", "it is back")
        for elsewhere in (alices, bobs):
            for sender in everybody:
                await sender.reach(elsewhere)
            for watcher in everybody:
                await watcher.until_told(elsewhere, online=True)
        for watcher in others:
            await watcher.until_told(one, online=True)
        await talkers.whole(everybody)
        await all_is_well(talkers, everybody, others, (alices, bobs, one))
