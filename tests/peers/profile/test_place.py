"""peers/profile/place.py: where profiles are, who may look into them, and how they are made, whatever interrupts."""

import os
import signal
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.files import ClientKeys, read_identity
from keys.invite import RelayCard
from peers.profile import (
    Profile,
    ProfileBusy,
    ProfileError,
    ProfileSettings,
    WrongProfilePassphrase,
    list_profiles,
)
from tests.keys.known import ALICE, BOB, CHEAP, SERVER

CARD = RelayCard(SERVER.public, "wss://relay.example/ws")
OTHER_CARD = RelayCard(SERVER.public, "wss://other.example/ws")
KEYS = ClientKeys(ALICE, "Alice")
PASSPHRASE = "correct horse"
TOKEN = "0123456789abcdef"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"BLINDRELAY_HOME": str(tmp_path / "home")}


def make(environ: dict[str, str], name: str | None = None) -> Profile:
    return Profile.create(name, KEYS, CARD, environ=environ)


def never() -> str:
    raise AssertionError("asked for a passphrase")


def modes(directory: Path) -> dict[str, int]:
    entries = [directory, *sorted(directory.rglob("*"))]
    return {str(entry.relative_to(directory)): stat.S_IMODE(entry.stat().st_mode) for entry in entries}


# --- Where ----------------------------------------------------------------------------------------------------------


def test_where_a_profile_lies(tmp_path: Path, environ: dict[str, str]) -> None:
    profiles = tmp_path / "home" / "profiles"
    assert Profile.locate(None, environ).directory == profiles / "default"
    assert Profile.locate("work", environ).directory == profiles / "work"
    environ["BLINDRELAY_PROFILE"] = "club"
    assert Profile.locate(None, environ) == Profile("club", profiles / "club")
    assert Profile.locate("work", environ).directory == profiles / "work"
    assert not (tmp_path / "home").exists()


def test_without_a_home_the_users_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if sys.platform == "darwin":
        monkeypatch.setenv("HOME", str(tmp_path))
        expected = tmp_path / "Library" / "Application Support" / "blindrelay"
    else:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        expected = tmp_path / "blindrelay"
    assert Profile.locate("work", {}).directory == expected / "profiles" / "work"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ProfileError, match=r"name a directory for profiles by BLINDRELAY_HOME, or install"):
        Profile.locate(None, {})
    assert Profile.locate(None, environ).name == "default"


def test_a_relative_home_is_that_of_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    profile = Profile.locate(None, {"BLINDRELAY_HOME": "here"})
    assert profile.directory == tmp_path / "here" / "profiles" / "default"


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "0", "a" * 64, "default", "CON"])
def test_names(environ: dict[str, str], name: str) -> None:
    assert Profile.locate(name, environ).directory.name == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "_a", "a/b", "../a", "a b", "a\n", "é", "a\0", "a" * 65, "\x1b[31m", "٣", "~"]
)
def test_names_that_are_refused(environ: dict[str, str], name: str) -> None:
    with pytest.raises(ProfileError, match="a profile's name has 1 to 64") as caught:
        Profile.locate(name, environ)
    assert str(caught.value).isprintable()
    with pytest.raises(ProfileError):
        Profile.locate(None, environ | {"BLINDRELAY_PROFILE": name})


@given(st.text(max_size=70))
def test_a_name_never_leaves_the_directory(name: str) -> None:
    try:
        profile = Profile.locate(name, {"BLINDRELAY_HOME": "/home"})
    except ProfileError:
        return
    assert os.path.normpath(profile.directory) == f"/home/profiles/{name}"


def test_empty_variables_are_refused(environ: dict[str, str]) -> None:
    for variable in ("BLINDRELAY_HOME", "BLINDRELAY_PROFILE"):
        with pytest.raises(ProfileError, match=f"{variable} is empty: give it a value or remove it"):
            Profile.locate(None, environ | {variable: ""})


