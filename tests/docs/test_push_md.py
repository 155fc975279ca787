"""docs/push.md against the notifier: its settings, metrics, events and commands, and the relay's settings in it."""

from __future__ import annotations

import ast
import re
import shlex

import pytest
from prometheus_client.parser import text_string_to_metric_families

from peers.notifier.arguments import parse, settings_table
from peers.notifier.limits import Limits
from peers.notifier.metrics import REGISTRATIONS, SKIPPED, WAKES, Metrics
from relay.settings import NAMES
from tests.docs import markdown

PUSH = (markdown.ROOT / "docs" / "push.md").read_text()
SOURCES = [
    *(markdown.ROOT / "peers" / "notifier").glob("*.py"),
    markdown.ROOT / "peers" / "service" / "relay_session.py",
]


def test_the_table_of_settings_is_current() -> None:
    assert settings_table() in PUSH, "renew it: .venv/bin/python -m peers.notifier settings"


def test_limits_that_are_quoted_are_the_defaults() -> None:
    prose = PUSH.partition("## Settings of the notifier")[0]
    quoted = re.findall(r"([\d,]+)( s| minutes| days| a minute for one device|) \(`(\w+)`\)", prose)
    assert len(quoted) >= 6
    for figure, unit, name in quoted:
        assert float(figure.replace(",", "")) * (60 if unit == " minutes" else 1) == getattr(Limits(), name), name


def test_every_metric_is_told() -> None:
    told = {
        markdown.code(row["notifier metric"]): (row["type"], set(re.findall(r"`(\w+)`", row["labels"])), row["meaning"])
        for row in markdown.rows(PUSH, "notifier metric", "type", "labels", "meaning")
    }
    metrics = Metrics(["fcm", "webpush"])
    real = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        # Gauges of lanes are there once there are lanes.
        real[name] = (family.type, labels)
    assert {name: what[:2] for name, what in told.items() if real.get(name, ("", set()))[1]} == {
        name: what for name, what in real.items() if what[1]
    }
    assert set(told) == set(real)
    for name, values in (("wakes", WAKES), ("skipped", SKIPPED), ("registration_events", REGISTRATIONS)):
        assert set(re.findall(r"`(\w+)`", told[f"blindrelay_notifier_{name}_total"][2])) == set(values)


def events() -> set[str]:
    """Return the events that the notifier's code logs."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("debug", "info", "warning", "error", "critical")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def test_every_event_is_told() -> None:
    rows = markdown.rows(PUSH, "notifier event", "level", "what it means")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row["notifier event"])} == events()


def commands() -> list[list[str]]:
    lines = [line for block in markdown.blocks(PUSH) if block.language == "sh" for line in block.lines]
    found = [shlex.split(line, comments=True) for line in lines]
    found += [shlex.split(span) for span in re.findall(r"`(blindrelay-notifier \w[^`…]*(?:R0…[^`]*)?)`", PUSH)]
    return [words[1:] for words in found if words[:1] == ["blindrelay-notifier"]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_that_are_told_exist(words: list[str]) -> None:
    parse(words)


def test_some_commands_are_told() -> None:
    assert {" ".join(words[:2]) for words in commands()} >= {"registry count", "registry forget", "registry test"}


def test_the_relays_settings_that_are_named_exist() -> None:
    assert set(re.findall(r"\bRELAY_\w+", PUSH)) <= set(NAMES.by_variable)
    assert {"RELAY_NOTIFIER_ID", "RELAY_PUSH_KINDS", "RELAY_PUSH_VAPID_KEY"} <= set(re.findall(r"\bRELAY_\w+", PUSH))
