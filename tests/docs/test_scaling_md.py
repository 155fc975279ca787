"""docs/scaling.md: its figures are those of bench/RESULTS.md, its sums are right, and what it names exists."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

import pytest

from bench.scale import Costs, Frames, World, cluster_figures, frames, remembered, traffic_figures
from relay.settings import NAMES
from tests.docs import markdown

SCALING = (markdown.ROOT / "docs" / "scaling.md").read_text()
RESULTS = (markdown.ROOT / "bench" / "RESULTS.md").read_text()

WARM: Final = 1500.0
SECONDS: Final = 2700.0
"""As `python -m bench.scale` has them by default."""


@cache
def sent(world: World) -> Frames:
    """Return what the clients of a node send; it takes seconds to find out."""
    return frames(world, SECONDS)


def test_measured_figures_are_those_of_the_results() -> None:
    rows = [row for row in markdown.rows(SCALING, "what", "cost", "of what", "figure") if row["figure"]]
    assert len(rows) >= 9
    for row in rows:
        name = row["figure"].strip("`")
        (value,) = re.findall(rf"^\| {re.escape(name)} \| \S+ \| ([\d.,]+) \|", RESULTS, re.MULTILINE)
        assert row["cost"].split()[0] == value, name


def test_what_a_client_costs_adds_up() -> None:
    rows = markdown.rows(SCALING, "what", "µs of a core, each second")
    *parts, total = [float(row["µs of a core, each second"].strip("*")) for row in rows]
    assert total == pytest.approx(sum(parts), abs=0.05)
    beat, handshake, told, frame = 28.6, 208, 32.5, 10.8
    assert parts == pytest.approx(
        [beat / 20, handshake / 1800, 20 * 2 * told / 1800, frame * 120 * 3 / 86400], abs=0.006
    )


def test_what_workers_carry_of_frames() -> None:
    (told,) = re.findall(
        r"For h = ([\d.]+) that is ([\d.]+) with two workers, ([\d.]+) with four, ([\d.]+) with eight; "
        r"for h = ([\d.]+) it is ([\d.]+), ([\d.]+), ([\d.]+)\.",
        SCALING,
    )
    for h, *values in (told[:4], told[4:]):
        for count, value in zip((2, 4, 8), values, strict=True):
            assert float(value) == pytest.approx(count / (1 + (1 - 1 / count) * (float(h) - 1)), abs=0.051)


def test_what_two_workers_cost() -> None:
    rows = markdown.rows(SCALING, "256 B", "one process", "two workers, together", "the busier one", "NATS", "h")
    assert len(rows) == 2
    for row in rows:
        alone, both, busier = (
            float(row[name].split()[0]) for name in ("one process", "two workers, together", "the busier one")
        )
        # Half of the frames cross.
        assert float(row["h"]) == pytest.approx(2 * both / alone - 1, abs=0.05)
        assert both / 2 <= busier < both
        assert 1.55 <= alone / busier <= 1.75, "as it is told below"


@pytest.mark.parametrize(
    ("column", "world"),
    [
        ("1,000,000 ids, 4 nodes", World(ids=1_000_000, nodes=4)),
        ("2,000,000, 8 nodes", World(ids=2_000_000, nodes=8)),
        ("10,000,000, 16 nodes", World()),
    ],
)
def test_the_cluster_is_as_it_is_simulated(column: str, world: World) -> None:
    head = ("in the whole cluster", "1,000,000 ids, 4 nodes", "2,000,000, 8 nodes", "10,000,000, 16 nodes")
    told = {row[head[0]]: float(row[column].split()[0].replace(",", "")) for row in markdown.rows(SCALING, *head)}
    found = cluster_figures(world, Costs()) | traffic_figures(world, WARM, SECONDS, sent(world))
    for ours, theirs, within in (
        ("clients online", "clients online", 0),
        ("connections that begin, /s", "connections that begin, /s", 0.5),
        ("memory of each of three NATS servers", "NATS: memory of a server, GB", 0.05),
        ("processor of each, for SUB and UNSUB", "NATS: processor of a server, % of a core", 0.05),
        ("changes of presence told to each node, /s", "presence: changes told to each node, /s", 0.5),
        ("frames that a node gets from others, /s", "frames that arrive from other nodes, /s", 0.5),
        ("a node dies: its clients are back after", "a node dies: seconds until all are back", 0.5),
    ):
        assert told[ours] == pytest.approx(found[theirs], abs=within + 1e-6), ours


def test_what_a_node_remembers_is_as_it_is_simulated() -> None:
    head = ("a node remembers", "hit rate", "lookups /s", "of these for clients who moved /s", "memory")
    rows = markdown.rows(SCALING, *head)
    assert len(rows) == 3
    for row in rows:
        size, rate, lookups, moved, memory = (float(row[name].split()[0].replace(",", "")) for name in head)
        found = remembered(World(), int(size) // 2, WARM, SECONDS, sent(World()))
        assert found.size == size
        assert rate == pytest.approx(100 * found.hit_rate, abs=0.006)
        assert lookups == pytest.approx(found.lookups, abs=0.51)
        assert moved == pytest.approx(found.stale, abs=0.051)
        # What a dictionary takes is another with another Python.
        assert memory == pytest.approx(found.megabytes, rel=0.2)


def test_what_is_assumed_is_what_is_told() -> None:
    costs = Costs()
    assert f"| {costs.subscription_here:,.0f} B |" in SCALING
    assert f"| {costs.subscription_there:.0f} B |" in SCALING
    assert f"{costs.change_here:.0f} µs, {costs.change_there:.0f} µs" in SCALING


def test_settings_that_are_named_exist() -> None:
    flags = set(re.findall(r"`(--[a-z][a-z-]+)", SCALING)) - {"--ulimit", "--regions"}
    assert flags
    assert flags <= set(NAMES.by_flag)
