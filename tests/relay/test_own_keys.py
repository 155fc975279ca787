"""Where the relay's own keys come from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from keys.errors import KeyFileError
from keys.files import ServerKeys, read_server_keys, write_server_keys
from relay.own_keys import KEY_FILE, FoundKeys, find_keys, keys_place
from relay.settings import PREFIX, load
from tests.relay.harness import identity

FROM_FILE: Final = ServerKeys(identity(1), bytes.fromhex("1111111111111111"))
FROM_DATA: Final = ServerKeys(identity(2))
FROM_ENVIRONMENT: Final = ServerKeys(identity(3))
X_SECRET, ED_SECRET = (seed.hex() for seed in FROM_ENVIRONMENT.identity.seeds)
ENVIRON: Final = {"RELAY_X25519_SECRET": X_SECRET, "RELAY_ED25519_SECRET": ED_SECRET}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def stays(_directory: Path, _environ: Mapping[str, str]) -> bool:
    return False


def vanishes(_directory: Path, _environ: Mapping[str, str]) -> bool:
    return True


def find(
    data_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None, container: bool = False
) -> FoundKeys:
    settings = load(["--data-dir", str(data_dir), *arguments], {})
    return find_keys(settings, environ or {}, vanishes if container else stays)


def refused(data_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None, container: bool = False) -> str:
    with pytest.raises(KeyFileError) as caught:
        find(data_dir, *arguments, environ=environ, container=container)
    text = str(caught.value)
    assert X_SECRET not in text
    assert ED_SECRET not in text
    return text


# --- Each source -----------------------------------------------------------------------------------------------------


def test_from_the_environment(tmp_path: Path) -> None:
    found = find(tmp_path, environ=ENVIRON)
    assert found.keys.identity.seeds == FROM_ENVIRONMENT.identity.seeds
    assert found.minted is None
    assert list(tmp_path.iterdir()) == []


def test_from_files_that_the_environment_names(tmp_path: Path) -> None:
    for name, value in ENVIRON.items():
        (tmp_path / name).write_text(value + "\n")
    environ = {f"{name}_FILE": str(tmp_path / name) for name in ENVIRON}
    assert find(tmp_path, environ=environ).keys.identity.seeds == FROM_ENVIRONMENT.identity.seeds


def test_from_the_file_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "other.keys"
    write_server_keys(path, FROM_FILE)
    write_server_keys(tmp_path / "data" / KEY_FILE, FROM_DATA)
    found = find(tmp_path / "data", "--keys", str(path))
    assert found.keys.identity.seeds == FROM_FILE.identity.seeds
    assert found.keys.notifier_id == FROM_FILE.notifier_id
    assert found.minted is None


def test_from_the_data_directory(tmp_path: Path) -> None:
    write_server_keys(tmp_path / KEY_FILE, FROM_DATA)
    found = find(tmp_path)
    assert found.keys.identity.seeds == FROM_DATA.identity.seeds
    assert found.minted is None


def test_minted_at_the_first_start_and_found_at_the_next(tmp_path: Path) -> None:
    data_dir = tmp_path / "state" / "blindrelay"
    first = find(data_dir)
    path = data_dir / KEY_FILE
    assert first.minted == path
    assert path.stat().st_mode & 0o777 == 0o600
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert read_server_keys(path).identity.seeds == first.keys.identity.seeds
    second = find(data_dir)
    assert second.minted is None
    assert second.keys.identity.seeds == first.keys.identity.seeds


def test_minted_keys_are_different_every_time(tmp_path: Path) -> None:
    assert find(tmp_path / "a").keys.identity.seeds != find(tmp_path / "b").keys.identity.seeds


def test_from_the_secrets_directory(tmp_path: Path) -> None:
    for name, value in ENVIRON.items():
        (tmp_path / name.lower()).write_text(value + "\n")
    found = find(tmp_path / "data", "--secrets-dir", str(tmp_path))
    assert found.keys.identity.seeds == FROM_ENVIRONMENT.identity.seeds
    assert found.minted is None
    assert not (tmp_path / "data").exists()


def test_one_from_the_secrets_directory_and_one_from_a_variable(tmp_path: Path) -> None:
    (tmp_path / "relay_x25519_secret").write_text(X_SECRET)
    (tmp_path / "relay_ed25519_secret").write_text("not this one")
    found = find(tmp_path, "--secrets-dir", str(tmp_path), environ={"RELAY_ED25519_SECRET": ED_SECRET})
    assert found.keys.identity.seeds == FROM_ENVIRONMENT.identity.seeds


def test_a_secrets_directory_without_the_keys_is_none_for_them(tmp_path: Path) -> None:
    (tmp_path / "others").write_text("x")
    write_server_keys(tmp_path / KEY_FILE, FROM_DATA)
    assert find(tmp_path, "--secrets-dir", str(tmp_path)).keys.identity.seeds == FROM_DATA.identity.seeds


def test_a_secrets_directory_that_went_away(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    settings = load(["--data-dir", str(tmp_path), "--secrets-dir", str(tmp_path / "secrets")], {})
    (tmp_path / "secrets").rmdir()
    with pytest.raises(KeyFileError, match=r"cannot read .*secrets: No such file"):
        find_keys(settings, {}, stays)


@pytest.mark.parametrize("missing", sorted(ENVIRON))
def test_half_a_pair_in_the_secrets_directory(missing: str, tmp_path: Path) -> None:
    for name, value in ENVIRON.items():
        if name != missing:
            (tmp_path / name).write_text(value)
    assert missing in refused(tmp_path / "data", "--secrets-dir", str(tmp_path))


def test_where_they_are_looked_for_is_told_and_none_is_read(tmp_path: Path) -> None:
    (tmp_path / "relay_x25519_secret").touch()
    base = ["--data-dir", str(tmp_path)]

    def place(*arguments: str, **environ: str) -> str:
        return keys_place(load([*base, *arguments], {}), environ)

    assert place() == f"file {tmp_path}/relay.keys"
    assert place("--keys", "/other.keys") == "file /other.keys"
    assert place("--secrets-dir", str(tmp_path)) == f"file {tmp_path}/relay_x25519_secret"
    assert place(RELAY_X25519_SECRET=X_SECRET) == "variable RELAY_X25519_SECRET"
    assert place(RELAY_ED25519_SECRET_FILE="/run/ed") == "file /run/ed"


# --- Order, and contradictions ---------------------------------------------------------------------------------------


def test_the_environment_and_a_named_file_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "other.keys"
    write_server_keys(path, FROM_FILE)
    text = refused(tmp_path, "--keys", str(path), environ=ENVIRON)
    assert str(path) in text
    assert "environment" in text


def test_the_environment_stands_above_the_data_directory(tmp_path: Path) -> None:
    write_server_keys(tmp_path / KEY_FILE, FROM_DATA)
    assert find(tmp_path, environ=ENVIRON).keys.identity.seeds == FROM_ENVIRONMENT.identity.seeds


@pytest.mark.parametrize("missing", sorted(ENVIRON))
def test_half_a_pair(missing: str, tmp_path: Path) -> None:
    environ = {name: value for name, value in ENVIRON.items() if name != missing}
    assert missing in refused(tmp_path, environ=environ)
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_is_none(tmp_path: Path) -> None:
    text = refused(tmp_path, environ={**ENVIRON, "RELAY_X25519_SECRET": X_SECRET[:-1] + "g"})
    assert X_SECRET[:-1] not in text
    assert "RELAY_X25519_SECRET" in text


def test_a_named_file_that_is_not_there_is_not_minted(tmp_path: Path) -> None:
    path = tmp_path / "missing.keys"
    assert str(path) in refused(tmp_path, "--keys", str(path))
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    path.write_text("not toml")
    path.chmod(0o600)
    assert str(path) in refused(tmp_path)
    assert path.read_text() == "not toml"


# --- Containers ------------------------------------------------------------------------------------------------------


def test_nothing_is_minted_where_it_would_vanish(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    text = refused(data_dir, container=True)
    assert str(data_dir) in text
    assert "docker run -v" in text
    assert "RELAY_X25519_SECRET_FILE" in text
    assert not data_dir.exists()


def test_the_place_and_the_environment_are_asked_about(tmp_path: Path) -> None:
    asked = []

    def ask(directory: Path, environ: Mapping[str, str]) -> bool:
        asked.append((directory, dict(environ)))
        return False

    find_keys(load(["--data-dir", str(tmp_path)], {}), {"container": "docker"}, ask)
    assert asked == [(tmp_path, {"container": "docker"})]


def test_keys_that_are_there_are_used_in_a_container_too(tmp_path: Path) -> None:
    write_server_keys(tmp_path / KEY_FILE, FROM_DATA)
    assert find(tmp_path, container=True).keys.identity.seeds == FROM_DATA.identity.seeds
    path = tmp_path / "other.keys"
    write_server_keys(path, FROM_FILE)
    assert find(tmp_path, "--keys", str(path), container=True).keys.identity.seeds == FROM_FILE.identity.seeds
    assert find(tmp_path, environ=ENVIRON, container=True).minted is None


# --- The notifier ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["environment", "keys", "data", "minted"])
def test_the_notifier_of_the_settings_stands_above_that_of_the_file(source: str, tmp_path: Path) -> None:
    path = tmp_path / "other.keys"
    write_server_keys(path, FROM_FILE)
    if source == "data":
        write_server_keys(tmp_path / KEY_FILE, FROM_FILE)
    arguments = ["--notifier-id", "22" * 8] + (["--keys", str(path)] if source == "keys" else [])
    found = find(tmp_path, *arguments, environ=ENVIRON if source == "environment" else None)
    assert found.keys.notifier_id == bytes.fromhex("22" * 8)


def test_the_notifier_of_the_settings_is_not_written(tmp_path: Path) -> None:
    find(tmp_path, "--notifier-id", "22" * 8)
    assert read_server_keys(tmp_path / KEY_FILE).notifier_id is None


def test_nobody_is_the_notifier_with_the_servers_id(tmp_path: Path) -> None:
    assert "zeros" in refused(tmp_path, "--notifier-id", "00" * 8, environ=ENVIRON)
