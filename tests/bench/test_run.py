"""The benchmark itself, over real processes, as small as it gets."""

from __future__ import annotations

import sys

import pytest

from bench.context import Context, fleet
from bench.load.worker import GeneratorFailed, Worker
from bench.machine import Cores
from bench.scenarios import throughput
from bench.stats import BASE, OURS
from bench.targets import CannotStart, Rival, Starter


@pytest.fixture
def context() -> Context:
    cores = Cores.share_out()
    return Context(Starter(cores), cores, quick=True, idle=10, rounds=1, slice=0.1, tell=lambda _: None)


def test_a_tiny_load_on_ours_and_the_base(context: Context) -> None:
    with context.starter.relays() as targets, fleet(context) as generators:
        generators.connect(targets, "pairs", 2)
        generators.load_rings(256)
        rate, cost = throughput.measure(context, generators, targets, "tiny", 2)
        assert {name: len(values) for name, values in rate.values.items()} == {OURS: 1, BASE: 1}
        assert rate.ratio(OURS) is not None
        assert cost.ratio(OURS) is not None
        assert 0 <= rate.details[OURS]["generator_idle"] <= 1


def test_crowds_idle_come_back_and_are_told(context: Context) -> None:
    with context.starter.relays() as targets, context.worker() as worker:
        for target in targets:
            assert worker.call("open_crowd", target, 5)["count"] == 5
            assert worker.call("storm", target)["count"] == 5
            assert worker.call("watch_friend", target)["told"] == 5
            worker.call("close_crowd", target)


def test_what_goes_wrong_in_a_generator_is_told() -> None:
    with Worker(Cores.share_out().generators[-1]) as worker, pytest.raises(GeneratorFailed, match="KeyError"):
        worker.call("idle", ["nobody"], 0.1)


def test_a_rival_that_does_not_start_says_so() -> None:
    rival = Rival.parse(f"{sys.executable} -c print('no')", 0)
    with pytest.raises(CannotStart, match="rival"), Starter(Cores.share_out(), [rival]).relays():
        pass
