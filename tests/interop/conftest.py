from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with the default limits, for all tests of a module."""
    running = RelayProcess(tmp_path_factory.mktemp("relay"))
    yield running
    running.check()