# --- Made -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_all_of_it_is_closed_to_others(tmp_path: Path, environ: dict[str, str], umask: int) -> None:
    before = os.umask(umask)
    try:
        make(environ)
    finally:
        os.umask(before)
    assert modes(tmp_path / "home") == {
        ".": 0o700,
        "profiles": 0o700,
        "profiles/default": 0o700,
        "profiles/default/files": 0o700,
        "profiles/default/identity.keys": 0o600,
        "profiles/default/lock": 0o600,
        "profiles/default/profile.toml": 0o600,
    }


def test_what_was_made_is_read(environ: dict[str, str]) -> None:
    made = Profile.create("work", KEYS, CARD, token_file=Path("relay.token"), environ=environ)
    profile = Profile.locate("work", environ)
    assert made == profile
    assert profile.exists
    assert profile.settings() == ProfileSettings(CARD, Path("relay.token"))
    keys = profile.read_keys(never)
    assert keys.identity.seeds == ALICE.seeds
    assert keys.nickname == "Alice"
    assert profile.files_path.is_dir()
    assert not profile.store_path.exists()


def test_sealed_keys(environ: dict[str, str]) -> None:
    profile = Profile.create(None, KEYS, CARD, "e\u0301té", environ=environ, cost=CHEAP)
    assert ALICE.seeds[0].hex() not in profile.identity_path.read_text()
    assert profile.read_keys(lambda: "ét\u0065\u0301").identity.seeds == ALICE.seeds
    with pytest.raises(WrongProfilePassphrase, match=r"the passphrase of .*identity\.keys is wrong"):
        profile.read_keys(lambda: "hunter2")
    with pytest.raises(ProfileError, match="sealed under a passphrase, and none is given"):
        profile.read_keys()
    with pytest.raises(ProfileError, match="the passphrase is empty"):
        profile.read_keys(lambda: "")


def test_settings_are_written_anew(environ: dict[str, str]) -> None:
    profile = make(environ)
    changed = ProfileSettings(OTHER_CARD, None, 0, wake=False)
    profile.write_settings(changed)
    assert profile.settings() == changed


def test_an_existing_profile_is_not_touched(environ: dict[str, str]) -> None:
    profile = make(environ)
    before = {path: path.read_bytes() for path in (profile.identity_path, profile.settings_path)}
    with pytest.raises(ProfileError, match=r"the profile default exists in .*; choose another name"):
        Profile.create(None, ClientKeys(BOB), OTHER_CARD, environ=environ)
    assert {path: path.read_bytes() for path in before} == before


def test_nothing_is_left_of_what_cannot_be_made(tmp_path: Path, environ: dict[str, str]) -> None:
    for passphrase in ("", "a" * 4097):
        with pytest.raises(ProfileError, match="passphrase"):
            Profile.create(None, KEYS, CARD, passphrase, environ=environ)
    with pytest.raises(ProfileError, match="token_file"):
        Profile.create(None, KEYS, CARD, token_file=Path(), environ=environ)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ProfileError, match="cannot make"):
        make(environ)


def test_two_at_once(environ: dict[str, str]) -> None:
    profile = Profile.locate(None, environ)
    profile.directory.mkdir(parents=True, mode=0o700)
    with profile.lock(), pytest.raises(ProfileBusy):
        make(environ)
    assert not profile.exists
    assert make(environ).exists


STEPS = ("open", "os.mkdir", "os.chmod", "os.rename", "os.link", "os.remove", "fcntl.flock")


