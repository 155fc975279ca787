from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.chat.backups import full_profile
from tests.peers.chat.profiles import environment
from tests.peers.chat.user import User

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peers.profile import Profile


@pytest.fixture
def user(tmp_path: Path) -> Callable[[str], User]:
    """Make people who share a machine."""
    home = tmp_path / "home"
    home.mkdir()
    return lambda name: User(home, name)


@pytest.fixture
def old(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody whose profile goes out."""
    return environment(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine to which it comes."""
    return environment(tmp_path / "new")


@pytest.fixture
def profile(old: dict[str, str]) -> Profile:
    """A profile with people, messages and files."""
    return full_profile(old)
