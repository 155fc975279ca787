from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.carrier import conversation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _close_stores() -> Iterator[None]:
    """Close the stores of the people of a test. Each holds some twenty files open: a run of all tests had more than a
    thousand, from where on select(2) fails, and with it whatever drives a terminal."""
    yield
    conversation.close_stores()


@pytest.fixture
def alice(tmp_path: Path) -> conversation.Person:
    return conversation.Person(tmp_path / "alice", "Alice")


@pytest.fixture
def bob(tmp_path: Path) -> conversation.Person:
    return conversation.Person(tmp_path / "bob", "Bob")
