"""The mailbox's own in deploy/; test_service_files.py has what it shares with other services."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]

from peers.mailbox.arguments import parse
from peers.mailbox.commands import COMMANDS
from peers.mailbox.settings_limits import LimitSettings
from tests.deploy.proxies import DEPLOY
from tests.deploy.services import MAILBOX

RELAY: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["relay"]


@pytest.mark.parametrize("name", ["blindrelay-mailbox.service", "compose.mailbox.yaml"])
def test_settings_that_are_named_exist(name: str) -> None:
    found = set(re.findall(r"\bBLINDRELAY_MAILBOX_[A-Z_]+", (DEPLOY / name).read_text()))
    assert found - {"BLINDRELAY_MAILBOX_NAME"} <= MAILBOX.variables
    assert len(found) > 1


def test_the_unit_names_commands_that_exist_and_lets_all_connections_in() -> None:
    assert int(MAILBOX.directive("LimitNOFILE")) >= 2 * LimitSettings().connections
    for command in re.findall(r"bin/blindrelay-mailbox (\w+(?: new)?)", MAILBOX.unit):
        assert parse(command.split()).command in COMMANDS


def test_the_container_believes_the_proxies_that_the_relay_believes() -> None:
    proxies = MAILBOX.container["environment"]["BLINDRELAY_MAILBOX_TRUSTED_PROXIES"]
    assert proxies == RELAY["environment"]["RELAY_TRUSTED_PROXIES"]
