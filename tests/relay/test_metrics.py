"""`/metrics`: every counter is told, every label is there from the start, and nobody is named."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relay.census import Census
from relay.counters import DEPTH_BOUNDS, LAG_BOUNDS, Counters
from relay.metrics import COUNTERS, Exposition
from relay.ready import Condition
from relay.reasons import HANDSHAKE_ENDINGS, Ending, Held, Refusal
from tests.relay.harness import Lab
from wire import commands as c

EMPTY = Lab()
ELSEWHERE = {"held", "admitted", "endings", "refusals", "loop_lag", "queue_depth"}
"""Counters that have labels or are histograms."""


def samples(lab: Lab) -> dict[str, float]:
    """Return every sample as of now, by its name with its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(Exposition(lab.core).plain()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def changed(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    # Figures of the process change by themselves.
    return {
        name: after[name] - before[name]
        for name in after
        if after[name] != before[name] and not name.startswith("process_")
    }


def test_every_counter_has_a_metric() -> None:
    assert set(COUNTERS) | ELSEWHERE == set(Counters.__slots__)


def test_every_label_is_there_from_the_start() -> None:
    found = samples(Lab())
    for refusal in Refusal:
        assert found[f"blindrelay_refusals_total{{reason={refusal}}}"] == 0
    for ending in Ending:
        assert found[f"blindrelay_endings_total{{reason={ending}}}"] == 0
    for outcome in ("admitted", *HANDSHAKE_ENDINGS):
        assert found[f"blindrelay_handshakes_total{{outcome={outcome}}}"] == 0
    for held in Held:
        assert found[f"blindrelay_reads_held_total{{reason={held}}}"] == 0
    for condition in Condition:
        assert f"blindrelay_condition{{condition={condition}}}" in found
    for kind in ("handshake", "command"):
        assert found[f"blindrelay_replays_refused_total{{kind={kind}}}"] == 0


def test_each_plain_counter_shows_in_its_metric() -> None:
    lab = Lab()
    for number, field in enumerate(COUNTERS, 1):
        setattr(lab.core.counters, field, number)
    found = samples(lab)
    for number, (name, _) in enumerate(COUNTERS.values(), 1):
        assert found[f"blindrelay_{name}_total"] == number


def test_reasons_and_outcomes() -> None:
    lab = Lab()
    counters = lab.core.counters
    for number, refusal in enumerate(Refusal, 1):
        counters.refusals[refusal] = number
    for number, ending in enumerate(Ending, 100):
        counters.endings[ending] = number
    counters.admitted = 7
    found = samples(lab)
    for refusal, count in counters.refusals.items():
        assert found[f"blindrelay_refusals_total{{reason={refusal}}}"] == count
    for ending, count in counters.endings.items():
        assert found[f"blindrelay_endings_total{{reason={ending}}}"] == count
        if ending in HANDSHAKE_ENDINGS:
            assert found[f"blindrelay_handshakes_total{{outcome={ending}}}"] == count
    assert found["blindrelay_handshakes_total{outcome=admitted}"] == 7
    assert found["blindrelay_replays_refused_total{kind=command}"] == counters.refusals[Refusal.REPLAYED]
    assert found["blindrelay_replays_refused_total{kind=handshake}"] == counters.endings[Ending.REPLAYED_HANDSHAKE]
    assert found["blindrelay_ghosts_evicted_total{cause=silent}"] == counters.endings[Ending.SILENT]
    assert found["blindrelay_ghosts_evicted_total{cause=replaced}"] == counters.endings[Ending.REPLACED]


def test_a_conversation_shows() -> None:
    lab = Lab()
    before = samples(lab)
    alice, bob = lab.connect(1, 2)
    alice.say(c.Subscribe((bob.public.x_pub, bytes([9]) * 32)))
    alice.say(c.Introduce(bob.id, "Alice"))
    alice.send(bob)
    alice.send(b"nobody..")
    lab.run()
    difference = changed(before, samples(lab))
    assert difference["blindrelay_sessions"] == difference["blindrelay_connections"] == 2
    assert difference["blindrelay_handshakes_total{outcome=admitted}"] == 2
    assert difference["blindrelay_commands_total"] == 2
    assert difference["blindrelay_introductions_total"] == 1
    assert difference["blindrelay_presence_told_total"] == 1
    assert difference["blindrelay_watched_keys"] == difference["blindrelay_subscriptions"] == 2
    assert difference["blindrelay_refusals_total{reason=offline}"] == 1
    # Two handshakes, two commands, two frames for peers; each answered by two, then one of presence, one introduction,
    # one delivered and one refused.
    assert difference["blindrelay_frames_received_total"] == 6
    assert difference["blindrelay_frames_sent_total"] == 8
    assert difference["blindrelay_received_bytes_total"] == lab.core.counters.bytes_in
    assert not [name for name in difference if "endings" in name]


def test_queues_show_while_they_last() -> None:
    lab = Lab()
    alice, bob = lab.connect(1, 2)
    bob.stall(0)
    alice.send(bob, 50_000)
    lab.run()
    before = samples(lab)
    assert before["blindrelay_stalled_sessions"] == 1
    assert before["blindrelay_queued_bytes"] >= 50_000
    lab.tick()
    difference = changed(before, samples(lab))
    assert difference["blindrelay_queue_depth_bytes_count"] == 1
    assert difference["blindrelay_queue_depth_bytes_sum"] == pytest.approx(50_000, abs=20)
    assert "blindrelay_queue_depth_bytes_bucket{le=16384.0}" not in difference
    assert difference["blindrelay_queue_depth_bytes_bucket{le=65536.0}"] == 1
    bob.resume()
    lab.run()
    lab.tick()
    after = samples(lab)
    assert after["blindrelay_stalled_sessions"] == after["blindrelay_queued_bytes"] == 0
    assert after["blindrelay_queue_depth_bytes_count"] == 1


def test_readiness_shows() -> None:
    lab = Lab()
    assert samples(lab)["blindrelay_ready"] == 0
    lab.core.ready.met(Condition.STARTED)
    assert samples(lab)["blindrelay_ready"] == 1
    lab.core.ready.lost(Condition.NOT_DRAINING, "because")
    found = samples(lab)
    assert found["blindrelay_ready"] == found["blindrelay_condition{condition=not_draining}"] == 0
    assert found["blindrelay_condition{condition=started}"] == 1


def test_histograms_have_their_bounds() -> None:
    found = samples(Lab())
    for name, bounds in (("loop_lag_seconds", LAG_BOUNDS), ("queue_depth_bytes", DEPTH_BOUNDS)):
        told = [key for key in found if key.startswith(f"blindrelay_{name}_bucket")]
        assert told == [f"blindrelay_{name}_bucket{{le={float(bound)}}}" for bound in bounds] + [
            f"blindrelay_{name}_bucket{{le=+Inf}}"
        ]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text; version=x.y", "text/plain"),
        ("application/openmetrics-text; version=1.0.0; escaping=nonsense", ""),
    ],
)
def test_the_form_that_is_asked_for(accept: str, kind: str) -> None:
    text, content_type = Exposition(Lab().core).text(accept)
    assert content_type.startswith(kind)
    assert text.endswith(b"# EOF\n") is content_type.startswith("application/openmetrics-text")


