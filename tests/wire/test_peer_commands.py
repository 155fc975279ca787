"""What peers say to each other: each body from one literal in both directions, and at the edges of its layout."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.identity import Identity
from keys.invite import MailboxCard
from wire import peer_commands as p
from wire.commands import Unknown
from wire.errors import BadBody, LocalError
from wire.inner import parse_inner
from wire.peer_mailboxes import ACKS_MAX, Acks, Listed, Mailboxes

U, F = bytes(range(16)), bytes(range(16, 32))
DIGEST, NONCE = bytes(range(32)), bytes(range(24))
CARD = MailboxCard(Identity(b"m" * 32, b"M" * 32).public, "https://box.example")
OFFER = {"id": "10111213-1415-1617-1819-1a1b1c1d1e1f", "name": "a.txt", "mime": "text/plain", "size": 70000}
PULL = {"uuid": U.hex(), "chunk": 32768, "blake3": DIGEST.hex()}

LITERALS: list[tuple[int, p.PeerBody, bytes]] = [
    (0x20, p.Text(U, ""), U),
    (0x20, p.Text(U, "до\n☺"), U + "до\n☺".encode()),
    (0x27, p.DeliveryAck(U), U),
    (0x28, p.Delete(U), U),
    (0x29, p.Edit(U, "x"), U + b"x"),
    (0x2A, p.ReadAck(U), U),
    (0x25, p.FileChunk(F, 0, b""), F + bytes(4)),
    (0x25, p.FileChunk(F, 0x01020304, b"\xff"), F + b"\x04\x03\x02\x01\xff"),
    (0x26, p.FileEnd(F, U), F + U),
    (0x30, p.Call(0x30), b""),
    (0x31, p.Call(0x31), b""),
    (0x32, p.Call(0x32), b""),
    (0x33, p.Call(0x33), b""),
    (0x37, p.Call(0x37), b""),
    (0x60, p.ChangeAck(NONCE), NONCE),
    (0x61, p.FileWant(F, 1, 0xFFFFFFFF), F + b"\x01\0\0\0\xff\xff\xff\xff"),
    (0x62, p.FileCancel(F, 3), F + b"\x03"),
    (0x62, p.FileCancel(F, 0xFF), F + b"\xff"),
    (0x63, Mailboxes(0x0201, ()), b"\x01\x02\0\0\0\0\0\0" + b"\0\0"),
    (
        0x63,
        Mailboxes(1, (Listed(CARD),), "Ann"),
        b"\x01\0\0\0\0\0\0\0" + b"\x03\0Ann" + len(CARD.text).to_bytes(2, "little") + CARD.text.encode() + b"\0",
    ),
    (
        0x63,
        Mailboxes(1, (Listed(CARD, b"t-_="),)),
        b"\x01\0\0\0\0\0\0\0\0\0" + len(CARD.text).to_bytes(2, "little") + CARD.text.encode() + b"\x04t-_=",
    ),
    (0x64, Acks((U,), (F,), (NONCE,)), b"\x27" + U + b"\x2a" + F + b"\x60" + NONCE),
    (0x24, p.FileOffer(F, "a.txt", "text/plain", 70000), json.dumps(OFFER, separators=(",", ":")).encode()),
    (
        0x24,
        p.FileOffer(F, "a.txt", "text/plain", 70000, p.Pull(U, 32768, DIGEST)),
        json.dumps(OFFER | PULL, separators=(",", ":")).encode(),
    ),
]


@pytest.mark.parametrize(("code", "body", "literal"), LITERALS, ids=lambda value: type(value).__name__)
def test_one_literal_both_ways(code: int, body: p.PeerBody, literal: bytes) -> None:
    assert body.command == code
    assert body.encode() == literal
    assert p.parse_from_peer(code, literal) == body


def test_the_plaintext_of_a_packet() -> None:
    assert p.encode_for_peer(p.DeliveryAck(U), 0x0201) == b"\x01\x02\x27" + U
    assert parse_inner(p.encode_for_peer(p.Call(0x32)))[:2] == (0, 0x32)


@pytest.mark.parametrize("code", [0x00, 0x21, 0x34, 0x38, 0x42, 0x5F, 0x65, 0xFF])
def test_other_codes_are_not_for_us(code: int) -> None:
    assert p.parse_from_peer(code, b"\xff") == Unknown(code, b"\xff")


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (0x20, U[:-1]),
        (0x20, U + b"\xff"),
        (0x29, b""),
        (0x29, U + b"\xed\xa0\x80"),  # half a surrogate pair
        (0x27, U + b"x"),
        (0x28, b""),
        (0x2A, U[1:]),
        (0x25, F + b"\0\0\0"),
        (0x26, F + U + b"x"),
        (0x60, NONCE[:-1]),
        (0x61, F + bytes(7)),
        (0x61, F + bytes(9)),
        (0x62, F),
        (0x62, F + b"\0\0"),
        (0x63, bytes(9)),
        (0x63, bytes(8) + b"\x01\0"),
        (0x63, bytes(8) + b"\x01\0\xff"),
        (0x63, bytes(8) + b"\x01\x01" + b"x" * 257),  # a nickname of more than 256 bytes
        (0x63, bytes(8) + b"\0\0" + b"\x01"),
        (0x63, bytes(8) + b"\0\0" + b"\0\0\0" * 9),  # nine mailboxes
        (0x63, bytes(8) + b"\0\0" + b"\0\0"),  # no size of the token
        (0x63, bytes(8) + b"\0\0" + b"\0\0\x05abcd"),
        (0x64, b""),
        (0x64, b"\x27" + U[1:]),
        (0x64, b"\x28" + U),
        (0x64, (b"\x27" + U) * (ACKS_MAX + 1)),
    ],
)
def test_what_does_not_fit(code: int, body: bytes) -> None:
    with pytest.raises(BadBody):
        p.parse_from_peer(code, body)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": 7},
        {"id": "{10111213-1415-1617-1819-1a1b1c1d1e1f}"},
        {"id": "urn:uuid:10111213-1415-1617-1819-1a1b1c1d1e1f"},
        {"id": "../../etc/passwd"},
        {"size": None},
        {"size": "70000"},
        {"size": -1},
        {"size": 1.5},
        {"size": True},
        {"size": p.FILE_MAX + 1},
        {"size": 1e300},
        {"name": 5},
        {"mime": ["a"]},
        PULL | {"chunk": 0},
        PULL | {"chunk": "32768"},
        PULL | {"chunk": True},
        PULL | {"chunk": p.CHUNK_MAX + 1},
        PULL | {"blake3": "00"},
        PULL | {"blake3": "zz" * 32},
        PULL | {"uuid": 5},
    ],
    ids=str,
)
def test_offers_that_are_none(change: dict[str, Any]) -> None:
    with pytest.raises(BadBody):
        p.parse_from_peer(0x24, json.dumps(OFFER | change).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b"\xff", b'"x"', b"[" * 100_000, b'{"size": NaN}'])
def test_offers_that_are_no_objects(body: bytes) -> None:
    with pytest.raises(BadBody):
        p.parse_from_peer(0x24, body)


def test_offers_are_read_leniently_where_nothing_hangs_on_it() -> None:
    """As JavaScript writes them, and with what other programs add."""
    offer = {"id": OFFER["id"].upper(), "size": 3.0, "thumb_b64": "…", "blake3": DIGEST.hex()}  # type: ignore[attr-defined]
    assert p.parse_from_peer(0x24, json.dumps(offer).encode()) == p.FileOffer(F, "", "", 3)
    named = p.parse_from_peer(0x24, json.dumps(OFFER | {"name": "\ud800" + "x" * 5000}).encode())
    assert isinstance(named, p.FileOffer)
    assert named.name == "?" + "x" * (p.NAME_MAX - 1)


@pytest.mark.parametrize(
    "body",
    [
        p.Text(U[1:], ""),
        p.Text(U, "\ud800"),
        p.DeliveryAck(b""),
        p.FileChunk(F, -1, b""),
        p.FileChunk(F, 1 << 32, b""),
        p.FileWant(F, 0, 1 << 32),
        p.FileCancel(F, 256),
        p.FileOffer(F, "x" * (p.NAME_MAX + 1), "", 0),
        p.FileOffer(F, "", "", -1),
        p.FileOffer(F, "", "", 0, p.Pull(U, 1, b"")),
        p.ChangeAck(b""),
    ],
)
def test_what_we_must_not_say(body: p.PeerBody) -> None:
    with pytest.raises(LocalError):
        body.encode()


@given(st.integers(0, 255), st.binary(max_size=300))
def test_any_bytes_give_a_value_that_says_the_same(code: int, raw: bytes) -> None:
    try:
        body = p.parse_from_peer(code, raw)
    except BadBody:
        return
    again = p.parse_from_peer(body.command, body.encode())
    assert again == body


def test_texts_and_names_stay_out_of_repr() -> None:
    for body in (
        p.Text(U, "secret"),
        p.Edit(U, "secret"),
        p.FileOffer(F, "secret", "secret", 1),
        p.FileChunk(F, 0, b"secret"),
        Mailboxes(1, (Listed(CARD, b"secret"),), "secret"),
        Listed(CARD, b"secret"),
    ):
        assert "secret" not in repr(body)


def test_cards_that_cannot_be_read_are_left_out() -> None:
    """A later version may have others, and names the same one twice to nobody's harm."""
    texts = [b"M1later", CARD.text.encode(), b"\xff", CARD.text.encode(), b"M0" + b"A" * 3000]
    rows = b"".join(len(text).to_bytes(2, "little") + text + b"\x01t" for text in texts)
    assert p.parse_from_peer(0x63, (7).to_bytes(8, "little") + b"\0\0" + rows) == Mailboxes(7, (Listed(CARD, b"t"),))


