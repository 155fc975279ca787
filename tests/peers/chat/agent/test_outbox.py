"""Out of where an agent may send files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peers.chat.agent.desk import Refused
from peers.chat.agent.files import Outbox
from peers.profile import ProfileError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory to send from, beside one that is not."""
    directory = tmp_path / "out"
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "deep" / "er" / "c.txt").write_text("c")
    (directory / "a.txt").write_text("a")
    (directory / ".env").write_text("token")
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("token")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "out-of-it").mkdir()
    (tmp_path / "out-of-it" / "x").write_text("x")
    return directory


@pytest.mark.parametrize("name", ["a.txt", "./a.txt", "deep/er/c.txt", "deep/../a.txt"])
def test_allowed(out: Path, name: str) -> None:
    outbox = Outbox([out])
    assert outbox.find(name) == (out / name).resolve()
    assert outbox.find(str(out / name)) == (out / name).resolve()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "deep",
        "b.txt",
        ".env",
        ".git/config",
        "../secret",
        "deep/../../secret",
        "~/.ssh/id_ed25519",
        "a\0b",
        "a.txt/x",
        "../out-of-it/x",
        "/etc/passwd",
        "/proc/self/environ",
        "x" * 5000,
        "a\ud800",
    ],
)
def test_not_allowed(out: Path, name: str) -> None:
    with pytest.raises(Refused, match=r"files may be sent from|name a file in"):
        Outbox([out]).find(name)
    with pytest.raises(Refused):
        Outbox([out]).find(str(out / name))


def test_links_count_as_where_they_lead(out: Path, tmp_path: Path) -> None:
    (out / "inner").symlink_to(out / "a.txt")
    (out / "outer").symlink_to(tmp_path / "secret")
    (out / "hidden").symlink_to(out / ".env")
    (out / "up").symlink_to(tmp_path)
    (out / "loop").symlink_to(out / "loop")
    outbox = Outbox([out])
    assert outbox.find("inner") == out / "a.txt"
    for name in ("outer", "hidden", "up/secret", "loop"):
        with pytest.raises(Refused):
            outbox.find(name)
    # Also a link to the directory itself, as long as it led there at the start.
    link = tmp_path / "link"
    link.symlink_to(out)
    outbox = Outbox([link])
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(Refused):
        outbox.find("secret")
    assert outbox.find("a.txt") == out / "a.txt"


def test_what_exists_elsewhere_cannot_be_told(out: Path) -> None:
    outbox = Outbox([out])
    with pytest.raises(Refused) as there:
        outbox.find("../secret")
    with pytest.raises(Refused) as missing:
        outbox.find("../nothing")
    assert str(there.value) == str(missing.value)


def test_several_directories(out: Path, tmp_path: Path) -> None:
    outbox = Outbox([tmp_path / "out-of-it", out])
    assert outbox.find("a.txt") == out / "a.txt"
    assert outbox.find("x") == tmp_path / "out-of-it" / "x"
    assert outbox.find("../out/a.txt") == out / "a.txt"  # both may be sent from


def test_no_directory(out: Path) -> None:
    for directory in (out / "missing", out / "a.txt"):
        with pytest.raises(ProfileError, match="directory"):
            Outbox([directory])
    with pytest.raises(Refused):
        Outbox([]).find("a.txt")
