"""The notifier's dashboard and alerts: well-formed, and every metric and label in them is one that the notifier has."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from peers.notifier.lane import Lane
from peers.notifier.limits import Limits
from peers.notifier.metrics import Metrics
from tests.deploy.test_prometheus import ROOT, SCRAPED, Selectors
from tests.peers.notifier.scripted import ListLedger, ScriptedChannel
from wire.commands import PushKind

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/blindrelay-notifier.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/alerts/blindrelay-notifier.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
CHANNELS = {
    PushKind.FCM: "fcm",
    PushKind.WEB_PUSH: "webpush",
    PushKind.UNIFIED_PUSH: "unifiedpush",
    PushKind.APNS: "apns",
}


def exposed() -> dict[str, list[dict[str, str]]]:
    """Return the labels of every sample of a notifier with all channels, by name."""
    metrics = Metrics(CHANNELS.values())

    async def text() -> str:
        for kind, name in CHANNELS.items():
            Lane(ScriptedChannel(kind, name), Limits(), 1, ListLedger(), metrics)
        return metrics.text().decode()

    found: dict[str, list[dict[str, str]]] = {"up": [{}]}
    for family in text_string_to_metric_families(asyncio.run(text())):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


EXPOSED = exposed()


def check(query: str) -> None:
    selectors = Selectors(query)
    assert selectors, f"no metric in {query}"
    for name, matchers in selectors:
        assert name in EXPOSED, f"{name} is no metric of the notifier"
        wanted = [(label, value) for label, value in matchers if label not in SCRAPED]
        for label, value in wanted:
            # Of a pattern each part has to be there.
            for each in value.split("|"):
                assert any(labels.get(label) == each for labels in EXPOSED[name]), (name, label, each)
    for labels in re.findall(r"\bby \(([^)]*)\)", query):
        for label in set(labels.split(", ")) - SCRAPED:
            assert any(label in sample for name, _ in selectors for sample in EXPOSED[name]), (label, query)


def test_the_check_finds_what_it_is_to_find() -> None:
    check('rate(blindrelay_notifier_pushes_total{channel=~"fcm|apns", outcome="sent", job="x"}[5m]) > 0')
    for query in (
        "blindrelay_notifier_nothing",
        'blindrelay_notifier_pushes_total{outcome="nothing"}',
        'blindrelay_notifier_pushes_total{channel=~"fcm|nothing"}',
        "sum by (color) (blindrelay_notifier_queue)",
        "vector(1)",
    ):
        with pytest.raises(AssertionError):
            check(query)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch("BlindrelayNotifier[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description"}
    check(rule["expr"])


def test_alerts_have_names_of_their_own() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 0


def test_the_dashboard_can_be_imported_beside_the_relays() -> None:
    relays = json.loads((ROOT / "deploy/grafana/blindrelay.json").read_text())
    assert DASHBOARD["uid"] != relays["uid"]
    assert DASHBOARD["title"] != relays["title"]
    assert set(DASHBOARD) == set(relays)
    assert {panel["type"] for panel in PANELS} <= {each["id"] for each in DASHBOARD["__requires"]}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_variables_are_those_that_are_used() -> None:
    variables = DASHBOARD["templating"]["list"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval"}
    assert used == {variable["name"] for variable in variables}
    for variable in variables:
        for name in re.findall(r"label_values\((\w+)", variable.get("definition", "")):
            assert name in EXPOSED


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) >= 1
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        check(target["expr"])


def test_every_metric_of_the_notifier_is_on_the_dashboard() -> None:
    shown = {name for panel in PANELS for target in panel["targets"] for name, _ in Selectors(target["expr"])}
    shown |= {
        name.removesuffix("_bucket") + end for name in shown if name.endswith("_bucket") for end in ("_count", "_sum")
    }
    assert {name for name in EXPOSED if name.startswith("blindrelay_")} - shown == set()
