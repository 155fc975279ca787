"""Stores for the tests that hold for both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.mailbox import lab
from tests.peers.mailbox.nats import Nats

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """One server for the module's tests, each of which has streams of its own."""
    server = Nats(tmp_path_factory.mktemp("nats"))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "jetstream"])
def both_stores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lab.Box has for a store: the test runs once with each."""
    if request.param == "jetstream":
        server: Nats = request.getfixturevalue("nats")
        monkeypatch.setattr(lab.Box, "open_store", server.open_box)
