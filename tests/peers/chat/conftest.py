from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.chat.user import User

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def user(tmp_path: Path) -> Callable[[str], User]:
    """Make people who share a machine."""
    home = tmp_path / "home"
    home.mkdir()
    return lambda name: User(home, name)
