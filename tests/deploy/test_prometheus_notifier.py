"""The notifier's dashboard and alerts: well-formed, and every metric and label in them is one that the notifier has."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from peers.notifier.lane import Lane
from peers.notifier.limits import Limits
from peers.notifier.metrics import Metrics
from tests.deploy.promql import Board, labels_of
from tests.deploy.proxies import DEPLOY
from tests.peers.notifier.scripted import ListLedger, ScriptedChannel
from wire.commands import PushKind

CHANNELS = {
    PushKind.FCM: "fcm",
    PushKind.WEB_PUSH: "webpush",
    PushKind.UNIFIED_PUSH: "unifiedpush",
    PushKind.APNS: "apns",
}


def exposed() -> str:
    """Return the metrics of a notifier with all channels."""
    metrics = Metrics(CHANNELS.values())

    async def text() -> str:
        for kind, name in CHANNELS.items():
            Lane(ScriptedChannel(kind, name), Limits(), 1, ListLedger(), metrics)
        return metrics.text().decode()

    return asyncio.run(text())


BOARD = Board("blindrelay-notifier", labels_of(text_string_to_metric_families(exposed())))


def test_the_check_finds_what_it_is_to_find() -> None:
    BOARD.check('rate(blindrelay_notifier_pushes_total{channel=~"fcm|apns", outcome="sent", job="x"}[5m]) > 0')
    for query in (
        "blindrelay_notifier_nothing",
        'blindrelay_notifier_pushes_total{outcome="nothing"}',
        'blindrelay_notifier_pushes_total{channel=~"fcm|nothing"}',
        "sum by (color) (blindrelay_notifier_queue)",
        "vector(1)",
    ):
        with pytest.raises(AssertionError):
            BOARD.check(query)


@pytest.mark.parametrize("rule", BOARD.rules, ids=lambda rule: rule["alert"])
def test_an_alert(rule: dict[str, Any]) -> None:
    BOARD.check_alert(rule, "BlindrelayNotifier[A-Za-z]+")


def test_alerts_have_names_of_their_own() -> None:
    BOARD.check_alerts_have_names_of_their_own()


def test_the_dashboard_can_be_imported_beside_the_relays() -> None:
    relays = json.loads((DEPLOY / "grafana" / "blindrelay.json").read_text())
    assert BOARD.dashboard["uid"] != relays["uid"]
    assert BOARD.dashboard["title"] != relays["title"]
    assert set(BOARD.dashboard) == set(relays)
    BOARD.check_panels_can_be_imported()


def test_panels_do_not_overlap() -> None:
    BOARD.check_panels_do_not_overlap()


def test_variables_are_those_that_are_used() -> None:
    BOARD.check_variables_are_those_that_are_used()


@pytest.mark.parametrize("panel", BOARD.panels, ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    BOARD.check_panel(panel)


def test_every_metric_of_the_notifier_is_on_the_dashboard() -> None:
    assert BOARD.ours - BOARD.shown == set()
