"""The environment of telefon's bridge."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from keys.files import ClientKeys
from keys.identity import Identity
from peers.chat.bridge import BridgeOptions, environment, run
from peers.profile import ProfileError

OURS, THEIRS, OTHERS, RELAY = (Identity(bytes((n,)) * 32, bytes((n + 1,)) * 32) for n in (10, 20, 30, 40))
THEIR_INVITE, OTHER_INVITE = ClientKeys(THEIRS, "Tina").invite, ClientKeys(OTHERS, "Otto").invite


def variables(**more: str) -> dict[str, str]:
    x_seed, ed_seed = OURS.seeds
    return {
        "WSCHAT_X_SEED": x_seed.hex(),
        "WSCHAT_ED_SEED": ed_seed.hex(),
        "WSCHAT_PEER_QR": THEIR_INVITE.text,
        "WS_URL": "wss://relay.example/ws",
        "WSCHAT_SERVER_X_PUB": RELAY.public.x_pub.hex(),
        "WSCHAT_SERVER_ED_PUB": RELAY.public.ed_pub.hex(),
        **more,
    }


def test_all_of_it() -> None:
    read = environment.read(variables(WSCHAT_NICK="robot"))
    assert read.keys.identity.public == OURS.public
    assert read.keys.nickname == "robot"
    assert read.relay.public == RELAY.public
    assert read.relay.url == "wss://relay.example/ws"
    assert read.peers == (THEIR_INVITE,)
    assert OURS.seeds[0].hex() not in repr(read)


@pytest.mark.parametrize(
    "encode",
    [
        bytes.hex,
        lambda raw: raw.hex().upper(),
        lambda raw: f" {raw.hex()}\n",
        lambda raw: base64.b64encode(raw).decode(),
        lambda raw: base64.urlsafe_b64encode(raw).decode(),
        lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="),
    ],
)
def test_ways_to_write_a_key(encode: object) -> None:
    seed = bytes(range(200, 232))  # has + and / in base64
    assert callable(encode)
    read = environment.read(variables(WSCHAT_X_SEED=encode(seed)))
    assert read.keys.identity.seeds[0] == seed


@pytest.mark.parametrize("between", [",", " ", "\n", ", ", ",\n\t"])
def test_several_peers(between: str) -> None:
    text = between.join([THEIR_INVITE.text, OTHER_INVITE.text, THEIR_INVITE.text]) + between
    assert environment.read(variables(WSCHAT_PEER_QR=text)).peers == (THEIR_INVITE, OTHER_INVITE)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ProfileError, match=r"not set: WSCHAT_ED_SEED, WS_URL\. The bridge takes all of"):
        environment.read(variables(WSCHAT_ED_SEED="", WS_URL=" "))


@pytest.mark.parametrize("value", ["", "12", "5ec4e7" * 11, "Z" * 64, "5" * 63, "A" * 42, "A" * 45, "é" * 43])
@pytest.mark.parametrize("name", ["WSCHAT_X_SEED", "WSCHAT_ED_SEED", "WSCHAT_SERVER_X_PUB", "WSCHAT_SERVER_ED_PUB"])
def test_no_key(name: str, value: str) -> None:
    with pytest.raises(ProfileError, match=name) as raised:
        environment.read(variables(**{name: value}))
    assert not value or value not in str(raised.value)


def test_keys_that_must_not_be_used() -> None:
    with pytest.raises(ProfileError, match="WSCHAT_SERVER_X_PUB"):
        environment.read(variables(WSCHAT_SERVER_X_PUB="ff" * 32))
    with pytest.raises(ProfileError, match="WSCHAT_SERVER_ED_PUB"):
        environment.read(variables(WSCHAT_SERVER_ED_PUB="00" * 32))


def test_an_invite_that_is_none() -> None:
    with pytest.raises(ProfileError, match="WSCHAT_PEER_QR, number 2: an invite") as raised:
        environment.read(variables(WSCHAT_PEER_QR=f"{THEIR_INVITE.text},5ec4e7"))
    assert "5ec4e7" not in str(raised.value)


def test_the_address_alone_names_no_identity() -> None:
    assert not environment.is_given({"WS_URL": "wss://other.example", "WSCHAT_NICK": "x", "WSCHAT_WATCH": "y"})
    assert environment.is_given({"WSCHAT_PEER_QR": "x"})


def test_a_profile_and_an_environment(tmp_path: Path) -> None:
    environ = variables(BLINDRELAY_HOME=str(tmp_path))
    with pytest.raises(ProfileError, match="remove one of them"):
        run(environ, BridgeOptions(profile="default"))
    with pytest.raises(ProfileError, match="our own invite"):
        run({**environ, "WSCHAT_PEER_QR": ClientKeys(OURS, "").invite.text}, BridgeOptions())
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_others_may_look_into(tmp_path: Path) -> None:
    own = tmp_path / "bridge" / OURS.public.id.hex()
    own.mkdir(parents=True)
    own.chmod(0o755)
    with pytest.raises(ProfileError, match="chmod 700"):
        run(variables(BLINDRELAY_HOME=str(tmp_path)), BridgeOptions())


def test_the_file_to_watch() -> None:
    assert environment.watched({}) is None
    assert environment.watched({"WSCHAT_WATCH": ""}) is None
    assert environment.watched({"WSCHAT_WATCH": "a/log"}) == Path("a/log")
    with pytest.raises(ProfileError, match="WSCHAT_WATCH"):
        environment.watched({"WSCHAT_WATCH": "a\0b"})
