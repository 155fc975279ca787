"""Settings from flags and variables, and what is said of those that cannot be used."""

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest

from relay.about import MAX_CONTACT, MAX_NAME, MAX_NOTICE, MAX_OPERATOR, About
from relay.limits import Limits
from relay.settings import PREFIX, BadSettings, Settings, bracketed, load, parse_admin

SECRET: Final = "5ec7e7" * 10 + "5ec7"
VAPID_KEY: Final = "B" + "A" * 86
"""An uncompressed point as far as its form goes."""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def read(*arguments: str) -> Settings:
    return load(arguments, os.environ)


def refused(*arguments: str) -> str:
    with pytest.raises(BadSettings) as caught:
        read(*arguments)
    assert caught.value.__cause__ is None
    return str(caught.value)


GIVEN: Final[list[tuple[str, str, Any]]] = [
    ("config", os.devnull, Path(os.devnull)),
    ("secrets_dir", "/", Path("/")),
    ("host", "::1", "::1"),
    ("port", "0", 0),
    ("data_dir", "/srv/relay", Path("/srv/relay")),
    ("keys", "/run/relay.keys", Path("/run/relay.keys")),
    ("notifier_id", "0123456789abcdEF", "0123456789abcdEF"),
    ("push_kinds", "unifiedpush, fcm", ("unifiedpush", "fcm")),
    ("push_vapid_key", VAPID_KEY, VAPID_KEY),
    ("url", "wss://relay.example/ws", "wss://relay.example/ws"),
    ("token_file", "/run/tokens", Path("/run/tokens")),
    ("allow_file", "/run/allow", Path("/run/allow")),
    ("deny_file", "/run/deny", Path("/run/deny")),
    ("admission_url", "https://id.example/may", "https://id.example/may"),
    ("admission_address", "true", True),
    ("decommission", "We close in May.", "We close in May."),
    ("log_level", "warning", "warning"),
    ("drain", "1.5", 1.5),
    ("admin", "[::1]:9601", "[::1]:9601"),
    ("name", "Our relay", "Our relay"),
    ("operator", "Alice & Bob", "Alice & Bob"),
    ("contact", "mailto:ops@relay.example", "mailto:ops@relay.example"),
    ("notice", "Down on Sunday.", "Down on Sunday."),
    ("docs_url", "https://docs.example/", "https://docs.example/"),
    ("trusted_proxies", "10.0.0.0/8, unix", "10.0.0.0/8, unix"),
    ("trusted_proxies", "", ""),
    ("unix_socket_mode", "666", "666"),
]
SWITCHES: Final = {"log_pseudonyms", "proxy_protocol", "reuse_port"}
TOGETHER: Final = {"tls_cert", "tls_key", "unix_socket"}
"""Those that others belong to: see *Settings that belong together*."""


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


# --- Where they come from --------------------------------------------------------------------------------------------


SECRETS = {"token", "nats_password", "cluster_secret"}
CLUSTER = {"workers", "cluster_secret", "cluster_secret_file"} | {
    f"nats{part}" for part in ("", "_creds", "_user", "_password", "_ca", "_cert", "_key")
}


def test_every_setting_is_tested_here() -> None:
    here = {name for name, _, _ in GIVEN} | TOGETHER | SWITCHES | {"limits", "token"}
    # What makes a cluster is in test_cluster_settings.py.
    assert here | CLUSTER == set(Settings.model_fields)
    assert here.isdisjoint(CLUSTER)


@pytest.mark.parametrize(("name", "text", "value"), GIVEN)
def test_a_flag(name: str, text: str, value: object) -> None:
    assert getattr(read(flag(name), text), name) == value
    assert getattr(read(f"{flag(name)}={text}"), name) == value


@pytest.mark.parametrize(("name", "text", "value"), GIVEN)
def test_a_variable(name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), text)
    assert getattr(read(), name) == value


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_a_switch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert getattr(read(), name) is False
    assert getattr(read(flag(name)), name) is True
    monkeypatch.setenv(PREFIX + name.upper(), "true")
    assert getattr(read(), name) is True
    assert getattr(read("--no-" + flag(name)[2:]), name) is False
    monkeypatch.setenv(PREFIX + name.upper(), "perhaps")
    assert PREFIX + name.upper() in refused()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("127.0.0.1:9600", ("127.0.0.1", 9600)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:80", ("localhost", 80)),
        ("off", None),
    ],
)
def test_where_the_admin_listener_is(text: str, where: tuple[str, int] | None) -> None:
    assert parse_admin(read("--admin", text).admin) == where


def test_what_the_operator_says() -> None:
    assert read().about == About()
    about = read("--name", "a", "--operator", "b", "--contact", "c", "--notice", "d", "--docs-url", "https://e").about
    assert about == About("a", "b", "c", "d", "https://e")


