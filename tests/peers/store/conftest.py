from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.store.stores import new_store

if TYPE_CHECKING:
    import sqlite3


@pytest.fixture
def db() -> sqlite3.Connection:
    """A store in memory."""
    return new_store()