@pytest.mark.parametrize("token", [b"x" * 65, b"x" * 255, b"a b", b"tab\t", b"\xff", b"\0"])
def test_a_mailbox_with_a_token_that_is_none_is_left_out(token: bytes) -> None:
    """No DEPOSIT could bear it, and without it nothing is taken there."""
    row = len(CARD.text).to_bytes(2, "little") + CARD.text.encode() + bytes((len(token),)) + token
    assert p.parse_from_peer(0x63, bytes(8) + b"\0\0" + row) == Mailboxes(0, ())
    with pytest.raises(LocalError):
        Mailboxes(0, (Listed(CARD, token),)).encode()


LISTED = st.builds(Listed, st.just(CARD), st.text("!~aZ09-_=", max_size=64).map(str.encode))


@given(st.integers(0, 2**64 - 1), st.lists(LISTED, max_size=1), st.text(max_size=50))
def test_lists_come_back_as_they_were_said(serial: int, listed: list[Listed], nickname: str) -> None:
    body = Mailboxes(serial, tuple(listed), nickname)
    assert p.parse_from_peer(0x63, body.encode()) == body


@pytest.mark.parametrize(
    "body",
    [
        Mailboxes(-1, ()),
        Mailboxes(1, (Listed(CARD),) * 9),
        Mailboxes(1, (), "x" * 257),
        Acks(),
        Acks((b"short",)),
        Acks((U,) * 1025),
    ],
)
def test_lists_that_ours_do_not_make(body: p.PeerBody) -> None:
    with pytest.raises(LocalError):
        body.encode()
