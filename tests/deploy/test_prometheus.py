"""The dashboard and the alerts: well-formed, and every metric and label that they ask for is one that the relay has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.backplane.node import Backplane
from relay.metrics import Exposition
from relay.reasons import HANDSHAKE_ENDINGS, Ending
from relay.together import _own
from tests.deploy.promql import Board, labels_of
from tests.relay.cluster import OPTIONS, Medium, MemoryBus
from tests.relay.harness import Lab
from tests.relay.loop import Loop

if TYPE_CHECKING:
    from relay.core import Core

PARENTS = [*_own({"restarts": [0, 0], "running": 2, "nats_restarts": 0})]
"""With --workers; those of the workers have a further label, which no query names."""


def node() -> Core:
    """Return a relay that is one of a cluster."""
    core = Lab().core
    Backplane(core, OPTIONS, MemoryBus(Medium(Loop()))).begin()
    return core


BOARD = Board("blindrelay", labels_of([*text_string_to_metric_families(Exposition(node()).plain()), *PARENTS]))


def test_the_check_finds_what_it_is_to_find() -> None:
    BOARD.check('rate(blindrelay_refusals_total{reason="offline", job="x"}[5m]) > 0')
    for query in (
        "blindrelay_nothing",
        'blindrelay_refusals_total{reason="nothing"}',
        'sum by (color) (rate(blindrelay_refusals_total{reason="offline"}[5m]))',
        "1 - (2 * max(rate(blindrelay_refusal_total[5m])))",
        "vector(1)",
    ):
        with pytest.raises(AssertionError):
            BOARD.check(query)
    with pytest.raises(ValueError, match=r"vector"):
        BOARD.check("rate(blindrelay_refusals_total)")


# --- Alerts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", BOARD.rules, ids=lambda rule: rule["alert"])
def test_an_alert(rule: dict[str, Any]) -> None:
    BOARD.check_alert(rule, "Blindrelay[A-Za-z]+")


def test_alerts_have_names_of_their_own() -> None:
    BOARD.check_alerts_have_names_of_their_own()


def test_every_way_to_fail_a_handshake_has_an_alert() -> None:
    told = {outcome for rule in BOARD.rules for outcome in re.findall(r'outcome="(\w+)"', rule["expr"])}
    # What the operator's own rules keep out is no fault of anything.
    rules = {Ending.DENIED, Ending.DECOMMISSIONED, Ending.CALLOUT_REFUSED}
    assert told == {str(ending) for ending in HANDSHAKE_ENDINGS - rules}


# --- Dashboard -------------------------------------------------------------------------------------------------------


def test_the_dashboard_can_be_imported() -> None:
    assert BOARD.dashboard["title"] == "blindrelay"
    assert BOARD.dashboard["schemaVersion"] >= 36
    assert "id" not in BOARD.dashboard, "an id would belong to one Grafana"
    assert {"uid", "panels", "templating", "time", "__inputs", "__requires"} <= set(BOARD.dashboard)
    BOARD.check_panels_can_be_imported()


def test_panels_do_not_overlap() -> None:
    BOARD.check_panels_do_not_overlap()


def test_variables_are_those_that_are_used() -> None:
    BOARD.check_variables_are_those_that_are_used()


@pytest.mark.parametrize("panel", BOARD.panels, ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    BOARD.check_panel(panel)


def test_every_metric_of_the_relay_is_on_the_dashboard() -> None:
    # What most relays have not is for alerts, and for whoever looks.
    parents = {sample.name for family in PARENTS for sample in family.samples}
    missing = BOARD.ours - BOARD.shown - parents
    # Conditions are what "ready" is made of; the number of remembered keys matters to nobody until it is full.
    assert missing == {"blindrelay_build_info", "blindrelay_condition", "blindrelay_remembered_keys"}
