"""The dashboard and the alerts: well-formed, and every metric and label that they ask for is one that the relay has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from relay.backplane.node import Backplane
from relay.metrics import Exposition
from relay.reasons import HANDSHAKE_ENDINGS, Ending
from relay.together import _own
from tests.relay.cluster import OPTIONS, Medium, MemoryBus
from tests.relay.harness import Lab
from tests.relay.loop import Loop

if TYPE_CHECKING:
    from relay.core import Core

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/blindrelay.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/alerts/blindrelay.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""


PARENTS = [*_own({"restarts": [0, 0], "running": 2, "nats_restarts": 0})]
"""With --workers; those of the workers have a further label, which no query names."""


def node() -> Core:
    """Return a relay that is one of a cluster."""
    core = Lab().core
    Backplane(core, OPTIONS, MemoryBus(Medium(Loop()))).begin()
    return core


def exposed() -> dict[str, list[dict[str, str]]]:
    """Return the labels of every sample of a new relay in a cluster, by name."""
    found: dict[str, list[dict[str, str]]] = {"up": [{}]}
    for family in [*text_string_to_metric_families(Exposition(node()).plain()), *PARENTS]:
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


EXPOSED = exposed()


class Selectors(list[tuple[str, list[tuple[str, str]]]]):
    """The selectors of a query: the metric and its label matchers."""

    def __init__(self, query: str) -> None:
        super().__init__()
        # What Grafana puts in: an interval, and values of its variables.
        self._walk(promql_parser.parse(query.replace("$__rate_interval", "5m")))

    def _walk(self, node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name is not None, "a selector without a metric"
            matchers = [(each.name, each.value) for each in node.matchers.matchers]
            self.append((node.name, matchers))
            return
        if isinstance(node, promql_parser.MatrixSelector):
            self._walk(node.vector_selector)
        for name in ("lhs", "rhs", "expr"):
            if hasattr(node, name):
                self._walk(getattr(node, name))
        for argument in getattr(node, "args", []):
            self._walk(argument)


def check(query: str) -> None:
    selectors = Selectors(query)
    assert selectors, f"no metric in {query}"
    for name, matchers in selectors:
        assert name in EXPOSED, f"{name} is no metric of the relay"
        wanted = [(label, value) for label, value in matchers if label not in SCRAPED]
        assert any(all(labels.get(label) == value for label, value in wanted) for labels in EXPOSED[name]), (
            name,
            wanted,
        )
    for labels in re.findall(r"\bby \(([^)]*)\)", query):
        for label in set(labels.split(", ")) - SCRAPED:
            assert any(label in sample for name, _ in selectors for sample in EXPOSED[name]), (label, query)


def test_the_check_finds_what_it_is_to_find() -> None:
    check('rate(blindrelay_refusals_total{reason="offline", job="x"}[5m]) > 0')
    for query in (
        "blindrelay_nothing",
        'blindrelay_refusals_total{reason="nothing"}',
        'sum by (color) (rate(blindrelay_refusals_total{reason="offline"}[5m]))',
        "1 - (2 * max(rate(blindrelay_refusal_total[5m])))",
        "vector(1)",
    ):
        with pytest.raises(AssertionError):
            check(query)
    with pytest.raises(ValueError, match=r"vector"):
        check("rate(blindrelay_refusals_total)")


# --- Alerts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch("Blindrelay[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description"}
    check(rule["expr"])


def test_alerts_have_names_of_their_own() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_every_way_to_fail_a_handshake_has_an_alert() -> None:
    told = {outcome for rule in RULES for outcome in re.findall(r'outcome="(\w+)"', rule["expr"])}
    # What the operator's own rules keep out is no fault of anything.
    rules = {Ending.DENIED, Ending.DECOMMISSIONED, Ending.CALLOUT_REFUSED}
    assert told == {str(ending) for ending in HANDSHAKE_ENDINGS - rules}


# --- Dashboard -------------------------------------------------------------------------------------------------------


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["title"] == "blindrelay"
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD, "an id would belong to one Grafana"
    assert {"uid", "panels", "templating", "time", "__inputs", "__requires"} <= set(DASHBOARD)
    kinds = {panel["type"] for panel in PANELS}
    assert kinds <= {each["id"] for each in DASHBOARD["__requires"] if each["type"] == "panel"}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_variables_are_those_that_are_used() -> None:
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"}
    assert used == defined
    for variable in DASHBOARD["templating"]["list"]:
        for name in re.findall(r"label_values\((\w+)", variable.get("definition", "")):
            assert name in EXPOSED


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) >= 1
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        check(target["expr"])


def test_every_metric_of_the_relay_is_on_the_dashboard() -> None:
    shown = {name for panel in PANELS for target in panel["targets"] for name, _ in Selectors(target["expr"])}
    shown |= {
        name.removesuffix("_bucket") + end for name in shown if name.endswith("_bucket") for end in ("_count", "_sum")
    }
    # What most relays have not is for alerts, and for whoever looks.
    parents = {sample.name for family in PARENTS for sample in family.samples}
    missing = {name for name in EXPOSED if name.startswith("blindrelay_")} - shown - parents
    # Conditions are what "ready" is made of; the number of remembered keys matters to nobody until it is full.
    assert missing == {"blindrelay_build_info", "blindrelay_condition", "blindrelay_remembered_keys"}