def test_what_the_notifier_takes() -> None:
    about = read("--push-kinds", "webpush,apns", "--push-kinds", "webpush", "--push-vapid-key", VAPID_KEY).about
    assert about == About(push_kinds=("webpush", "apns"), push_vapid_key=VAPID_KEY)
    assert "push_vapid_key is needed" in refused("--push-kinds", "webpush")
    assert "'unifiedpush'" in refused("--push-kinds", "carrier-pigeon")
    assert "blindrelay-notifier keygen" in refused("--push-vapid-key", "B")


def test_a_flag_stands_above_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PORT", "1111")
    monkeypatch.setenv("RELAY_HOST", "10.0.0.1")
    settings = read("--port", "2222")
    assert (settings.port, settings.host) == (2222, "10.0.0.1")


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_each_limit_as_a_flag_and_as_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = getattr(Limits(), name)
    assert read(f"--limits.{name.replace('_', '-')}", str(value)).limits == Limits()
    monkeypatch.setenv(f"RELAY_LIMITS_{name.upper()}", str(value))
    assert read().limits == Limits()
    monkeypatch.setenv(f"RELAY_LIMITS_{name.upper()}", "x")
    assert f"RELAY_LIMITS_{name.upper()}" in refused()


def test_a_limit_is_changed_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_LIMITS_SUBSCRIPTIONS", "7")
    monkeypatch.setenv("RELAY_LIMITS_MALFORMED", "8")
    limits = read("--limits.malformed", "9", "--limits.claim-wait=0.5").limits
    assert limits == Limits(subscriptions=7, malformed=9, claim_wait=0.5)


def test_a_limit_that_is_switched_off() -> None:
    assert read("--limits.frames-per-second", "0").limits.frames_per_second == 0


def test_the_defaults(tmp_path: Path) -> None:
    settings = read()
    assert (settings.host, settings.port, settings.keys, settings.url) == ("127.0.0.1", 8090, None, "")
    assert settings.limits == Limits()
    assert settings.data_dir == tmp_path / ".local" / "state" / "blindrelay"


def test_the_data_directory_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert read().data_dir == Path("/xdg/blindrelay")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert read().data_dir.parts[-3:] == (".local", "state", "blindrelay")


