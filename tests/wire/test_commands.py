"""Each command's body, from one literal in both directions, and at the edges of its layout."""

import dataclasses
from typing import Any, Final, get_args

import pytest

from wire import commands as c
from wire.errors import BadBody, LocalError
from wire.limits import MAX_INFO, MAX_KEYS_PER_FRAME, MAX_NICKNAME, MAX_PUSH_TOKEN

CLIENT, SERVER = "from client", "from server"
PARSE: Final = {CLIENT: c.parse_from_client, SERVER: c.parse_from_server}

K1, K2 = b"\x01" * 32, b"\x02" * 32
ID = b"\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11"
NONCE = bytes(range(24))

LITERALS: Final[list[tuple[str, int, c.Body, bytes]]] = [
    (CLIENT, 0x01, c.HandshakeRequest(K1), K1 + b"\x02"),
    (CLIENT, 0x01, c.HandshakeRequest(K1, 0xFF), K1 + b"\xff"),
    (CLIENT, 0x40, c.Subscribe(()), b""),
    (CLIENT, 0x40, c.Subscribe((K1,)), K1),
    (CLIENT, 0x40, c.Subscribe((K2, K1, K2)), K2 + K1 + K2),
    (CLIENT, 0x40, c.Subscribe.of([K1] * MAX_KEYS_PER_FRAME), K1 * MAX_KEYS_PER_FRAME),
    (CLIENT, 0x41, c.Unsubscribe(()), b""),
    (CLIENT, 0x41, c.Unsubscribe.of(iter((K1, K2))), K1 + K2),
    (CLIENT, 0x46, c.Introduce(ID, ""), ID),
    (CLIENT, 0x46, c.Introduce(ID, "Алиса"), ID + b"\xd0\x90\xd0\xbb\xd0\xb8\xd1\x81\xd0\xb0"),
    (CLIENT, 0x46, c.Introduce(ID, "x" * 256), ID + b"x" * 256),
    (CLIENT, 0x46, c.Introduce(ID, "ж" * 128), ID + b"\xd0\xb6" * 128),
    (CLIENT, 0x46, c.Introduce(ID, "a\0\u241finfo"), ID + b"a\x00\xe2\x90\x9finfo"),
    (CLIENT, 0x48, c.Wake(ID), ID),
    (CLIENT, 0x48, c.Wake(ID, 0), ID + b"\x00"),
    (CLIENT, 0x48, c.Wake(ID, 1), ID + b"\x01"),
    (CLIENT, 0x48, c.Wake(ID, 0xFF), ID + b"\xff"),
    (CLIENT, 0x49, c.PushRegister(0, b""), b"\x00"),
    (CLIENT, 0x49, c.PushRegister(1, b"token"), b"\x01token"),
    (CLIENT, 0x49, c.PushRegister(2, b"\xff\x00"), b"\x02\xff\x00"),
    (CLIENT, 0x49, c.PushRegister(0xFF, b"t" * 4096), b"\xff" + b"t" * 4096),
    (CLIENT, 0x4D, c.Proof(K1), K1),
    (SERVER, 0x02, c.HandshakeOk(), b"\x02"),
    (SERVER, 0x02, c.HandshakeOk(3), b"\x03"),
    (SERVER, 0x42, c.PeerOnline(()), b""),
    (SERVER, 0x42, c.PeerOnline((K1, K2)), K1 + K2),
    (SERVER, 0x43, c.PeerOffline((K2,)), K2),
    (SERVER, 0x47, c.IntroFrom(K1, K2, ""), K1 + K2),
    (SERVER, 0x47, c.IntroFrom(K1, K2, "Bob"), K1 + K2 + b"Bob"),
    (SERVER, 0x47, c.IntroFrom(K1, K2, "x" * 256), K1 + K2 + b"x" * 256),
    (SERVER, 0x48, c.Wake(ID), ID),
    (SERVER, 0x48, c.Wake(ID, 1), ID + b"\x01"),
    (SERVER, 0x49, c.PushForward(ID, 0, b""), ID + b"\x00"),
    (SERVER, 0x49, c.PushForward(ID, 2, b"{}"), ID + b"\x02{}"),
    (SERVER, 0x49, c.PushForward(ID, 1, b"t" * 4096), ID + b"\x01" + b"t" * 4096),
    (SERVER, 0x4A, c.ServerPing(), b""),
    (SERVER, 0x4B, c.Restarting(0), b"\x00\x00\x00\x00"),
    (SERVER, 0x4B, c.Restarting(0x01020304), b"\x04\x03\x02\x01"),
    (SERVER, 0x4B, c.Restarting(0xFFFFFFFF), b"\xff\xff\xff\xff"),
    (SERVER, 0x4C, c.Challenge(K2), K2),
    (SERVER, 0x88, c.Info(""), b""),
    (SERVER, 0x88, c.Info("до свидания"), "до свидания".encode()),
    (SERVER, 0x88, c.Info("𝄞" * 2000), b"\xf0\x9d\x84\x9e" * 2000),
    (SERVER, 0xFF, c.IdInUse(), b"\x01"),
    (SERVER, 0xFF, c.BadVersion(), b"\x02\x02"),
    (SERVER, 0xFF, c.BadVersion(9), b"\x02\x09"),
    (SERVER, 0xFF, c.NotAdmitted("fü"), b"\x04f\xc3\xbc"),
    (SERVER, 0xFF, c.NotAdmitted(""), b"\x04"),
    (SERVER, 0xFF, c.RecipientOffline(ID, NONCE), b"\x03" + ID + NONCE),
    (SERVER, 0xFF, c.UnknownError(0, b""), b"\x00"),
    (SERVER, 0xFF, c.UnknownError(5, b"detail"), b"\x05detail"),
    (SERVER, 0xFF, c.UnknownError(0xFF, b""), b"\xff"),
]


