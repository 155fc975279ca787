"""The notifier's settings: where they come from, telefon's names, and what is said of those that cannot be used."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import pytest

from keys.identity import Identity
from keys.invite import RelayCard
from peers.notifier.errors import BadNotifierSettings
from peers.notifier.limits import Limits
from peers.notifier.settings import NAMES, load, parse_key
from peers.service.listening import parse_listen
from peers.service.settings_sources import flag_of, is_secret

RELAY: Final = Identity(bytes(range(32)), bytes(range(1, 33))).public
CARD: Final = RelayCard(RELAY, "wss://relay.example/ws").text
SECRET: Final = "5ec7e7" * 10 + "5ec7"
NOWHERE: Final = {"HOME": "/nonexistent", "NOTIFIER_DATA_DIR": "/nonexistent"}


def refused(flags: dict[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(BadNotifierSettings) as caught:
        load(flags or {}, {**NOWHERE, **environ})
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value)
    return str(caught.value)


GIVEN: Final[dict[str, tuple[str, Any]]] = {
    "data_dir": ("/srv/notifier", Path("/srv/notifier")),
    "relay_card": (CARD, CARD),
    "registry": ("/srv/registry.json", Path("/srv/registry.json")),
    "contact": ("mailto:ops@relay.example", "mailto:ops@relay.example"),
    "webpush": ("no", False),
    "unifiedpush": ("false", False),
    "allow_host": ("ntfy.lan, http://10.0.0.5:80", ("ntfy.lan", "http://10.0.0.5:80")),
    "nat64": ("64:ff9b::/96", ("64:ff9b::/96",)),
    "fcm_account": ("/srv/account.json", Path("/srv/account.json")),
    "fcm_project": ("my-project", "my-project"),
    "apns_sandbox": ("true", True),
    "admin": ("[::1]:1", "[::1]:1"),
    "log_level": ("debug", "debug"),
}
ELSEWHERE: Final = {
    "config", "ws_url", "server_x_pub", "server_ed_pub", "token", "x_seed", "ed_seed",
    "apns_key", "apns_key_id", "apns_team_id", "apns_topic",
}  # fmt: skip


def test_every_setting_is_tested_here() -> None:
    names = {key for key, _ in NAMES.leaves() if not key.startswith("limits.")}
    assert set(GIVEN) | ELSEWHERE == names


@pytest.mark.parametrize("key", GIVEN)
def test_a_setting_as_a_flag_a_variable_and_a_key(key: str, tmp_path: Path) -> None:
    text, value = GIVEN[key]
    assert getattr(load({key: text}, NOWHERE), key) == value
    assert getattr(load({}, {**NOWHERE, NAMES.variable_of(key): text}), key) == value
    file = tmp_path / "notifier.toml"
    file.write_text(f'{key} = "{text}"' if not isinstance(value, bool) else f"{key} = {str(value).lower()}")
    assert getattr(load({"config": str(file)}, {"HOME": "/nonexistent"}), key) == value


@pytest.mark.parametrize("name", [key.partition(".")[2] for key, _ in NAMES.leaves() if key.startswith("limits.")])
def test_each_limit(name: str, tmp_path: Path) -> None:
    value = getattr(Limits(), name)
    key = f"limits.{name}"
    (tmp_path / "notifier.toml").write_text(f"[limits]\n{name} = {value}\n")
    for flags, environ in (
        ({key: str(value)}, NOWHERE),
        ({}, {**NOWHERE, NAMES.variable_of(key): str(value)}),
        ({}, {"NOTIFIER_DATA_DIR": str(tmp_path)}),
    ):
        assert load(flags, environ).limits == Limits()
    assert f"limits.{name} ({NAMES.variable_of(key)})" in refused({}, **{NAMES.variable_of(key): "x"})
    assert f"limits.{name} ({flag_of(key)})" in refused({key: "-1"})


def test_a_flag_above_a_variable_above_the_file_above_the_default(tmp_path: Path) -> None:
    (tmp_path / "notifier.toml").write_text(
        "log_level = 'debug'\ncontact = 'mailto:file'\nadmin = 'off'\n[limits]\nqueue = 100\ndevices = 3"
    )
    environ = {"NOTIFIER_DATA_DIR": str(tmp_path), "NOTIFIER_CONTACT": "mailto:env", "NOTIFIER_LOG_LEVEL": "warning"}
    settings = load({"log_level": "error", "limits.devices": 4}, environ)
    assert (settings.log_level, settings.contact, settings.admin) == ("error", "mailto:env", "off")
    assert (settings.limits.devices, settings.limits.queue, settings.limits.attempt) == (4, 100, Limits().attempt)


def test_where_the_data_directory_is() -> None:
    for environ, expected in (
        ({"HOME": "/home/me"}, "/home/me/.local/state/blindrelay-notifier"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "/xdg"}, "/xdg/blindrelay-notifier"),
        ({"STATE_DIRECTORY": "/var/lib/notifier:/more", "XDG_STATE_HOME": "/xdg"}, "/var/lib/notifier"),
        ({"STATE_DIRECTORY": "/var/lib/notifier", "NOTIFIER_DATA_DIR": "/data"}, "/data"),
    ):
        assert load({}, environ).data_dir == Path(expected)


def test_a_path_in_the_file_counts_from_it(tmp_path: Path) -> None:
    (tmp_path / "notifier.toml").write_text('fcm_account = "account.json"')
    assert load({}, {"NOTIFIER_DATA_DIR": str(tmp_path)}).fcm_account == tmp_path / "account.json"


@pytest.mark.parametrize(
    "write",
    [
        bytes.hex,
        lambda key: key.hex().upper(),
        lambda key: base64.b64encode(key).decode(),
        lambda key: base64.urlsafe_b64encode(key).rstrip(b"=").decode(),
        lambda key: f"\n{key.hex()}\n",
    ],
)
def test_telefons_variables(write: Any) -> None:
    identity = Identity(b"\xff" * 31 + b"\x01", b"\xfb" * 32)
    settings = load(
        {},
        {
            **NOWHERE,
            "NOTIFIER_X_SEED": write(identity.seeds[0]),
            "NOTIFIER_ED_SEED": write(identity.seeds[1]),
            "WS_URL": "wss://relay.example/api0",
            "NOTIFIER_SERVER_X_PUB": write(RELAY.x_pub),
            "NOTIFIER_SERVER_ED_PUB": write(RELAY.ed_pub),
            "NOTIFIER_REGISTRY": "/srv/registry.json",
        },
    )
    assert settings.identity is not None
    assert settings.identity.public == identity.public
    assert (settings.relay.public, settings.relay.url) == (RELAY, "wss://relay.example/api0")
    assert settings.registry == Path("/srv/registry.json")


def test_a_relay_by_its_card_and_by_nothing() -> None:
    assert load({"relay_card": CARD}, NOWHERE).relay == RelayCard.parse(CARD)
    with pytest.raises(BadNotifierSettings, match="NOTIFIER_RELAY_CARD"):
        _ = load({}, NOWHERE).relay
    low_order = load({"ws_url": "ws://x/ws", "server_x_pub": "00" * 31 + "01", "server_ed_pub": "00" * 32}, NOWHERE)
    with pytest.raises(BadNotifierSettings, match="ws_url, server_x_pub, server_ed_pub: "):
        _ = low_order.relay
    assert load({}, NOWHERE).identity is None


def test_secrets_may_stand_in_files(tmp_path: Path) -> None:
    for name, text in (("x", SECRET), ("ed", SECRET), ("token", "a-token-of-the-relay")):
        (tmp_path / name).write_text(f"{text}\n")
    environ = {
        **NOWHERE,
        "NOTIFIER_X_SEED_FILE": str(tmp_path / "x"),
        "NOTIFIER_ED_SEED_FILE": str(tmp_path / "ed"),
        "NOTIFIER_TOKEN_FILE": str(tmp_path / "token"),
    }
    settings = load({}, environ)
    assert settings.identity is not None
    assert settings.identity.seeds == (bytes.fromhex(SECRET),) * 2
    assert settings.token is not None
    assert settings.token.get_secret_value() == "a-token-of-the-relay"
    assert SECRET not in repr(settings)
    assert "both set" in refused({}, **environ, NOTIFIER_X_SEED=SECRET)
    for content in (b"\xff", b"x" * 20_000):
        (tmp_path / "x").write_bytes(content)
        assert "the file of NOTIFIER_X_SEED_FILE cannot be read" in refused({}, **environ)
    assert "NOTIFIER_TOKEN_FILE cannot be read: No such file" in refused({}, NOTIFIER_TOKEN_FILE="/nonexistent")


def test_secrets_are_no_flags_and_have_no_place_in_the_file(tmp_path: Path) -> None:
    secrets = [key for key, info in NAMES.leaves() if is_secret(info)]
    assert secrets == ["token", "x_seed", "ed_seed"]
    (tmp_path / "notifier.toml").write_text(f'x_seed = "{SECRET}"')
    assert "a secret has no place here; set NOTIFIER_X_SEED_FILE" in refused({}, NOTIFIER_DATA_DIR=str(tmp_path))


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"NOTIFIER_X_SEED": SECRET}, "x_seed and ed_seed are a pair"),
        ({"NOTIFIER_X_SEED": SECRET[:-1], "NOTIFIER_ED_SEED": SECRET}, "x_seed (NOTIFIER_X_SEED): it has to be 64 hex"),
        ({"NOTIFIER_RELAY_CARD": CARD, "WS_URL": "ws://x"}, "relay_card says it all"),
        ({"WS_URL": "ws://x"}, "ws_url, server_x_pub and server_ed_pub go together"),
        ({"WS_URL": "ws://x", "NOTIFIER_WS_URL": "ws://y"}, "NOTIFIER_WS_URL are both set"),
        ({"NOTIFIER_SERVER_X_PUB": "abc"}, "server_x_pub (NOTIFIER_SERVER_X_PUB): it has to be"),
        ({"NOTIFIER_RELAY_CARD": "K0abc"}, "relay_card (NOTIFIER_RELAY_CARD): "),
        ({"NOTIFIER_TOKEN": SECRET[:5]}, "token (NOTIFIER_TOKEN): the admission token has 16 to 128 characters"),
        ({"NOTIFIER_APNS_KEY": "/x.p8"}, "apns_key takes apns_key_id, apns_team_id and apns_topic"),
        ({"NOTIFIER_APNS_TOPIC": "org.example"}, "apns_key is missing"),
        ({"NOTIFIER_FCM_ACCOUNT": ""}, "fcm_account (NOTIFIER_FCM_ACCOUNT): it is no file name"),
        ({"NOTIFIER_ADMIN": "9610"}, "admin (NOTIFIER_ADMIN): it has to be an address and a port"),
        ({"NOTIFIER_WEBPUSH": "perhaps"}, "webpush (NOTIFIER_WEBPUSH): "),
        (
            {"NOTIFIER_LOG_LEVL": "info"},
            "NOTIFIER_LOG_LEVL: there is no such setting; did you mean NOTIFIER_LOG_LEVEL",
        ),
        ({"NOTIFIER_LIMITS_COVERED_FOR": "31"}, "covered_for is at most message_window"),
        ({"NOTIFIER_CONFIG": "/nonexistent.toml"}, "there is no /nonexistent.toml"),
    ],
)
def test_what_cannot_be_used(environ: dict[str, str], text: str) -> None:
    assert text in refused({}, **environ)


def test_all_problems_are_told_at_once() -> None:
    text = refused({"admin": "x"}, NOTIFIER_LOG_LEVEL="loud", NOTIFIER_NONSENSE="1")
    assert [line.partition(" ")[0] for line in text.splitlines()] == ["NOTIFIER_NONSENSE:", "admin", "log_level"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"contact = ", "is not TOML"),
        (b"\xff", "it is not UTF-8"),
        (b"kontact = 'x'", "kontact (FILE): there is no such key; did you mean contact?"),
        (b"config = 'x'", "config (FILE): there is no such key"),
        (b"[limits]\nqueu = 3", "limits.queu (FILE): there is no such key; did you mean limits.queue?"),
        (b"limits = 3", "limits (FILE): "),
        (b"[limits]\nqueue = 'many'", "limits.queue (FILE): "),
    ],
)
def test_a_file_that_cannot_be_used(content: bytes, text: str, tmp_path: Path) -> None:
    file = tmp_path / "notifier.toml"
    file.write_bytes(content)
    assert text.replace("FILE", str(file)) in refused({}, NOTIFIER_DATA_DIR=str(tmp_path))


@pytest.mark.parametrize(("text", "place"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:9", ("::1", 9)), ("off", None)])
def test_where_the_admin_listener_is(text: str, place: tuple[str, int] | None) -> None:
    assert parse_listen(text) == place


@pytest.mark.parametrize("text", ["", "9610", ":9610", "::1:9610", "[127.0.0.1]:1", "localhost:70000", "localhost:٣"])
def test_what_is_no_place_to_listen(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "A" * 44, "é" * 32, "00" * 33])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        parse_key(text)