@pytest.mark.parametrize("value", ["/var/lib/relay", "/var/lib/relay:/var/lib/more"])
def test_the_data_directory_that_systemd_gives(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.setenv("STATE_DIRECTORY", value)
    assert read().data_dir == Path("/var/lib/relay")
    assert read("--data-dir", "/data").data_dir == Path("/data")


# --- What cannot be used ---------------------------------------------------------------------------------------------

BAD: Final = [
    ("port", "http", "integer"),
    ("port", "65536", "less than or equal to 65535"),
    ("port", "-1", "greater than or equal to 0"),
    ("port", "", "integer"),
    ("notifier_id", "0123", "[0-9a-fA-F]{16}"),
    ("url", "http://relay.example", "ws:// or wss://"),
    ("admin", "", "or off"),
    ("admin", "9600", "127.0.0.1:9600"),
    ("admin", ":9600", "127.0.0.1:9600"),
    ("admin", "::1:9600", "[::1]:9600"),
    ("admin", "[127.0.0.1]:9600", "127.0.0.1:9600"),
    ("admin", "127.0.0.1:x", "127.0.0.1:9600"),
    ("admin", "127.0.0.1:65536", "65535 at most"),
    ("name", "", "at least 1"),
    ("name", "x" * (MAX_NAME + 1), f"{MAX_NAME} are the most"),
    ("operator", "x" * (MAX_OPERATOR + 1), f"{MAX_OPERATOR} are the most"),
    ("contact", "x" * (MAX_CONTACT + 1), f"{MAX_CONTACT} are the most"),
    ("notice", "x" * (MAX_NOTICE + 1), f"{MAX_NOTICE} are the most"),
    ("notice", "a\x1b[2J", "U+001B"),
    ("docs_url", "javascript:x", "https://"),
    ("token_file", "", "it is empty"),
    ("admission_url", "http://id.example/may", "https://"),
    ("admission_url", "https:///may", "https://"),
    ("admission_url", "ftp://id.example/may", "https://"),
    ("admission_url", "https://user:word@id.example/may", "no name or password"),
    ("admission_address", "perhaps", "boolean"),
    ("decommission", "x" * 2001, "2000"),
    ("decommission", "We close.\x1b[2J", "U+001B"),
    ("decommission", "We close.\u202e", "U+202E"),
    ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
    ("trusted_proxies", "10.0.0.1/8", "give networks as 10.0.0.0/8"),
    ("trusted_proxies", "any", "give networks as 10.0.0.0/8"),
    ("unix_socket", "", "it is empty"),
    ("unix_socket", "/run/" + 88 * "x", "use a shorter one"),
    ("unix_socket_mode", "rw", "^0?[0-7]{3}$"),
    ("unix_socket_mode", "0440", "0660 is for a group"),
    ("tls_cert", "", "it is empty"),
    ("tls_key", "", "it is empty"),
]


@pytest.mark.parametrize(("name", "text", "should_be"), BAD)
def test_a_bad_variable_is_told_with_its_name_and_value_and_what_it_should_be(
    name: str, text: str, should_be: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name.upper(), text)
    error = refused()
    assert f"{name} is {text!r} (variable {PREFIX}{name.upper()}): " in error
    assert should_be in error


@pytest.mark.parametrize(("name", "text", "should_be"), BAD)
def test_a_bad_flag_is_told_in_the_same_way(name: str, text: str, should_be: str) -> None:
    error = refused(f"{flag(name)}={text}")
    assert f"{name} is {text!r} (flag {flag(name)}): " in error
    assert should_be in error


def test_everything_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PORT", "x")
    monkeypatch.setenv("RELAY_LOG_LEVEL", "y")
    assert len(refused("--url", "z").splitlines()) == 3


def test_limits_that_contradict_each_other_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_LIMITS_PING_AFTER", "61")
    error = refused()
    assert "ping_after" in error
    assert "silent_after" in error


@pytest.mark.parametrize("name", ["RELAY_PROT", "RELAY_LIMIT", "RELAY_LIMITS_CLAIM_WEIGHT", "RELAY_X25519_SECRT"])
def test_an_unknown_variable_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert name in refused()


def test_all_unknown_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_B", "1")
    monkeypatch.setenv("RELAY_A", "1")
    assert [line.partition(":")[0] for line in refused().splitlines()] == ["RELAY_A", "RELAY_B"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--nope", "1"], "--nope: there is no such flag; see --help"),
        (["--limits.nope=1"], "--limits.nope: there is no such flag; see --help"),
        (["--por", "1"], "--por: there is no such flag; did you mean --port?; see --help"),
        (["--log_level", "info"], "--log_level: there is no such flag; did you mean --log-level?; see --help"),
        (
            ["--limits.claim", "1"],
            "--limits.claim: there is no such flag; did you mean --limits.claim-wait?; see --help",
        ),
        (["extra"], "argument 1 is no flag and follows none; every value follows its flag"),
        (["--port", "1", "2"], "argument 3 is no flag and follows none; every value follows its flag"),
        (["-p", "1"], "argument 1 is no flag"),
        (["--port"], "--port: its value is missing; write --port NUMBER"),
        (["--host", "--port", "1"], "--host: its value is missing; write --host TEXT"),
        (["--no-port"], "--no-port: there is no such flag"),
    ],
)
def test_an_unknown_flag_is_an_error(arguments: list[str], told: str) -> None:
    assert told in refused(*arguments)


def test_all_that_is_wrong_with_flags_and_variables_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_NOPE", "1")
    monkeypatch.setenv("RELAY_LIMITS_MALFORMED", "x")
    lines = refused("--nope", "1", "--port", "x", "--prot", "2", "--log-level", "debgu").splitlines()
    assert len(lines) == 6
    assert "did you mean debug?" in lines[-2]


def test_the_value_of_an_unknown_flag_is_not_repeated() -> None:
    for arguments in (["--token", SECRET], [f"--token={SECRET}"], [SECRET], ["--port", "1", SECRET]):
        assert SECRET not in refused(*arguments)


def test_a_name_in_the_wrong_case_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("relay_port", "1")
    assert refused() == "relay_port: there is no such setting; did you mean RELAY_PORT?; see --help"


def test_the_last_of_a_flag_counts() -> None:
    assert read("--port", "1", "--port", "2").port == 2


def test_limits_that_contradict_each_other_say_where_each_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_LIMITS_QUEUE_SIZE", "1000")
    text = refused("--limits.queue-share", "2000", "--limits.flush-size", "500")
    assert "limits: queue_share is more than queue_size: raise queue_size or lower queue_share" in text
    assert "(queue_size: variable RELAY_LIMITS_QUEUE_SIZE; queue_share: flag --limits.queue-share)" in text


def test_what_kubernetes_sets_is_explained() -> None:
    environ = {"RELAY_PORT": "tcp://10.0.0.1:8090", "RELAY_SERVICE_HOST": "10.0.0.1", "RELAY_SERVICE_PORT": "8090"}
    with pytest.raises(BadSettings, match="enableServiceLinks: false"):
        load([], environ)