def name(value: object) -> str | None:
    """Name a case by the type of its body, not by its bytes."""
    return type(value).__name__ if isinstance(value, tuple(BODIES)) else "-" if isinstance(value, bytes) else None


BODIES: Final[set[type[c.Body]]] = {*get_args(c.ClientBody), *get_args(c.ServerBody)}


@pytest.mark.parametrize(("way", "code", "body", "literal"), LITERALS, ids=name)
def test_one_literal_both_ways(way: str, code: int, body: c.Body, literal: bytes) -> None:
    assert body.command == code
    assert body.encode() == literal
    parsed = PARSE[way](code, literal)
    assert type(parsed) is type(body)
    assert parsed == body


def test_the_literals_hold_every_body_in_every_direction() -> None:
    for way, bodies in ((CLIENT, get_args(c.ClientBody)), (SERVER, get_args(c.ServerBody))):
        assert {type(body) for found, _, body, _ in LITERALS if found == way} == set(bodies) - {c.Unknown}
    assert {code for _, code, _, _ in LITERALS} == set(c.Command)


LENIENT: Final[list[tuple[str, int, c.Body, bytes]]] = [
    (CLIENT, 0x01, c.HandshakeRequest(K1), K1 + b"\x02" + b"later"),
    (CLIENT, 0x48, c.Wake(ID, 1), ID + b"\x01" + b"cut"),
    (SERVER, 0x02, c.HandshakeOk(), b"\x02" + b"later"),
    (SERVER, 0x48, c.Wake(ID, 0), ID + b"\x00" + b"cut"),
    (SERVER, 0x4A, c.ServerPing(), b"later"),
    (SERVER, 0x4B, c.Restarting(1), b"\x01\x00\x00\x00" + b"later"),
    (SERVER, 0xFF, c.IdInUse(), b"\x01" + b"later"),
    (SERVER, 0xFF, c.BadVersion(), b"\x02\x02" + b"later"),
    (SERVER, 0xFF, c.RecipientOffline(ID, NONCE), b"\x03" + ID + NONCE + b"later"),
]


@pytest.mark.parametrize(("way", "code", "body", "literal"), LENIENT, ids=name)
def test_what_a_later_version_appends_is_not_looked_at(way: str, code: int, body: c.Body, literal: bytes) -> None:
    assert PARSE[way](code, literal) == body
    assert len(body.encode()) < len(literal)


