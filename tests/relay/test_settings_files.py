"""Settings from relay.toml and the secrets directory: which file, which value, and what is said of a bad one."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Self

import pytest
import tomli_w
from pydantic import Field, SecretStr, field_validator, model_validator

from relay.limits import Limits
from relay.settings import NAMES, BadSettings, Loaded, Settings, load, load_with_origins
from relay.settings_names import FILE_SUFFIX, PREFIX, SECRET_VARIABLES, Names
from relay.settings_problems import Origin

SECRET: Final = "hunter2hunter2"
ELSEWHERE: Final = {"HOME": "/nonexistent"}


class More(Settings):
    """With the kinds of settings that there is no example of yet."""

    ticket: SecretStr | None = None
    """What a client has to show."""
    pass_: SecretStr = Field(SecretStr("x"), min_length=1)
    """Another secret."""
    proxies: tuple[str, ...] = ("loopback",)
    """Whom to believe."""
    files: frozenset[Path] = frozenset()
    """Several paths."""
    closed: bool = False
    """Whether nobody new comes in."""
    admits: str = ""
    """Who comes in all the same."""

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.admits and not self.closed:
            raise ValueError("admits is for --closed: set both or neither")
        return self

    @field_validator("ticket")
    @classmethod
    def _long(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < 8:
            raise ValueError(f"{token.get_secret_value()} is too short")
        return token


MORE: Final = Names(More)


def more(*arguments: str, **environ: str) -> Any:
    return load_with_origins(arguments, {**ELSEWHERE, **environ}, MORE).settings


def more_refused(*arguments: str, **environ: str) -> str:
    with pytest.raises(BadSettings) as caught:
        more(*arguments, **environ)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def read(file: Path, text: str = "", *arguments: str, **environ: str) -> Loaded:
    if text:
        file.write_text(text)
    return load_with_origins(["--data-dir", str(file.parent), *arguments], environ)


def refused(file: Path, text: str = "", *arguments: str, **environ: str) -> str:
    with pytest.raises(BadSettings) as caught:
        read(file, text, *arguments, **environ)
    return str(caught.value)


# --- Which file ------------------------------------------------------------------------------------------------------


def test_the_one_in_the_data_directory(file: Path) -> None:
    loaded = read(file, "port = 1")
    assert (loaded.settings.port, loaded.file) == (1, file)
    file.write_text("port = 2")
    assert load([], {"RELAY_DATA_DIR": str(file.parent)}).port == 2
    assert load([], {"STATE_DIRECTORY": str(file.parent)}).port == 2


def test_none_is_no_error(file: Path) -> None:
    assert read(file).file is None


def test_the_one_that_is_named_and_no_other(file: Path) -> None:
    other = file.with_name("other.toml")
    other.write_text("port = 2")
    file.write_text("port = 1\nlog_level = 'debug'")
    for loaded in (read(file, "", "--config", str(other)), read(file, RELAY_CONFIG=str(other))):
        assert (loaded.settings.port, loaded.settings.log_level, loaded.file) == (2, "info", other)


def test_one_that_is_named_and_not_there(file: Path) -> None:
    assert (
        refused(file, "", "--config", "/nonexistent.toml") == "cannot read /nonexistent.toml: No such file or directory"
    )


def test_an_empty_name_is_no_name(file: Path) -> None:
    assert "config is '' (variable RELAY_CONFIG): it is empty" in refused(file, "port = 1", RELAY_CONFIG="")


def test_a_link_to_nowhere_is_not_the_same_as_no_file(file: Path) -> None:
    file.symlink_to("/nonexistent")
    assert f"cannot read {file}" in refused(file)


def test_a_data_directory_that_cannot_be_looked_into(file: Path) -> None:
    loop = file.parent / "loop"
    loop.symlink_to(loop)
    text = refused(file, "", "--data-dir", str(loop))
    assert f"cannot read {loop}/relay.toml: " in text
    assert load(["--data-dir", "/dev/null/x"], ELSEWHERE).port == 8090


def test_a_directory(file: Path) -> None:
    file.mkdir()
    assert refused(file) == f"cannot read {file}: Is a directory"


def test_the_data_directory_may_be_named_in_a_file_that_does_not_lie_in_it(file: Path) -> None:
    file.write_text('data_dir = "/srv/relay"')
    assert load(["--config", str(file)], ELSEWHERE).data_dir == Path("/srv/relay")
    text = refused(file)
    assert "data_dir is '/srv/relay'" in text
    assert "--config or RELAY_CONFIG" in text
    assert read(file, f'data_dir = "{file.parent}"').settings.data_dir == file.parent


# --- What it says ----------------------------------------------------------------------------------------------------


def test_each_setting_and_limit(file: Path) -> None:
    table = {
        "secrets_dir": str(file.parent),
        "host": "::1",
        "port": 7,
        "data_dir": str(file.parent),
        "keys": "/run/relay.keys",
        "notifier_id": "0123456789abcdef",
        "push_kinds": ("webpush", "apns"),
        "push_vapid_key": "B" + "A" * 86,
        "url": "wss://relay.example/ws",
        "log_level": "error",
        "token_file": "/run/tokens",
        "allow_file": "/run/allow",
        "deny_file": "/run/deny",
        "admission_url": "https://id.example/may",
        "admission_address": True,
        "decommission": "We close in May.",
        "drain": 1.5,
        "log_pseudonyms": True,
        "admin": "off",
        "name": "Our relay",
        "operator": "Alice & Bob",
        "contact": "mailto:ops@relay.example",
        "notice": "Down on Sunday.",
        "docs_url": "https://docs.example/",
        "trusted_proxies": "10.0.0.0/8, unix",
        "proxy_protocol": True,
        "tls_cert": "/run/cert.pem",
        "tls_key": "/run/key.pem",
        "unix_socket_mode": "0666",
        "reuse_port": True,
        "workers": 3,
        "nats": ["tls://one.example:4222", "tls://two.example"],
        "nats_creds": "/run/nats.creds",
        "nats_ca": "/run/ca.pem",
        "nats_cert": "/run/nats.pem",
        "nats_key": "/run/nats.key",
        "cluster_secret_file": "/run/cluster",
    }
    # A secret wants a closed file, a Unix socket excludes others of these, and so do credentials a user's name.
    others = {"config", "limits", "token", "unix_socket", "cluster_secret", "nats_user", "nats_password"}
    assert {*table} | others == set(Settings.model_fields)
    defaults = Limits()
    # Half of each but for the few that stand in a relation.
    limits = {field.name: getattr(defaults, field.name) * 2 for field in fields(Limits)}
    loaded = read(file, tomli_w.dumps({**table, "limits": limits}))
    for name, value in table.items():
        assert str(getattr(loaded.settings, name)) == str(tuple(value) if isinstance(value, list) else value)
    assert loaded.settings.limits == Limits(**limits)
    assert {origin.kind for path, origin in loaded.origins.items() if path != ("data_dir",)} == {"file"}


def test_a_flag_above_a_variable_above_the_file_above_the_default(file: Path) -> None:
    text = "port = 1\nhost = '::1'\nlog_level = 'debug'\n[limits]\nmalformed = 3\nclaim_queue = 4\nsubscriptions = 5\n"
    loaded = read(
        file,
        text,
        "--port=3",
        "--limits.malformed=6",
        RELAY_PORT="2",
        RELAY_HOST="::",
        RELAY_LIMITS_CLAIM_QUEUE="7",
        RELAY_LIMITS_MALFORMED="8",
    )
    settings = loaded.settings
    assert (settings.port, settings.host, settings.log_level) == (3, "::", "debug")
    assert settings.limits == Limits(malformed=6, claim_queue=7, subscriptions=5)
    places = {".".join(path): str(origin) for path, origin in loaded.origins.items()}
    assert places == {
        "data_dir": "flag --data-dir",
        "port": "flag --port",
        "host": "variable RELAY_HOST",
        "log_level": f"file {file} line 3",
        "limits.malformed": "flag --limits.malformed",
        "limits.claim_queue": "variable RELAY_LIMITS_CLAIM_QUEUE",
        "limits.subscriptions": f"file {file} line 7",
    }


def test_paths_count_from_the_file(file: Path) -> None:
    assert read(file, 'keys = "my.keys"').settings.keys == file.parent / "my.keys"
    assert read(file, 'keys = "/my.keys"').settings.keys == Path("/my.keys")
    assert "keys is '' (file" in refused(file, 'keys = ""')


# --- What is wrong with it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("prot = 1", 1, "prot ({}): there is no such key; did you mean port?"),
        ("\nlog-level = 'info'", 2, "log-level ({}): there is no such key; did you mean log_level?"),
        ("[limits]\nqueue-size = 1", 2, "limits.queue-size ({}): there is no such key; did you mean limits.queue_s"),
        ("queue_size = 1", 1, "queue_size ({}): there is no such key; did you mean limits.queue_size?"),
        ("[limits]\nport = 1", 2, "limits.port ({}): there is no such key; did you mean port?"),
        ("[relay]\nport = 1", 1, "relay ({}): there is no such key"),
        ("limits.nope = 1", 1, "limits.nope ({}): there is no such key"),
        ("limits = 1", 1, "limits ({}): it is a table; write [limits] above its keys"),
        ("config = 'x'", 1, "config ({}): it says where this file is"),
        ("x25519_secret = 'abc'", 1, "x25519_secret ({}): the relay's keys have no place here"),
        ("port = 'x'", 1, "port is 'x' ({}): Input should be a valid integer"),
        ("# port\n'port' = 65536", 2, "port is 65536 ({}): Input should be less than or equal to 65535"),
        ("[port]\nx = 1", 1, "port is {{'x': 1}} ({}): Input should be a valid integer"),
        ("host = 1", 1, "host is 1 ({}): Input should be a valid string"),
        ("log_level = 'wraning'", 1, "log_level is 'wraning' ({}): Input should be 'debug', 'info', "),
        ("[limits]\n\nmalformed = 1.5", 3, "limits.malformed is 1.5 ({}): "),
        ("[limits]\nmalformed = 0", 2, "malformed is 0: it cannot be switched off (malformed: {}"),
        ("[limits]\nping_after = 61", 2, "silent_after or lower ping_after (ping_after: {}; silent_after: default)"),
    ],
)  # fmt: skip
def test_a_bad_key_or_value_is_told_with_its_line(text: str, line: int, told: str, file: Path) -> None:
    assert told.format(f"file {file} line {line}") in refused(file, text)


def test_a_choice_that_is_nearly_right_is_suggested(file: Path) -> None:
    assert refused(file, "log_level = 'wraning'").endswith("; did you mean warning?")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("limits . malformed = 'x'", 1),
        ("\n[ 'limits' ]\n  \"malformed\"  = 'x'", 3),
        ("[limits] # malformed = 1\n# malformed = 2\nmalformed='x'", 3),
        ("limits.'malformed' = 'x'", 1),
    ],
)
def test_a_line_is_found_however_the_key_is_written(text: str, line: int, file: Path) -> None:
    assert f"limits.malformed is 'x' (file {file} line {line}): " in refused(file, text)


def test_a_long_line_that_is_no_key_takes_no_time(file: Path) -> None:
    words = "-".join(["word"] * 20_000) + " " * 20_000
    assert refused(file, f'url = """\n{words}\n[{words}\n"""').startswith("url is ")


def test_no_line_is_better_than_a_wrong_one(file: Path) -> None:
    assert f"port is 0.5 (file {file}): " in refused(file, 'url = """\nport = 1\n"""\nport = 0.5')


def test_all_is_told_at_once(file: Path) -> None:
    text = "prot = 1\nport = 'x'\n[limits]\nnope = 1\nmalformed = 'x'\n"
    lines = refused(file, text, "--nope", "1", RELAY_NOPE="1").splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == [
        "--nope:",
        "RELAY_NOPE:",
        "prot",
        "limits.nope",
        "port",
        "limits.malformed",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"port = ", "is not TOML: Invalid value"),
        (b"port = 1\nport = 2\nhost = ''", "is not TOML: Cannot overwrite a value (at line 2, column 9)"),
        (b"\xff", "is not TOML: it is not UTF-8 text"),
        (b"x = " + b"[" * 100_000, "is not TOML that can be used: its values are nested too deeply"),
    ],
)
def test_what_is_not_toml(content: bytes, told: str, file: Path) -> None:
    file.write_bytes(content)
    assert f"{file} {told}" in refused(file)


# --- Several values, and switches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--proxies", "10.0.0.0/8", "--proxies", "::1"],
        ["--proxies", "10.0.0.0/8, ::1"],
        ["--proxies=10.0.0.0/8,::1"],
        ["--proxies", '["10.0.0.0/8", "::1"]'],
    ],
)
def test_several_values_as_flags(arguments: list[str]) -> None:
    assert more(*arguments).proxies == ("10.0.0.0/8", "::1")


@pytest.mark.parametrize("text", ["10.0.0.0/8,::1", ' ["10.0.0.0/8", "::1"]', "10.0.0.0/8 , ::1,"])
def test_several_values_as_a_variable(text: str) -> None:
    assert more(RELAY_PROXIES=text).proxies == ("10.0.0.0/8", "::1")


def test_several_values_in_the_file(file: Path) -> None:
    file.write_text('proxies = ["::1"]\nfiles = ["a", "/b"]')
    settings = more("--config", str(file))
    assert settings.proxies == ("::1",)
    assert settings.files == {file.parent / "a", Path("/b")}


def test_none_of_several() -> None:
    assert more(RELAY_PROXIES="").proxies == more("--proxies=").proxies == ()


@pytest.mark.parametrize(
    ("arguments", "on"),
    [
        ([], False),
        (["--closed"], True),
        (["--closed=true"], True),
        (["--closed", "yes"], True),
        (["--closed", "false"], False),
        (["--no-closed"], False),
        (["--closed", "--no-closed"], False),
        (["--closed", "--port", "1"], True),
    ],
)
def test_a_switch(arguments: list[str], on: bool) -> None:
    assert more(*arguments).closed is on


def test_settings_that_contradict_each_other_say_where_each_was_set() -> None:
    text = more_refused("--no-closed", RELAY_ADMITS="x")
    assert text.startswith("settings: admits is for --closed: set both or neither ")
    assert text.endswith(" (closed: flag --no-closed; admits: variable RELAY_ADMITS)")


def test_problems_are_lines() -> None:
    assert BadSettings("one\ntwo").problems == BadSettings(["one", "two"]).problems == ("one", "two")


# --- Secrets ---------------------------------------------------------------------------------------------------------


def token(settings: Any) -> str:
    return str(settings.ticket.get_secret_value())


def test_a_secret_from_each_source(tmp_path: Path) -> None:
    (tmp_path / "relay_ticket").write_text(f"{SECRET}\n")
    (tmp_path / "relay.toml").write_text('ticket = "from the file"')
    (tmp_path / "relay.toml").chmod(0o600)
    (tmp_path / "other").write_text("from a file that is named")
    where = {"RELAY_SECRETS_DIR": str(tmp_path), "RELAY_CONFIG": str(tmp_path / "relay.toml")}
    assert token(more(RELAY_CONFIG=where["RELAY_CONFIG"])) == "from the file"
    assert token(more(**where)) == SECRET
    assert token(more(**where, RELAY_TICKET="from a variable")) == "from a variable"
    assert token(more(**where, RELAY_TICKET_FILE=str(tmp_path / "other"))) == "from a file that is named"
    assert token(more(CREDENTIALS_DIRECTORY=str(tmp_path))) == SECRET
    assert token(more("--secrets-dir", str(tmp_path))) == SECRET


def test_a_secrets_directory_that_the_file_names(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "RELAY_TICKET").write_text(SECRET)
    (tmp_path / "relay.toml").write_text('secrets_dir = "secrets"')
    assert token(more("--config", str(tmp_path / "relay.toml"))) == SECRET


def test_a_secret_is_shown_nowhere(tmp_path: Path) -> None:
    loaded = load_with_origins([], {**ELSEWHERE, "RELAY_TICKET": SECRET}, MORE)
    assert SECRET not in repr(loaded)
    # Not even by a validator that puts it into its text.
    assert "ticket is a secret that cannot be used (variable RELAY_TICKET): … is too short" in more_refused(
        RELAY_TICKET="abc"
    )
    assert SECRET not in more_refused(RELAY_TICKET=SECRET, RELAY_PORT="x")
    for arguments in (["--ticket", SECRET], [f"--ticket={SECRET}"]):
        text = more_refused(*arguments)
        assert SECRET not in text
        assert "RELAY_TICKET_FILE, or relay_ticket in the secrets directory" in text


def test_a_secret_given_twice(tmp_path: Path) -> None:
    text = more_refused(RELAY_TICKET=SECRET, RELAY_TICKET_FILE=str(tmp_path))
    assert text == "RELAY_TICKET_FILE and RELAY_TICKET are both set: remove one of them"


@pytest.mark.parametrize("names", [NAMES, MORE])
def test_no_variable_has_two_meanings(names: Names[Any]) -> None:
    told = [*(leaf.variable for leaf in names.leaves.values()), *SECRET_VARIABLES, *names.file_variables]
    assert len(told) == len(set(told))
    assert f"{PREFIX}X25519_SECRET{FILE_SUFFIX}" in told


def test_a_file_of_tokens_and_a_token_are_two_settings(tmp_path: Path) -> None:
    """`RELAY_TOKEN_FILE` is the variable of token_file alone: both may be set, and none stands above the other."""
    path = str(tmp_path / "tokens")
    loaded = load_with_origins([], {**ELSEWHERE, "RELAY_TOKEN": SECRET, "RELAY_TOKEN_FILE": path})
    assert loaded.settings.token is not None
    assert loaded.settings.token.get_secret_value() == SECRET
    assert loaded.settings.token_file == Path(path)
    assert loaded.origins["token_file",] == Origin("variable", "RELAY_TOKEN_FILE")
    with pytest.raises(BadSettings, match=r"set RELAY_TOKEN, --token-file, or relay_token in the secrets directory$"):
        load([f"--token={SECRET}"], ELSEWHERE)


def test_a_file_with_a_secret_that_others_may_read(file: Path) -> None:
    file.write_text(f'ticket = "{SECRET}"')
    file.chmod(0o644)
    text = more_refused("--config", str(file))
    assert f"{file} holds a secret and is open to others (mode 0644); close it with: chmod o= {file}" == text
    file.chmod(0o640)
    assert token(more("--config", str(file))) == SECRET


def test_what_is_wrong_with_a_secrets_directory(tmp_path: Path) -> None:
    (tmp_path / "relay_port").write_text("1")
    (tmp_path / "relay_tickte").write_text(SECRET)
    (tmp_path / "RELAY_TICKET").mkdir()
    (tmp_path / "relay_pass_").write_bytes(b"\xff")
    (tmp_path / "others").write_text(SECRET)
    text = more_refused("--secrets-dir", str(tmp_path))
    assert SECRET not in text
    assert text.splitlines() == [
        f"ticket (secrets file {tmp_path}/RELAY_TICKET): {tmp_path}/RELAY_TICKET is not a regular file",
        f"pass_ (secrets file {tmp_path}/relay_pass_): {tmp_path}/relay_pass_ is not UTF-8 text",
        f"{tmp_path}/relay_port: port is no secret; set it as RELAY_PORT, --port or in relay.toml",
        f"{tmp_path}/relay_tickte: there is no such secret; did you mean RELAY_TICKET?",
    ]


def test_a_pipe_among_the_secrets_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "relay_ticket")
    assert "is not a regular file" in more_refused("--secrets-dir", str(tmp_path))


def test_a_secret_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "relay_ticket").write_bytes(b"x" * 16385)
    assert "has more than 16384 bytes" in more_refused("--secrets-dir", str(tmp_path))


def test_a_secrets_directory_that_is_not_there() -> None:
    assert (
        more_refused("--secrets-dir", "/nonexistent")
        == "secrets_dir is '/nonexistent' (flag --secrets-dir): cannot read it: No such file or directory"
    )


# --- Names -----------------------------------------------------------------------------------------------------------


def test_the_names_of_a_setting() -> None:
    leaf = NAMES.leaves["limits", "queue_size"]
    assert (leaf.key, leaf.flag, leaf.variable) == (
        "limits.queue_size",
        "--limits.queue-size",
        "RELAY_LIMITS_QUEUE_SIZE",
    )


def test_every_setting_has_a_docstring() -> None:
    assert [leaf.key for leaf in NAMES.leaves.values() if not leaf.about] == []
