"""What OPERATIONS.md says of a cluster, against the code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from relay.backplane.node import REFUSED, Backplane
from relay.metrics import Exposition
from relay.together import _own
from tests.docs import markdown
from tests.relay.cluster import OPTIONS, Medium, MemoryBus
from tests.relay.harness import Lab
from tests.relay.loop import Loop

if TYPE_CHECKING:
    from relay.core import Core

OPERATIONS = (markdown.ROOT / "OPERATIONS.md").read_text()
CLUSTER = OPERATIONS.partition("\n## Cluster\n")[2].partition("\n## ")[0]


def test_every_metric_of_the_parent_is_told() -> None:
    told = {
        markdown.code(row["metric of the parent"]): (row["type"], set(re.findall(r"`(\w+)`", row["labels"])))
        for row in markdown.rows(CLUSTER, "metric of the parent", "type", "labels", "meaning")
    }
    real = {}
    for family in _own({"restarts": [0, 0], "running": 2, "nats_restarts": 0}):
        name = family.name + ("_total" if family.type == "counter" else "")
        real[name] = (family.type, {label for sample in family.samples for label in sample.labels})
    assert told == real
    without = {family.name for family in _own({"restarts": [0, 0], "running": 2, "nats_restarts": None})}
    assert "blindrelay_nats_server_restarts" not in without


def test_every_metric_of_a_cluster_is_told() -> None:
    rows = markdown.rows(CLUSTER, "metric of a cluster", "type", "labels", "meaning")
    told = {
        markdown.code(row["metric of a cluster"]): (row["type"], set(re.findall(r"`(\w+)`", row["labels"])))
        for row in rows
    }
    alone, among = Lab().core, Lab().core
    Backplane(among, OPTIONS, MemoryBus(Medium(Loop()))).begin()
    real = families(among)
    assert told == {name: real[name] for name in real.keys() - families(alone).keys()}
    assert len(rows) == len(told) >= 17


def families(core: Core) -> dict[str, tuple[str, set[str]]]:
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(Exposition(core).plain())
    }


def test_every_reason_is_told() -> None:
    rows = markdown.rows(CLUSTER, "reason", "what it tells you")
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row["reason"])) == sorted(REFUSED)


def test_every_event_of_a_cluster_is_told() -> None:
    logged = set()
    paths = [*(markdown.ROOT / "relay" / f"{name}.py" for name in ("workers", "worker", "nats_server"))]
    for path in (*paths, *(markdown.ROOT / "relay" / "backplane").glob("*.py")):
        calls = re.findall(r'(?:log|get_logger\(\))\.(debug|info|warning|error)\(\s*"(\w+)"', path.read_text())
        logged |= {(event, level) for level, event in calls}
    told = {(markdown.code(row["event"]), row["level"]) for row in markdown.rows(CLUSTER, "event", "level", "fields")}
    # These are told where those of every relay are.
    assert logged - {("stopping", "info"), ("stopped", "info")} == told


def test_what_readyz_says_is_told() -> None:
    node = Backplane(Lab().core, OPTIONS, MemoryBus(Medium(Loop())))
    node.begin()
    node.bus.changed(False)
    [line] = node.core.ready.losses
    assert f"`{line}`" in CLUSTER