BAD: Final[list[tuple[str, int, bytes]]] = [
    (CLIENT, 0x01, b""),
    (CLIENT, 0x01, K1),
    (CLIENT, 0x40, b"\x00"),
    (CLIENT, 0x40, K1[:31]),
    (CLIENT, 0x40, K1 + b"\x00"),
    (CLIENT, 0x41, K1 + K2[:31]),
    (CLIENT, 0x46, b""),
    (CLIENT, 0x46, ID[:7]),
    (CLIENT, 0x46, ID + b"\xff"),
    (CLIENT, 0x46, ID + b"\xed\xa0\x80"),  # a surrogate
    (CLIENT, 0x46, ID + b"\xc0\x80"),  # overlong
    (CLIENT, 0x46, ID + b"\xd0"),  # cut
    (CLIENT, 0x46, ID + b"x" * 257),
    (CLIENT, 0x46, ID + b"\xd0\xb6" * 129),
    (CLIENT, 0x48, b""),
    (CLIENT, 0x48, ID[:7]),
    (CLIENT, 0x49, b""),
    (CLIENT, 0x49, b"\x01" + b"t" * 4097),
    (CLIENT, 0x4D, K1[:31]),
    (CLIENT, 0x4D, K1 + b"\x00"),
    (CLIENT, 0x4D, b""),
    (SERVER, 0x02, b""),
    (SERVER, 0x42, b"\x00"),
    (SERVER, 0x42, K1 + b"\x00"),
    (SERVER, 0x43, K1[:31]),
    (SERVER, 0x47, K1 + K2[:31]),
    (SERVER, 0x47, K1 + K2 + b"\xff"),
    (SERVER, 0x47, K1 + K2 + b"x" * 257),
    (SERVER, 0x48, ID[:7]),
    (SERVER, 0x49, b""),
    (SERVER, 0x49, ID),
    (SERVER, 0x49, ID + b"\x01" + b"t" * 4097),
    (SERVER, 0x4B, b"\x00\x00\x00"),
    (SERVER, 0x4C, K1[:31]),
    (SERVER, 0x4C, K1 + b"\x00"),
    (SERVER, 0x88, b"\xff"),
    (SERVER, 0x88, b"x" * 2001),
    (SERVER, 0xFF, b""),
    (SERVER, 0xFF, b"\x02"),
    (SERVER, 0xFF, b"\x03" + ID),
    (SERVER, 0xFF, b"\x03" + ID + NONCE[:23]),
]


@pytest.mark.parametrize(("way", "code", "literal"), BAD, ids=name)
def test_a_body_that_does_not_fit(way: str, code: int, literal: bytes) -> None:
    with pytest.raises(BadBody) as caught:
        PARSE[way](code, literal)
    assert caught.value.close_code == 1008


LOCAL: Final[list[c.Body]] = [
    c.HandshakeRequest(K1[:31]),
    c.HandshakeRequest(K1 + b"\x00"),
    c.HandshakeRequest(K1, 256),
    c.HandshakeRequest(K1, -1),
    c.HandshakeOk(256),
    c.Subscribe((K1, K1[:31])),
    c.Unsubscribe((b"",)),
    c.PeerOnline((K1 + K2,)),
    c.PeerOffline((K1[:31],)),
    c.Introduce(ID[:7], ""),
    c.Introduce(K1, ""),
    c.Introduce(ID, "x" * 257),
    c.Introduce(ID, "ж" * 129),
    c.Introduce(ID, "\ud800"),
    c.IntroFrom(K1[:31], K2, ""),
    c.IntroFrom(K1, K2[:31], ""),
    c.IntroFrom(K1, K2, "x" * 257),
    c.IntroFrom(K1, K2, "\udfff"),
    c.Wake(ID[:7]),
    c.Wake(ID + b"\x00"),
    c.Wake(ID, 256),
    c.Wake(ID, -1),
    c.PushRegister(256, b""),
    c.PushRegister(-1, b""),
    c.PushRegister(1, b"t" * 4097),
    c.PushForward(ID[:7], 1, b""),
    c.PushForward(ID, 256, b""),
    c.PushForward(ID, 1, b"t" * 4097),
    c.Restarting(-1),
    c.Restarting(1 << 32),
    c.Challenge(K1[:31]),
    c.Proof(K1 + b"\x00"),
    c.Info("x" * 2001),
    c.Info("\ud800"),
    c.BadVersion(256),
    c.NotAdmitted("x" * 2001),
    c.NotAdmitted("\ud800"),
    c.RecipientOffline(ID[:7], NONCE),
    c.RecipientOffline(ID, NONCE[:23]),
    c.RecipientOffline(ID, NONCE + b"\x00"),
    c.UnknownError(256, b""),
    c.UnknownError(-1, b""),
]


