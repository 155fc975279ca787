"""The simulation of a cluster: its people are as they are said to be, and its router remembers as the real one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench import scale
from bench.scale import CONTACTS_MOST, OFFLINE, Costs, Memory, World, contacts, degrees, frames, places, simulate

if TYPE_CHECKING:
    from pathlib import Path

SMALL = World(ids=50_000, nodes=4, online=0.6, session=600.0)
IDS = np.arange(50_000, dtype=np.uint64)


def test_numbers_of_contacts_follow_a_power_law() -> None:
    found = degrees(replace(SMALL, contacts=20.0), IDS)
    assert found.mean() == pytest.approx(20, rel=0.05)
    assert 1 <= found.min() <= 14
    assert 100 < found.max() <= CONTACTS_MOST
    # Twice as many contacts are eight times as rare.
    assert (found > 40).sum() / (found > 80).sum() == pytest.approx(8, rel=0.2)


def test_who_has_many_contacts_is_the_contact_of_many() -> None:
    drawn = contacts(SMALL, np.repeat(IDS[::50], 40), np.tile(np.arange(40, dtype=np.uint64), 1000))
    assert drawn.max() < SMALL.ids
    often = np.bincount(drawn.astype(np.int64), minlength=SMALL.ids)
    expected = degrees(SMALL, IDS)
    top = expected >= 2 * SMALL.contacts
    assert often[top].mean() / often.mean() == pytest.approx(expected[top].mean() / expected.mean(), rel=0.2)


def test_a_contact_is_the_same_each_time_and_another_with_another_seed() -> None:
    ranks = np.zeros(len(IDS), np.uint64)
    assert (contacts(SMALL, IDS, ranks) == contacts(SMALL, IDS, ranks)).all()
    assert (contacts(SMALL, IDS, ranks) == contacts(replace(SMALL, seed=2), IDS, ranks)).mean() < 0.01


def test_contacts_live_mostly_in_the_same_region() -> None:
    world = replace(SMALL, regions=4, at_home=0.8)
    found = contacts(world, IDS, np.zeros(len(IDS), np.uint64))
    # Of those from anywhere a quarter live there too.
    assert (found % 4 == IDS % 4).mean() == pytest.approx(0.8 + 0.2 / 4, abs=0.01)


def test_where_people_are() -> None:
    times = np.full(len(IDS), 5000.0)
    now = places(SMALL, IDS, times)
    assert (now != OFFLINE).mean() == pytest.approx(SMALL.online, abs=0.01)
    counts = np.bincount(now[now != OFFLINE], minlength=4)
    assert len(counts) == 4
    assert counts.min() / counts.max() > 0.93
    # A moment later nearly all are still there; two sessions later it is chance.
    assert (places(SMALL, IDS, times + 1) == now).mean() > 0.99
    later = places(SMALL, IDS, times + 2 * SMALL.session)
    by_chance = (1 - SMALL.online) ** 2 + SMALL.online**2 / 4
    assert (later == now).mean() == pytest.approx(by_chance, abs=0.02)


def test_people_connect_in_their_own_region() -> None:
    world = replace(SMALL, regions=2)
    now = places(world, IDS, np.zeros(len(IDS)))
    there = now != OFFLINE
    assert (now[there] // 2 == (IDS % 2).astype(np.int64)[there]).all()


def test_connections_begin_as_often_as_is_told() -> None:
    """What NATS has to bear is computed; here it is counted."""
    step = 5.0
    begun = 0
    before = places(SMALL, IDS, np.zeros(len(IDS)))
    for number in range(1, 25):
        now = places(SMALL, IDS, np.full(len(IDS), number * step))
        begun += int(((now != before) & (now != OFFLINE)).sum())
        before = now
    told = scale.cluster_figures(SMALL, Costs())["connections that begin, /s"]
    # One that comes back to the node where it was is not seen in this way.
    seen = told * (1 - SMALL.online / 4)
    assert begun / (24 * step) == pytest.approx(seen, rel=0.05)


def test_frames_are_as_many_as_is_told_and_in_order() -> None:
    world = replace(SMALL, frames_a_day=2000.0, peak=1.0)
    sent = frames(world, 2000.0)
    assert (np.diff(sent.times) >= 0).all()
    rate = world.ids * world.online / world.nodes * world.frames_a_day / 86400
    late = sent.times > 500  # before that, conversations that began earlier are not there
    assert late.sum() / 1500 == pytest.approx(rate, rel=0.05)
    assert len(sent.times) / sent.first.sum() == pytest.approx(world.burst, rel=0.1)


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_what_was_seen_is_known_until_it_moves() -> None:
    memory = Memory(10)
    memory.sent([1, 1, 1, 1, 1], [2, 2, 3, 3, 2])
    assert (memory.misses, memory.hits, memory.stale) == (1, 2, 2)


def test_the_older_half_goes_and_what_is_used_stays() -> None:
    memory = Memory(2)
    memory.sent([1, 2], [1, 1])
    memory.sent([3], [1])  # 1 and 2 are the older half now
    memory.sent([1], [1])  # and 1 is taken over
    assert (memory.misses, memory.hits) == (3, 1)
    memory.sent([4], [1])  # 2 is gone with the older half
    assert len(memory) == 3
    memory.sent([1, 3], [1, 1])
    assert (memory.misses, memory.hits) == (4, 3)
    memory.sent([2], [1])
    assert memory.misses == 5
    assert len(memory) <= 4


def test_it_never_holds_more_than_two_halves() -> None:
    random = np.random.default_rng(1)
    memory = Memory(100)
    for _ in range(50):
        memory.sent(random.integers(0, 1000, 100).tolist(), [1] * 100)
        assert len(memory) <= 200


def test_a_larger_memory_knows_more() -> None:
    world = replace(SMALL, frames_a_day=4000.0)
    sent = frames(world, 600.0)
    small, large = (scale.remembered(world, size, 200.0, 600.0, sent) for size in (50, 20_000))
    assert small.hit_rate < large.hit_rate < 1
    assert small.lookups > large.lookups > 0
    assert small.megabytes < large.megabytes < 5


def test_who_never_moves_is_never_looked_for_in_vain() -> None:
    world = replace(SMALL, session=1e9, online=1.0, frames_a_day=2000.0)
    found = scale.remembered(world, 100_000, 0.0, 300.0, frames(world, 300.0))
    assert found.stale == 0


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same() -> None:
    assert simulate(SMALL, [1000], 100.0, 300.0) == simulate(SMALL, [1000], 100.0, 300.0)
    assert simulate(SMALL, [1000], 100.0, 300.0) != simulate(replace(SMALL, seed=2), [1000], 100.0, 300.0)


def test_it_prints_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.json"
    small = ["--ids", "20000", "--nodes", "4", "--seconds", "300", "--warm", "100", "--remember", "2000"]
    assert scale.main([*small, "--regions", "2", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    written = json.loads(file.read_text())
    assert written["world"]["regions"] == 2
    assert "machine" in written
    (row,) = written["memory"]
    assert row["size"] == 2000
    assert f"{row['hit_rate']:.2%}" in printed
    assert "NATS: subscriptions at each server" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nodes", "1"],
        ["--nodes", "4", "--regions", "3"],
        ["--online", "0"],
        ["--warm", "3000"],
        ["--session", "0"],
        ["--frames-a-day", "1e9"],
    ],
)
def test_what_cannot_be_simulated(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("bench.scale: ")
