import unicodedata

import pytest

from keys import passphrase as pw
from keys.errors import OpenError
from tests.keys.known import CHEAP, drawn


def test_round_trip() -> None:
    sealed = pw.seal(b"content", b"hunter2", CHEAP)
    assert len(sealed.box) == len(b"content") + 40
    assert sealed.open(b"hunter2") == b"content"


def test_salt_and_nonce_are_drawn_anew() -> None:
    one, other = (pw.seal(b"content", b"hunter2", CHEAP) for _ in range(2))
    assert one.salt != other.salt
    assert one.box[:24] != other.box[:24]
    fixed = pw.seal(b"content", b"hunter2", CHEAP, drawn(b"s" * 16, b"n" * 24))
    assert fixed.salt == b"s" * 16
    assert fixed.box[:24] == b"n" * 24


@pytest.mark.parametrize("passphrase", [b"", b"hunter", b"hunter3", b"hunter2\0", b"hunter2\n", b"Hunter2"])
def test_another_passphrase_does_not_open(passphrase: bytes) -> None:
    with pytest.raises(OpenError):
        pw.seal(b"content", b"hunter2", CHEAP).open(passphrase)


def test_a_changed_salt_cost_or_box_does_not_open() -> None:
    sealed = pw.seal(b"content", b"hunter2", CHEAP)
    others = [
        pw.SealedBox(sealed.cost, bytes(16), sealed.box),
        pw.SealedBox(pw.Cost(2, 8192), sealed.salt, sealed.box),
        pw.SealedBox(pw.Cost(1, 16384), sealed.salt, sealed.box),
        *(
            pw.SealedBox(sealed.cost, sealed.salt, sealed.box[:i] + bytes([sealed.box[i] ^ 1]) + sealed.box[i + 1 :])
            for i in range(len(sealed.box))
        ),
    ]
    for other in others:
        with pytest.raises(OpenError):
            other.open(b"hunter2")


@pytest.mark.parametrize(
    ("opslimit", "memlimit"),
    [
        (1, 0),
        (1, -1),
        (1, 8191),
        (1, (1 << 30) + 1),
        (1, 1 << 200),
        (0, 8192),
        (-1, 8192),
        (5, 1 << 30),
        (17, 256 << 20),
        ((4 << 30) // 8192 + 1, 8192),
        (1 << 200, 8192),
    ],
)
def test_costs_out_of_bounds(opslimit: int, memlimit: int) -> None:
    with pytest.raises(ValueError, match="limit must be between"):
        pw.Cost(opslimit, memlimit)


@pytest.mark.parametrize(("opslimit", "memlimit"), [(1, 8192), (4, 1 << 30), (16, 256 << 20), (524288, 8192)])
def test_costs_within_bounds(opslimit: int, memlimit: int) -> None:
    assert pw.Cost(opslimit, memlimit).opslimit == opslimit


def test_the_default_cost_is_libsodiums_moderate() -> None:
    assert pw.Cost(opslimit=3, memlimit=268435456) == pw.DEFAULT_COST


@pytest.mark.parametrize("size", [0, 15, 17])
def test_the_salt_has_16_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="salt"):
        pw.SealedBox(CHEAP, bytes(size), bytes(60))


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        pw.seal(b"content", b"", CHEAP)


def test_typed_passphrases_have_one_form() -> None:
    composed = unicodedata.normalize("NFC", "Ü\u0301ber")
    assert pw.encode(unicodedata.normalize("NFD", composed)) == pw.encode(composed) == composed.encode()


@pytest.mark.parametrize(
    ("typed", "why"),
    [("", "empty"), ("a" * 4097, "longer than 4096"), ("é" * 2049, "longer"), ("a\ud800", "not UTF-8")],
)
def test_typed_passphrases_that_cannot_serve(typed: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        pw.encode_typed(typed)


@pytest.mark.parametrize("typed", [" ", "a" * 4096, "é" * 2048, "two words"])
def test_typed_passphrases_that_can_serve(typed: str) -> None:
    assert pw.encode_typed(typed) == pw.encode(typed)
