"""The masks of routing headers."""

import pytest

from keys.errors import BadKey
from keys.primitives import HeaderKeystream, derive_key
from wire import mask

SHARED = bytes(range(32))
NONCE = bytes(range(100, 124))
CLEAR = b"\x01\x02\x03\x04\x05\x06\x07\x08"


def test_the_directions_have_the_contexts_of_the_protocol() -> None:
    for made, context in (
        (mask.client_to_server(SHARED), "ws.lleo.me v2 route c2s"),
        (mask.server_to_client(SHARED), "ws.lleo.me v2 route s2c"),
    ):
        assert made.xor(CLEAR, NONCE) == HeaderKeystream(derive_key(context, SHARED)).xor(CLEAR, NONCE)
    assert mask.client_to_server(SHARED).xor(CLEAR, NONCE) != mask.server_to_client(SHARED).xor(CLEAR, NONCE)


def test_block_counter_zero_of_rfc_8439() -> None:
    # RFC 8439 appendix A.1, test vector 1: the zero key, the zero nonce, block counter 0.
    assert HeaderKeystream(bytes(32)).xor(bytes(8), bytes(12)) == bytes.fromhex("76b8e0ada0f13d90")


def test_masking_twice_is_nothing() -> None:
    keystream = mask.client_to_server(SHARED)
    masked = keystream.xor(CLEAR, NONCE)
    assert masked != CLEAR
    assert keystream.xor(masked, NONCE) == CLEAR


def test_twelve_bytes_of_the_nonce_decide() -> None:
    keystream = mask.client_to_server(SHARED)
    masked = keystream.xor(CLEAR, NONCE)
    assert keystream.xor(CLEAR, NONCE[:12]) == masked
    assert keystream.xor(CLEAR, NONCE + b"ciphertext") == masked
    for at in range(12):
        other = NONCE[:at] + bytes((NONCE[at] ^ 1,)) + NONCE[at + 1 :]
        assert keystream.xor(CLEAR, other) != masked


def test_a_keystream_keeps_nothing_from_one_header_to_the_next() -> None:
    kept = mask.server_to_client(SHARED)
    for nonce in (NONCE, bytes(24), NONCE, b"\xff" * 24, b"\xff" * 24):
        assert kept.xor(CLEAR, nonce) == mask.server_to_client(SHARED).xor(CLEAR, nonce)


def test_repr_shows_no_key() -> None:
    assert repr(mask.client_to_server(SHARED)) == "HeaderKeystream(…)"


def test_a_key_of_another_size() -> None:
    with pytest.raises(BadKey):
        HeaderKeystream(bytes(31))
