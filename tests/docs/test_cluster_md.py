"""What OPERATIONS.md says of a cluster, against the code."""

from __future__ import annotations

import re

from relay.together import _own
from tests.docs import markdown

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


def test_every_event_of_workers_is_told() -> None:
    logged = set()
    for name in ("workers", "worker", "nats_server"):
        text = (markdown.ROOT / "relay" / f"{name}.py").read_text()
        calls = re.findall(r'(?:log|get_logger\(\))\.(info|warning|error)\(\s*"(\w+)"', text)
        logged |= {(event, level) for level, event in calls}
    told = {(markdown.code(row["event"]), row["level"]) for row in markdown.rows(CLUSTER, "event", "level", "fields")}
    # These are told where those of every relay are.
    assert logged - {("stopping", "info"), ("stopped", "info")} == told
