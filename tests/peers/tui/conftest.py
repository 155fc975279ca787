"""A scene for each test, closed at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.tui.scene import Scene

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """To be entered by ``async with scene.session``, in the loop of the test."""
    return Scene(tmp_path)