def killed_at(step: int, make_it: Callable[[], object]) -> bool:
    """Run `make_it` in a child that is killed as it begins its `step`-th change; tell whether it was."""
    child = os.fork()
    if child == 0:
        left = [step]

        def count(event: str, _: object) -> None:
            if event in STEPS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            make_it()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_killed_at_any_point_it_can_be_begun_again(tmp_path: Path) -> None:
    whole = 0
    for step in range(1000):
        environ = {"BLINDRELAY_HOME": str(tmp_path / str(step))}
        if not killed_at(step, partial(Profile.create, "a", ClientKeys(BOB), OTHER_CARD, environ=environ)):
            break
        profile = Profile.locate("a", environ)
        if profile.exists:
            # What looks whole is whole.
            assert list_profiles(environ) == ("a",)
            assert profile.read_keys(never).identity.seeds == BOB.seeds
            assert profile.settings().relay == OTHER_CARD
            whole += 1
            continue
        assert list_profiles(environ) == ()
        with pytest.raises(ProfileError, match="there is no profile a"):
            profile.read_keys(never)
        again = make(environ, "a")
        assert again.read_keys(never).identity.seeds == ALICE.seeds
        assert again.settings().relay == CARD
        assert set(modes(again.directory).values()) <= {0o700, 0o600}
    else:
        pytest.fail("never finished")
    assert step > 10
    assert whole < step


def test_an_empty_key_file_of_an_earlier_attempt_is_no_profile(environ: dict[str, str]) -> None:
    # What is left where a file system has no links (see keys.private_file.write_private).
    profile = Profile.locate(None, environ)
    profile.directory.mkdir(parents=True, mode=0o700)
    profile.identity_path.touch(mode=0o600)
    assert not profile.exists
    assert list_profiles(environ) == ()
    make(environ)
    assert profile.read_keys(never).identity.seeds == ALICE.seeds


def test_a_link_in_place_of_the_keys_is_not_followed(tmp_path: Path, environ: dict[str, str]) -> None:
    profile = Profile.locate(None, environ)
    profile.directory.mkdir(parents=True, mode=0o700)
    profile.identity_path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProfileError, match="exists and is not overwritten"):
        make(environ)
    assert not (tmp_path / "elsewhere").exists()


# --- Looked into ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o750, 0o704, 0o777])
def test_a_directory_that_is_open_to_others(environ: dict[str, str], mode: int) -> None:
    environ["BLINDRELAY_HOME"] += " of mine"
    profile = make(environ)
    profile.directory.chmod(mode)
    calls: list[Callable[[], object]] = [
        profile.settings,
        profile.read_keys,
        profile.read_token,
        profile.check_closed,
        lambda: profile.write_settings(ProfileSettings(CARD)),
    ]
    for call in calls:
        with pytest.raises(ProfileError, match=rf"is open to others \(mode 0{mode:o}\); close it with: chmod 700 '"):
            call()
    profile.directory.chmod(0o700)
    assert profile.settings().relay == CARD


def test_an_open_directory_is_not_made_a_profile(environ: dict[str, str]) -> None:
    profile = Profile.locate(None, environ)
    profile.directory.mkdir(parents=True)
    profile.directory.chmod(0o755)
    with pytest.raises(ProfileError, match="close it with: chmod 700"):
        make(environ)
    assert list(profile.directory.iterdir()) == []


def test_open_keys_are_refused(environ: dict[str, str]) -> None:
    profile = make(environ)
    profile.identity_path.chmod(0o640)
    with pytest.raises(ProfileError, match=r"is open to others .* chmod 600"):
        profile.read_keys(never)


@pytest.mark.parametrize("name", ["default", "work"])
def test_a_profile_that_is_not_there(environ: dict[str, str], name: str) -> None:
    profile = Profile.locate(name, environ)
    how = "blindrelay-chat init" if name == "default" else "blindrelay-chat --profile work init"
    calls: list[Callable[[], object]] = [
        profile.settings,
        profile.read_keys,
        profile.read_token,
        lambda: profile.write_settings(ProfileSettings(CARD)),
    ]
    for _ in range(2):
        assert not profile.exists
        for call in calls:
            with pytest.raises(ProfileError, match=f"there is no profile {name} in .*; make it with: {how}$"):
                call()
        profile.directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # half of one is none


