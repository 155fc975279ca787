"""Counters and reasons."""

import re

from relay.counters import Counters
from relay.histogram import Histogram
from relay.reasons import Ending, Refusal


def test_every_reason_is_counted_from_the_start() -> None:
    counters = Counters()
    assert counters.refusals == dict.fromkeys(Refusal, 0)
    assert counters.endings == dict.fromkeys(Ending, 0)


def test_everything_starts_at_nothing() -> None:
    counters = Counters()
    for name in Counters.__slots__:
        value = getattr(counters, name)
        if isinstance(value, Histogram):
            assert (value.observed, value.total) == (0, 0)
        else:
            assert value == 0 or not any(value.values())


def test_two_relays_do_not_count_together() -> None:
    one, two = Counters(), Counters()
    one.refusals[Refusal.OFFLINE] += 1
    assert two.refusals[Refusal.OFFLINE] == 0


def test_reasons_are_labels() -> None:
    for reason in (*Refusal, *Ending):
        assert re.fullmatch(r"[a-z_]+", reason)
        assert reason == reason.name.lower()
