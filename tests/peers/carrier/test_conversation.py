"""A conversation through a real relay, from store to store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    running = RelayProcess(tmp_path_factory.mktemp("relay"))
    yield running
    running.check()
