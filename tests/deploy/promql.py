"""A dashboard and alerts of deploy/ against the metrics that a program exposes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import promql_parser
import yaml  # type: ignore[import-untyped]

from tests.deploy.proxies import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Iterable

SCRAPED: Final = {"job", "instance"}
"""Labels that Prometheus adds."""


def labels_of(families: Iterable[Any]) -> dict[str, list[dict[str, str]]]:
    """Return the labels of every sample of metrics, by name; with `up`, which Prometheus adds."""
    found: dict[str, list[dict[str, str]]] = {"up": [{}]}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


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


class Board:
    """A dashboard with its alerts, both by the name `blindrelay…` in deploy/.

    Args:
        exposed: the labels of every sample that the program exposes, by name.
    """

    def __init__(self, name: str, exposed: dict[str, list[dict[str, str]]]) -> None:
        self.exposed = exposed
        self.dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana" / f"{name}.json").read_text())
        self.panels: list[dict[str, Any]] = [panel for panel in self.dashboard["panels"] if panel["type"] != "row"]
        self.rules: list[dict[str, Any]] = [
            rule
            for group in yaml.safe_load((DEPLOY / "alerts" / f"{name}.rules.yml").read_text())["groups"]
            for rule in group["rules"]
        ]

    @property
    def shown(self) -> set[str]:
        """The metrics that the dashboard shows; of a histogram also the count and the sum."""
        queries = [target["expr"] for panel in self.panels for target in panel["targets"]]
        found = {name for query in queries for name, _ in Selectors(query)}
        whole = [name.removesuffix("_bucket") for name in found if name.endswith("_bucket")]
        return found | {name + end for name in whole for end in ("_count", "_sum")}

    @property
    def ours(self) -> set[str]:
        """The metrics that are the program's own."""
        return {name for name in self.exposed if name.startswith("blindrelay_")}

    def check(self, query: str) -> None:
        """Find that all that a query names is there."""
        selectors = Selectors(query)
        assert selectors, f"no metric in {query}"
        for name, matchers in selectors:
            assert name in self.exposed, f"{name} is none of the program's metrics"
            wanted = {label: value.split("|") for label, value in matchers if label not in SCRAPED}
            for label, values in wanted.items():
                # Of a pattern each part has to be there, together with some part of each of the others.
                for value in values:
                    assert any(
                        labels.get(label) == value
                        and all(labels.get(other) in parts for other, parts in wanted.items())
                        for labels in self.exposed[name]
                    ), (name, wanted)
        for labels in re.findall(r"\bby \(([^)]*)\)", query):
            for label in set(labels.split(", ")) - SCRAPED:
                assert any(label in sample for name, _ in selectors for sample in self.exposed[name]), (label, query)

    def check_alert(self, rule: dict[str, Any], names: str) -> None:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(names, rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        self.check(rule["expr"])

    def check_alerts_have_names_of_their_own(self) -> None:
        assert len({rule["alert"] for rule in self.rules}) == len(self.rules) > 0

    def check_panels_can_be_imported(self) -> None:
        kinds = {panel["type"] for panel in self.panels}
        assert kinds <= {each["id"] for each in self.dashboard["__requires"] if each["type"] == "panel"}
        numbers = [panel["id"] for panel in self.dashboard["panels"]]
        assert len(set(numbers)) == len(numbers)

    def check_panels_do_not_overlap(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells

    def check_variables_are_those_that_are_used(self) -> None:
        variables = self.dashboard["templating"]["list"]
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(self.dashboard))) - {"__rate_interval"}
        assert used == {variable["name"] for variable in variables}
        for variable in variables:
            for name in re.findall(r"label_values\((\w+)", variable.get("definition", "")):
                assert name in self.exposed

    def check_panel(self, panel: dict[str, Any]) -> None:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) >= 1
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            self.check(target["expr"])
