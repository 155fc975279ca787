"""What OPERATIONS.md says of a cluster, against the code."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from relay.backplane.node import REFUSED, Backplane
from relay.control import RATES
from relay.limits import Limits
from relay.metrics import Exposition
from relay.together import _own
from tests.docs import markdown
from tests.relay.cluster import OPTIONS, Medium, MemoryBus
from tests.relay.harness import Lab
from tests.relay.loop import Loop

if TYPE_CHECKING:
    from relay.core import Core
    from relay.guard import Buckets

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


def test_how_limits_count_is_told_of_all() -> None:
    rows = markdown.rows(CLUSTER, "limits", "counted")
    told = [re.findall(r"`(\w+)`", row["limits"]) for row in rows]
    names = [name for row in told for name in row]
    assert len(names) == len(set(names))
    fields = {field.name for field in dataclasses.fields(Limits)}
    rates = {name.removesuffix("_per_second") for name in fields if name.endswith("_per_second")}
    assert rates <= set(names) <= rates | fields
    core = Lab().core
    node = Backplane(core, OPTIONS, MemoryBus(Medium(Loop())))
    together = {name for name in rates for buckets in node.shares._rates if _is(name, buckets, core)}
    assert together == set(told[0]) - {"connections_per_address"}
    assert {*told[1], *told[2], *told[3]} == set(RATES)


def _is(name: str, buckets: Buckets, core: Core) -> bool:
    """Tell whether these are the buckets of a rate: whether they change with it, and no others do."""
    before = (buckets._rate, buckets._burst)
    rate: dict[str, Any] = {f"{name}_per_second": 123.0, f"{name}_burst": 4567}
    fields = {field.name for field in dataclasses.fields(Limits)}
    core.change_limits(dataclasses.replace(Limits(), **{key: value for key, value in rate.items() if key in fields}))
    changed = (buckets._rate, buckets._burst) == (123.0, 4567.0)
    core.change_limits(Limits())
    assert (buckets._rate, buckets._burst) == before
    return changed