@given(
    st.lists(
        st.sampled_from(
            (
                *("application/openmetrics-text", "text/plain", ";", ",", "=", " ", "version=", "escaping="),
                *("1.0.0", "0.0.1", "2", ".", "x", "underscores", "dots", "values", "allow-utf-8", "\xe9"),
            )
        ),
        max_size=10,
    )
)
@settings(deadline=None)
def test_any_accept_header_gets_a_text_and_a_type_for_one_line(parts: list[str]) -> None:
    text, content_type = Exposition(EMPTY.core).text("".join(parts))
    assert b"blindrelay_build_info" in text
    assert content_type.isascii()
    assert content_type.isprintable()


def test_a_text_is_kept_for_a_second_and_few_are_kept() -> None:
    lab = Lab()
    exposition = Exposition(lab.core)
    first, _ = exposition.text("")
    lab.core.counters.wakes = 1
    assert exposition.text("")[0] is first
    lab.advance(1.1)
    assert b"blindrelay_wakes_total 1.0" in exposition.text("")[0]
    for number in range(100):
        exposition.text(f"application/openmetrics-text; version=1.0.{number}")
    assert len(exposition._kept) <= 4


def test_nobody_is_named() -> None:
    lab = Lab()
    alice, bob = lab.connect(1, 2)
    alice.say(c.Subscribe((bob.public.x_pub,)))
    alice.send(bob)
    lab.run()
    text = Exposition(lab.core).plain()
    for peer in (alice, bob):
        assert peer.id.hex() not in text
    assert "198.51.100.7" not in text
    names = set(re.findall(r'(\w+)="', text))
    assert names == {"version", "protocol", "python", "reason", "outcome", "kind", "cause", "condition", "le"}


def test_looking_changes_nothing() -> None:
    lab = Lab()
    lab.connect(1)
    before = samples(lab)
    Census(lab.core).take(lambda _: None)
    lab.run()
    assert changed(before, samples(lab)) == {}
