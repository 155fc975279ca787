"""peers/profile/settings.py: what profile.toml may say, and what it must not."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.invite import RelayCard
from peers.profile import ProfileError, ProfileSettings
from peers.profile.settings import AUTO_ACCEPT, SIZE_MAX, read_settings, write_settings
from tests.keys.known import SERVER

CARD = RelayCard(SERVER.public, "wss://relay.example/ws")
RELAY = f'relay = "{CARD.text}"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "profile.toml"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (RELAY, ProfileSettings(CARD)),
        (RELAY, ProfileSettings(CARD, None, 64 << 20, wake=True)),
        (f"# ours\nauto_accept = 0\nwake = false\n{RELAY}", ProfileSettings(CARD, None, 0, wake=False)),
        (f"{RELAY}read_receipts = false", ProfileSettings(CARD, read_receipts=False)),
        (f'{RELAY}token_file = "a b.token"', ProfileSettings(CARD, Path("a b.token"))),
        (f"relay = ' {CARD.text}\t'\r\ntoken_file = '/run/secrets/t'", ProfileSettings(CARD, Path("/run/secrets/t"))),
    ],
)
def test_what_is_read(path: Path, content: str, expected: ProfileSettings) -> None:
    path.write_text(content)
    assert read_settings(path) == expected


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "relay is missing: it is the relay card"),
        ("relay = 1", "relay must be a string"),
        ('relay = ""', "relay: a relay card begins with R0"),
        ('relay = "K0secret"', "relay: this is an invite, not a relay card"),
        (f'relay = "{CARD.text[:40]}"', "relay: a relay card that is cut short"),
        (RELAY + 'auto_accept = "1 MB"', "auto_accept must be a whole number of bytes"),
        (RELAY + "auto_accept = true", "auto_accept must be a whole number of bytes"),
        (RELAY + "auto_accept = 1.0", "auto_accept must be a whole number of bytes"),
        (RELAY + "auto_accept = -1", "auto_accept must be between 0 and"),
        (RELAY + "auto_accept = 9223372036854775808", "auto_accept must be between 0 and"),
        (RELAY + "wake = 1", "wake must be true or false"),
        (RELAY + 'wake = "yes"', "wake must be true or false"),
        (RELAY + "read_receipts = 0", "read_receipts must be true or false"),
        (RELAY + "token_file = 1", "token_file must be a string"),
        (RELAY + 'token_file = ""', "token_file must name a file"),
        (RELAY + 'token_file = "a\\u0000"', "token_file must name a file"),
        (
            RELAY + "wakes = true",
            "unknown key: wakes; there are relay, token_file, auto_accept, wake, read_receipts and stamp_bits",
        ),
        (RELAY + "[relays]", "unknown key: relays"),
        (RELAY + f"{'secret' * 9} = 1", "unknown key: one with another name"),
        (RELAY + '"secret pass" = 1', "unknown key: one with another name"),
        (RELAY + "secret\n", r"is not valid TOML \(line 2, column 7\)"),
        (RELAY + RELAY, "is not valid TOML"),
        ("a=" + "[" * 5000, "nested too deeply"),
        ("#" * (SIZE_MAX + 1), r"is too big for settings \(more than 16384 bytes\)"),
    ],
)
def test_what_is_refused_names_the_key(path: Path, content: str, why: str) -> None:
    path.write_text(content)
    with pytest.raises(ProfileError, match=why) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value).replace(str(path), "")
    assert CARD.text[4:40] not in str(caught.value)


def test_files_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(ProfileError, match=r"there is no .*profile\.toml; it holds the relay card"):
        read_settings(path)
    with pytest.raises(ProfileError, match=r"cannot read .*: Is a directory"):
        read_settings(path.parent)
    path.write_bytes(b"\xff")
    with pytest.raises(ProfileError, match="is not UTF-8"):
        read_settings(path)


NAMES = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)
    .map(Path)
    .filter(lambda path: path.name.strip())
)


@settings(deadline=None)
@given(
    st.builds(
        ProfileSettings, st.just(CARD), st.none() | NAMES, st.integers(0, (1 << 63) - 1), st.booleans(), st.booleans()
    )
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, written: ProfileSettings) -> None:
    path = tmp_path_factory.mktemp("profile") / "profile.toml"
    write_settings(path, written)
    assert read_settings(path) == written


def test_what_is_written_is_closed_and_replaces_what_was_there(path: Path) -> None:
    path.write_text("wake = true")
    before = os.umask(0)
    try:
        write_settings(path, ProfileSettings(CARD))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"auto_accept = {AUTO_ACCEPT}" in path.read_text()
    assert [entry.name for entry in path.parent.iterdir()] == ["profile.toml"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match="cannot write"):
        write_settings(tmp_path / "file" / "profile.toml", ProfileSettings(CARD))
    with pytest.raises(ProfileError, match="token_file must be a name in UTF-8"):
        ProfileSettings(CARD, Path("\udcff"))
