from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.carrier.conversation import Person
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay for all tests of a module."""
    running = RelayProcess(tmp_path_factory.mktemp("relay"))
    yield running
    running.check()


@pytest.fixture
def alice(tmp_path: Path) -> Person:
    return Person(tmp_path / "alice", "Alice")


@pytest.fixture
def bob(tmp_path: Path) -> Person:
    return Person(tmp_path / "bob", "Bob")