@pytest.mark.parametrize("body", LOCAL, ids=name)
def test_a_field_out_of_range_is_our_bug(body: c.Body) -> None:
    with pytest.raises(LocalError):
        body.encode()


@pytest.mark.parametrize("way", [CLIENT, SERVER])
def test_codes_of_the_other_direction_or_of_none_are_unknown(way: str) -> None:
    known = {code for direction, code, _, _ in LITERALS if direction == way}
    for code in set(range(256)) - known:
        for literal in (b"", b"\x00", K1 + b"\xff"):
            body = PARSE[way](code, literal)
            assert body == c.Unknown(code, literal)
            assert body.command == code
            assert body.encode() == literal


def test_whether_a_wake_is_for_a_message() -> None:
    assert c.Wake(ID).is_message
    assert c.Wake(ID, c.WakeType.MESSAGE).is_message
    assert not c.Wake(ID, c.WakeType.CALL).is_message
    assert not c.Wake(ID, 2).is_message, "what is not known to be a message is not held back"


def test_equal_bytes_under_two_commands_are_two_bodies() -> None:
    bodies: list[object] = [c.Subscribe((K1,)), c.Unsubscribe((K1,)), c.PeerOnline((K1,)), c.PeerOffline((K1,))]
    bodies += [c.Challenge(K1), c.Proof(K1)]
    for at, body in enumerate(bodies):
        assert bodies.index(body) == at
    assert hash(c.Subscribe((K1,))) == hash(c.Subscribe((K1,)))


def test_limits_are_those_of_the_protocol() -> None:
    assert (MAX_NICKNAME, MAX_PUSH_TOKEN, MAX_INFO, MAX_KEYS_PER_FRAME) == (256, 4096, 2000, 32764)


SECRET: Final[list[c.Body]] = [
    c.HandshakeRequest(b"SECRETSECRET"),
    c.Subscribe((b"SECRETSECRET",)),
    c.Unsubscribe((b"SECRETSECRET",)),
    c.PeerOnline((b"SECRETSECRET",)),
    c.PeerOffline((b"SECRETSECRET",)),
    c.Introduce(b"SECRETSECRET", "SECRETSECRET"),
    c.IntroFrom(b"SECRETSECRET", b"SECRETSECRET", "SECRETSECRET"),
    c.Wake(b"SECRETSECRET"),
    c.PushRegister(1, b"SECRETSECRET"),
    c.PushForward(b"SECRETSECRET", 1, b"SECRETSECRET"),
    c.Challenge(b"SECRETSECRET"),
    c.Proof(b"SECRETSECRET"),
    c.Info("SECRETSECRET"),
    c.NotAdmitted("SECRETSECRET"),
    c.RecipientOffline(b"SECRETSECRET", b"SECRETSECRET"),
    c.UnknownError(9, b"SECRETSECRET"),
    c.Unknown(0x70, b"SECRETSECRET"),
]


@pytest.mark.parametrize("body", SECRET, ids=name)
def test_repr_shows_no_bytes_and_no_texts(body: c.Body) -> None:
    for text in (repr(body), str(body)):
        assert "SECRET" not in text
        assert type(body).__name__ in text


def fields(body: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(body)


def test_every_body_with_a_field_of_bytes_or_text_hides_it() -> None:
    for body in BODIES:
        for field in fields(body):
            assert field.repr == (field.type in (int, int | None)), f"{body.__name__}.{field.name}"


@pytest.mark.parametrize("body", SECRET, ids=name)
def test_bodies_do_not_change(body: c.Body) -> None:
    for field in fields(body):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(body, field.name, getattr(body, field.name))


def test_errors_do_not_repeat_what_was_sent() -> None:
    secret = ID + b"SECRETSECRET\xff"
    with pytest.raises(BadBody) as caught:
        c.parse_from_client(c.Command.INTRODUCE, secret)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__suppress_context__, "the decoder's error holds the bytes"