def test_keys_of_another_kind(environ: dict[str, str]) -> None:
    profile = make(environ)
    profile.identity_path.write_text("x25519_secret = 1")
    with pytest.raises(ProfileError, match="x25519_secret"):
        profile.read_keys(never)


def test_a_file_in_place_of_the_directory(environ: dict[str, str]) -> None:
    profile = Profile.locate(None, environ)
    profile.directory.parent.mkdir(parents=True)
    profile.directory.write_text("")
    with pytest.raises(ProfileError, match="is not a directory"):
        profile.settings()
    with pytest.raises(ProfileError, match=r"is not a directory|cannot make"):
        make(environ)


def test_the_keys_are_a_file_like_any_other(environ: dict[str, str]) -> None:
    assert read_identity(make(environ).identity_path).identity.seeds == ALICE.seeds


# --- Listed ---------------------------------------------------------------------------------------------------------


def test_which_there_are(tmp_path: Path, environ: dict[str, str]) -> None:
    assert list_profiles(environ) == ()
    for name in ("work", "Club", "default"):
        make(environ, name)
    profiles = tmp_path / "home" / "profiles"
    (profiles / "half").mkdir()
    (profiles / ".hidden").mkdir()
    (profiles / "file").touch()
    assert list_profiles(environ) == ("Club", "default", "work")
    assert list_profiles({"BLINDRELAY_HOME": str(tmp_path / "other")}) == ()


def test_a_directory_that_cannot_be_listed(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "profiles").touch()
    with pytest.raises(ProfileError, match=r"cannot read .*: Not a directory"):
        list_profiles(environ)


# --- The token ------------------------------------------------------------------------------------------------------


def with_token(environ: dict[str, str], content: str, name: str = "relay.token") -> Profile:
    profile = Profile.create(None, KEYS, CARD, token_file=Path(name), environ=environ)
    path = profile.directory / name
    path.write_text(content)
    path.chmod(0o600)
    return profile


@pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f"# the relay's\r\n\r\n {TOKEN} \r\nsecond-{TOKEN}\r\n"])
def test_the_token(environ: dict[str, str], content: str) -> None:
    assert with_token(environ, content).read_token() == TOKEN


def test_a_token_elsewhere(tmp_path: Path, environ: dict[str, str]) -> None:
    assert with_token(environ, TOKEN, str(tmp_path / "token")).read_token() == TOKEN


def test_no_token(environ: dict[str, str]) -> None:
    assert make(environ).read_token() is None


@pytest.mark.parametrize("content", ["", "# nothing\n", "short", "hunter2 hunter2 hunter2", "hunter2" * 20, "ü" * 20])
def test_what_is_no_token(environ: dict[str, str], content: str) -> None:
    with pytest.raises(ProfileError, match="holds no token: 16 to 128 characters") as caught:
        with_token(environ, content).read_token()
    assert "hunter2" not in str(caught.value).replace(environ["BLINDRELAY_HOME"], "")


def test_token_files_that_cannot_be_used(environ: dict[str, str]) -> None:
    profile = with_token(environ, TOKEN)
    path = profile.directory / "relay.token"
    path.chmod(0o644)
    with pytest.raises(ProfileError, match=r"token_file: .* is open to others .* chmod 600"):
        profile.read_token()
    path.unlink()
    with pytest.raises(ProfileError, match=r"profile\.toml: token_file: there is no file .*relay\.token"):
        profile.read_token()


def fail(*_: object, **__: object) -> NoReturn:
    raise PermissionError(13, "Permission denied")


def test_a_directory_that_keeps_us_out(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # By a stand-in: to root nothing is closed.
    profile = make(environ)
    monkeypatch.setattr(Path, "stat", fail)
    assert not profile.exists
    with pytest.raises(ProfileError, match=r"cannot look into .*: Permission denied"):
        profile.read_keys(never)
