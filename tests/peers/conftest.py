from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.carrier import conversation

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _close_stores() -> Iterator[None]:
    """Close the stores of the people of a test. Each holds some twenty files open: a run of all tests had more than a
    thousand, from where on select(2) fails, and with it whatever drives a terminal."""
    yield
    conversation.close_stores()
