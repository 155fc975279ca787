from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_relay(tmp_path: Path) -> Iterator[Callable[..., RelayProcess]]:
    """Start relays, all with the same keys; whichever runs at the end of the test must stop as it should."""
    started: list[RelayProcess] = []

    def start(**how: Any) -> RelayProcess:
        started.append(RelayProcess(tmp_path, **how))
        return started[-1]

    yield start
    try:
        for relay in started:
            relay.check()
    finally:
        for relay in started:
            relay.process.kill()
            relay.process.wait()
