from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.chat.user import User
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay for all tests of a module."""
    running = RelayProcess(tmp_path_factory.mktemp("relay"))
    yield running
    running.check()


@pytest.fixture
def user(tmp_path: Path) -> Callable[[str], User]:
    """Make people who share a machine."""
    home = tmp_path / "home"
    home.mkdir()
    return lambda name: User(home, name)
