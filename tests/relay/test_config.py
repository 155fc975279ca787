"""`python -m relay config …`: what is printed, and what it is good for."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from keys.files import ServerKeys, write_server_keys
from relay import config
from relay.__main__ import main
from relay.limits import Limits
from relay.settings import NAMES, PREFIX, Settings, load, load_with_origins
from relay.settings_help import varies
from tests.relay.harness import identity
from tests.relay.test_settings_files import MORE

SECRET: Final = "5ec7e7" * 10 + "5ec7"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(PREFIX) or name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "CREDENTIALS_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    assert not (tmp_path / "home").exists(), "nothing is made by looking"


class Said:
    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(["config", *arguments])
        self.out, self.err = capsys.readouterr()


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_of_what_can_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = Said(capsys, "check")
    keys = tmp_path / "home/.local/state/blindrelay/relay.keys"
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines() == ["settings: no relay.toml", f"keys: file {keys}, minted at the start", "ok"]
    write_server_keys(tmp_path / "relay.keys", ServerKeys(identity(1)))
    (tmp_path / "relay.toml").write_text("port = 1")
    said = Said(capsys, "check", "--data-dir", str(tmp_path))
    assert said.out.splitlines() == [f"settings: {tmp_path}/relay.toml", f"keys: file {tmp_path}/relay.keys", "ok"]


def test_check_tells_all_that_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text("prot = 1\nport = 'x'")
    said = Said(capsys, "check", "--data-dir", str(tmp_path), "--nope")
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 3
    assert all(line.startswith("blindrelay: ") for line in said.err.splitlines())


def test_check_looks_at_the_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_server_keys(tmp_path / "relay.keys", ServerKeys(identity(1)))
    (tmp_path / "relay.keys").chmod(0o644)
    said = Said(capsys, "check", "--data-dir", str(tmp_path))
    assert said.status == 2
    assert "open to others" in said.err


# --- show ------------------------------------------------------------------------------------------------------------


def test_show_is_a_file_that_sets_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_LIMITS_MALFORMED", "7")
    (tmp_path / "relay.toml").write_text('url = "wss://relay.example/ws"\n[limits]\nwakes_pair_per_second = 0.1\n')
    arguments = ["--data-dir", str(tmp_path), "--port", "1"]
    said = Said(capsys, "show", *arguments)
    assert said.status == 0
    shown = load(arguments, os.environ)
    monkeypatch.delenv("RELAY_LIMITS_MALFORMED")
    (tmp_path / "relay.toml").write_text(said.out)
    again = load(["--data-dir", str(tmp_path)], {})
    assert again == shown
    assert again.limits == Limits(malformed=7, wakes_pair_per_second=0.1)


def test_show_tells_where_each_was_set(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_LIMITS_MALFORMED", "7")
    file = tmp_path / "other.toml"
    file.write_text('\nurl = "wss://relay.example/ws"')
    lines = Said(capsys, "show", "--config", str(file), "--port", "1").out.splitlines()
    for line in (
        f"# The settings in force, each with where it was set; read from {file}.",
        f'# config = "{file}"  # flag --config',
        "port = 1  # flag --port",
        f'url = "wss://relay.example/ws"  # file {file} line 2',
        "malformed = 7  # variable RELAY_LIMITS_MALFORMED",
        'host = "127.0.0.1"  # default',
        "# keys: none  # default",
    ):
        assert line in lines
    told = [re.split(r"[ :=]", line.removeprefix("# "))[0] for line in lines]
    assert [leaf.key for leaf in NAMES.leaves.values() if leaf.path[-1] not in told] == []


def test_show_hides_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_with_origins([], {"HOME": "/", "RELAY_TOKEN": SECRET, "RELAY_PROXIES": "a,b"}, MORE)
    text = config.show(loaded, "nowhere", MORE)
    assert SECRET not in text
    assert "# token: hidden  # variable RELAY_TOKEN" in text
    assert tomllib.loads(text)["proxies"] == ["a", "b"]
    assert SECRET not in config.template(MORE) + config.doc(MORE)
    monkeypatch.setenv("RELAY_X25519_SECRET", SECRET)
    said = Said(capsys, "show")
    assert SECRET not in said.out + said.err
    assert "# The relay's keys: variable RELAY_X25519_SECRET" in said.out


def test_show_of_what_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "show", "--port", "x")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("blindrelay: port is 'x' (flag --port): ")


# --- template and doc ------------------------------------------------------------------------------------------------


def test_template_sets_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = Said(capsys, "template")
    (tmp_path / "relay.toml").write_text(said.out)
    assert tomllib.loads(said.out) == {"limits": {}}
    assert load(["--data-dir", str(tmp_path)], {}) == load(["--data-dir", str(tmp_path)], {"HOME": "/"})


def test_template_without_its_comment_signs_sets_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    lines = [line.removeprefix("#") if re.match(r"#\w+ = ", line) else line for line in config.template().splitlines()]
    table = tomllib.loads("\n".join(lines))
    unknown = {leaf.path for leaf in NAMES.leaves.values() if varies(leaf) and leaf.path[0] != "limits"}
    assert {(name,) for name in table} | {("config",)} == {(name,) for name in Settings.model_fields}
    assert set(table["limits"]) == set(Limits.__dataclass_fields__)
    kept = [line for line in lines if not any(line.startswith(f"{path[-1]} = ") for path in unknown)]
    file.write_text("\n".join(kept))
    settings = load(["--data-dir", str(tmp_path)], {})
    assert settings == load(["--data-dir", str(tmp_path)], {})
    assert settings.limits == Limits()


def test_template_says_what_each_is_for() -> None:
    text = " ".join(line.removeprefix("# ") for line in config.template().splitlines())
    for leaf in NAMES.leaves.values():
        assert leaf.key == "config" or leaf.about in text


def test_what_is_said_of_a_secret_is_true() -> None:
    assert '#token = "TEXT"  # better token_file, or the secrets directory' in config.template().splitlines()
    assert (
        '#ticket = "TEXT"  # better RELAY_TICKET_FILE, or the secrets directory' in config.template(MORE).splitlines()
    )
    rows = config.doc(MORE)
    assert "\n| `token` | `RELAY_TOKEN` | " in rows
    assert "\n| `ticket` | `RELAY_TICKET` or `RELAY_TICKET_FILE` | " in rows


def test_doc_is_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    text = config.doc()
    assert os.environ["HOME"] not in text
    assert str(Limits().queue_total) not in text
    monkeypatch.setenv("STATE_DIRECTORY", "/state")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/credentials")
    assert config.doc() == text


# --- The rest --------------------------------------------------------------------------------------------------------


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "--help")
    assert said.status == 0
    assert "check|show|template|doc" in said.out


@pytest.mark.parametrize("arguments", [[], ["chekc"], ["--port", "1"]])
def test_no_such_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, *arguments)
    assert (said.status, said.out) == (2, "")
    assert "check|show|template|doc" in said.err


@pytest.mark.parametrize("name", ["template", "doc"])
def test_what_takes_no_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert Said(capsys, name, "--port", "1").status == 2


def test_the_relay_itself_tells_each_problem_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "x", "--nope"]) == 2
    assert [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()] == ["blindrelay"] * 2