def test_nothing_but_the_environment_that_is_given_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PORT", "x")
    monkeypatch.setenv("RELAY_NOPE", "x")
    monkeypatch.setenv("STATE_DIRECTORY", "/wrong")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/wrong")
    settings = load([], {"HOME": "/home/somebody", "RELAY_HOST": "::1"})
    assert (settings.host, settings.port, settings.secrets_dir) == ("::1", 8090, None)
    assert settings.data_dir == Path("/home/somebody/.local/state/blindrelay")
    assert load([], {"STATE_DIRECTORY": "/right"}).data_dir == Path("/right")


# --- Settings that belong together -----------------------------------------------------------------------------------


def test_a_certificate_and_its_key() -> None:
    settings = read("--tls-cert", "/etc/relay/chain.pem", "--tls-key=/etc/relay/key.pem")
    assert (settings.tls_cert, settings.tls_key) == (Path("/etc/relay/chain.pem"), Path("/etc/relay/key.pem"))
    assert settings.scheme == "wss"
    assert settings.url_at(443) == "wss://127.0.0.1:443/ws"
    assert read().scheme == "ws"


def test_a_unix_socket() -> None:
    settings = read("--unix-socket", "/run/relay/sock", "--url", "wss://relay.example/ws")
    assert settings.unix_socket == Path("/run/relay/sock")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tls-cert", "/c"], "--tls-cert and --tls-key go together"),
        (["--tls-key", "/k"], "--tls-cert and --tls-key go together"),
        (["--unix-socket", "/s"], "--unix-socket needs --url"),
        (["--unix-socket", "/s", "--url", "wss://relay.example/ws", "--reuse-port"], "remove it"),
        (
            ["--unix-socket", "/s", "--url", "wss://relay.example/ws", "--tls-cert", "/c", "--tls-key", "/k"],
            "remove --tls-cert",
        ),
    ],
)
def test_settings_that_do_not_go_together(arguments: list[str], told: str) -> None:
    error = refused(*arguments)
    assert told in error
    assert len(error.splitlines()) == 1


def test_what_stands_in_front() -> None:
    front = read("--trusted-proxies", "10.0.0.0/8", "--proxy-protocol").front
    assert front.proxy_header
    assert bytes((10, 1, 2, 3)) in front.trusted
    assert bytes((127, 0, 0, 1)) not in front.trusted
    assert not front.trusted.unix
    assert bytes((127, 0, 0, 1)) in read().front.trusted
    # Without a Unix socket there is nobody who could come through one.
    assert not read().front.trusted.unix
    assert read("--unix-socket", "/run/x.sock", "--url", "wss://relay.example/ws").front.trusted.unix
    assert not read().front.proxy_header


def test_networks_as_a_list() -> None:
    settings = Settings.model_validate({"trusted_proxies": ["10.0.0.0/8", "unix"]})
    assert settings.trusted_proxies == "10.0.0.0/8, unix"


# --- Secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "_FILE"])
@pytest.mark.parametrize("key", ["RELAY_X25519_SECRET", "RELAY_ED25519_SECRET"])
def test_a_secret_is_no_setting_and_is_never_shown(
    key: str, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(key + suffix, SECRET)
    assert SECRET not in repr(read())
    with pytest.raises(SystemExit):
        read("--help")
    monkeypatch.setenv("RELAY_PORT", "x")
    monkeypatch.setenv("RELAY_LIMITS_MALFORMED", "-1")
    assert SECRET not in refused()
    monkeypatch.setenv("RELAY_NOPE", "x")
    assert SECRET not in refused()
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err


def test_a_secret_in_a_variable_with_a_wrong_name_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_X25519_SECRETS", SECRET)
    assert SECRET not in refused()


# --- Texts -----------------------------------------------------------------------------------------------------------


def test_the_help_has_every_setting_and_limit_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in Settings.model_fields:
        # A secret has no flag: arguments can be read by everybody on the machine.
        assert (name == "limits" or re.search(rf"{flag(name)}[ ,]", text) is not None) == (name not in SECRETS)
    for field in fields(Limits):
        assert f"--limits.{field.name.replace('_', '-')} " in text
    assert "a mistake is forgiven, a habit is not" in text
    assert "0 takes a free one" in text


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ([], "ws://127.0.0.1:8091/ws"),
        (["--host", "0.0.0.0"], "ws://127.0.0.1:8091/ws"),  # noqa: S104
        (["--host", "::"], "ws://127.0.0.1:8091/ws"),
        (["--host", "2001:db8::1"], "ws://[2001:db8::1]:8091/ws"),
        (["--host", "relay.lan"], "ws://relay.lan:8091/ws"),
        (["--host", "::", "--url", "wss://relay.example/ws"], "wss://relay.example/ws"),
    ],
)
def test_the_url_for_the_relay_card(arguments: list[str], url: str) -> None:
    assert read(*arguments).url_at(8091) == url


def test_hosts_in_urls() -> None:
    assert [bracketed(host) for host in ("::1", "127.0.0.1", "a.b")] == ["[::1]", "127.0.0.1", "a.b"]
