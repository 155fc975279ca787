"""What a mailbox and its clients say: each body from one literal in both directions, and at the edges of its layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.deposit import SIZE_CLASSES
from wire import mailbox_answers as a
from wire import mailbox_commands as c
from wire.commands import Body, Unknown
from wire.errors import BadBody, LocalError
from wire.inner import parse_inner
from wire.limits import MAX_FRAME, MIN_FRAME
from wire.mailbox_codes import ACK_MAX, BODY_MAX, ENV_MIN, LEASE_ROOM, TOKEN_MAX, MailboxCommand, Word

R, REQUEST = 0x01020304, b"\x04\x03\x02\x01"
X, SECRET, DIGEST, STAMP = bytes(range(32)), bytes(range(32, 64)), bytes(range(16)), bytes(range(17))
ENV = bytes(range(136))

FOR: list[tuple[int, c.ForMailbox, bytes]] = [
    (0x01, c.Store(X, ENV), X + ENV),
    (0x02, Word(0x02), b""),
    (0x03, c.Delete(X, ENV), X + ENV),
    (0x70, c.Deposit(R, X, 5, DIGEST, b"", STAMP), REQUEST + X + b"\5\0\0\0" + DIGEST + STAMP + b"\0"),
    (0x70, c.Deposit(R, X, 0, DIGEST, b"blob", token=b"t"), REQUEST + X + bytes(4) + DIGEST + bytes(17) + b"\1tblob"),
    (0x71, c.Fetch(R, 0x0102), REQUEST + b"\2\1"),
    (0x72, c.Ack(R, ()), REQUEST + bytes(4)),
    (0x72, c.Ack(R, (1, 2**64 - 1), 3), REQUEST + b"\3\0\0\0" + b"\1" + bytes(7) + b"\xff" * 8),
    (0x73, c.List(R), REQUEST),
    (0x74, c.Drop(R, X, SECRET), REQUEST + X + SECRET),
    (0x75, c.Info(R), REQUEST),
    (0x76, c.Restore(R), REQUEST),
]
FROM: list[tuple[int, a.FromMailbox, bytes]] = [
    (0x10, a.Delivery(ENV), ENV),
    *((code, Word(code), b"") for code in range(0x11, 0x17)),
    (0x78, a.Kept(R, 7), REQUEST + b"\7\0\0\0"),
    (0x79, a.Lease(R, 60, 2, ()), REQUEST + b"\x3c\0\2\0\0\0" + bytes(12)),
    (
        0x79,
        a.Lease(R, 1, 0, (a.Item(9, 1, 8, b"ab"), a.Item(10, 0, 0, b"")), 4, 5),
        REQUEST
        + b"\1\0\0\0\0\0\4\0\0\0\5"
        + bytes(7)
        + (b"\x09" + bytes(7) + b"\1\x08\0\0\0\2\0\0\0ab")
        + (b"\x0a" + bytes(7) + bytes(9)),
    ),
    (0x7A, a.Acked(R, 7), REQUEST + b"\7\0\0\0"),
    (
        0x7B,
        a.Counts(R, 1, 2, 3, 4, 5, 6),
        REQUEST + b"\1\0\0\0\2" + bytes(7) + b"\3\0\0\0\4\0\0\0\5\0\0\0\6" + bytes(7),
    ),
    (0x7C, a.Dropped(R, True), REQUEST + b"\1"),
    (
        0x7D,
        a.About(R, 1, 2, 1, 3, 4, 5, 6, 7),
        REQUEST + b"\1" + bytes(7) + b"\2\1\3\0\0\0\4\0\0\0\5\0\0\0\6\0\0\0\7" + bytes(7),
    ),
    (0x7E, a.Refused(R, 5, 20), REQUEST + b"\5\x14"),
    (0x7F, a.Restored(R, 7), REQUEST + b"\7\0\0\0"),
]


@pytest.mark.parametrize(("code", "body", "literal"), FOR, ids=lambda value: type(value).__name__)
def test_one_literal_to_a_mailbox(code: int, body: c.ForMailbox, literal: bytes) -> None:
    assert body.command == code
    assert body.encode() == literal
    assert c.parse_for_mailbox(code, literal) == body


@pytest.mark.parametrize(("code", "body", "literal"), FROM, ids=lambda value: type(value).__name__)
def test_one_literal_from_a_mailbox(code: int, body: a.FromMailbox, literal: bytes) -> None:
    assert body.command == code
    assert body.encode() == literal
    assert a.parse_from_mailbox(code, literal) == body


def test_every_code_goes_one_way() -> None:
    to, back = {code for code, *_ in FOR}, {code for code, *_ in FROM}
    assert to | back == set(MailboxCommand)
    assert not to & back
    for code in range(256):
        if code not in to:
            assert c.parse_for_mailbox(code, b"\xff") == Unknown(code, b"\xff")
        if code not in back:
            assert a.parse_from_mailbox(code, b"\xff") == Unknown(code, b"\xff")


FIXED = [(code, literal) for code, _, literal in FOR if code not in (0x01, 0x02, 0x03, 0x70, 0x72)]


@pytest.mark.parametrize(
    ("code", "body"),
    [
        *((code, literal[:-1]) for code, literal in FIXED),
        *((code, literal + b"\0") for code, literal in FIXED),
        (0x01, X + ENV[:-1]),
        (0x03, b""),
        (0x70, FOR[3][2][:-1]),
        (0x70, FOR[3][2][:-1] + b"\1"),  # a token that is not there
        (0x70, FOR[3][2][:-1] + bytes((TOKEN_MAX + 1,)) + bytes(TOKEN_MAX + 1)),
        (0x72, REQUEST + bytes(3)),
        (0x72, REQUEST + bytes(4) + bytes(7)),
        (0x72, REQUEST + bytes(4) + bytes(8 * (ACK_MAX + 1))),
    ],
)
def test_what_does_not_fit_to_a_mailbox(code: int, body: bytes) -> None:
    with pytest.raises(BadBody):
        c.parse_for_mailbox(code, body)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        *((code, literal[:-1]) for code, _, literal in FROM if literal),
        *((code, literal + b"\0") for code, _, literal in FROM if code not in (0x10, *range(0x11, 0x17), 0x7D)),
        (0x7C, REQUEST + b"\2"),
    ],
)
def test_what_does_not_fit_from_a_mailbox(code: int, body: bytes) -> None:
    with pytest.raises(BadBody):
        a.parse_from_mailbox(code, body)


def test_a_later_version_may_tell_more_about_itself() -> None:
    _, about, literal = next(entry for entry in FROM if entry[0] == 0x7D)
    assert a.parse_from_mailbox(0x7D, literal + b"more") == about


@pytest.mark.parametrize(
    "body",
    [
        c.Store(X[1:], ENV),
        c.Store(X, ENV[1:]),
        c.Deposit(-1, X, 0, DIGEST, b""),
        c.Deposit(R, X[1:], 0, DIGEST, b""),
        c.Deposit(R, X, 1 << 32, DIGEST, b""),
        c.Deposit(R, X, 0, b"", b""),
        c.Deposit(R, X, 0, DIGEST, b"", stamp=b""),
        c.Deposit(R, X, 0, DIGEST, b"", token=bytes(TOKEN_MAX + 1)),
        c.Fetch(R, 1 << 16),
        c.Ack(R, (1 << 64,)),
        c.Ack(R, (1,) * (ACK_MAX + 1)),
        c.Drop(R, X, b""),
        a.Delivery(ENV[1:]),
        a.Lease(R, 0, 0, (a.Item(0, 0, 0, bytes(LEASE_ROOM - 16)),)),
        a.Refused(R, 256),
    ],
)
def test_what_we_must_not_say(body: Body) -> None:
    with pytest.raises(LocalError):
        body.encode()


def test_sizes_fit_a_frame() -> None:
    largest = c.encode_for_mailbox(c.Deposit(R, X, 0, DIGEST, bytes(SIZE_CLASSES[-1]), token=bytes(TOKEN_MAX)))
    assert len(largest) + MIN_FRAME <= MAX_FRAME
    three = a.Lease(R, 0, 0, (a.Item(0, 0, 0, bytes(SIZE_CLASSES[-1])),) * 3)
    assert len(c.encode_for_mailbox(three)) + MIN_FRAME <= MAX_FRAME
    full = a.Lease(R, 0, 0, (a.Item(0, 0, 0, bytes(LEASE_ROOM - 17)),))
    assert full.items[0].size == LEASE_ROOM
    assert len(full.encode()) == BODY_MAX
    assert len(c.encode_for_mailbox(full)) + MIN_FRAME == MAX_FRAME
    assert len(c.Ack(R, (0,) * ACK_MAX).encode()) < BODY_MAX
    assert ENV_MIN == 136


def test_the_plaintext_of_a_packet() -> None:
    assert parse_inner(c.encode_for_mailbox(c.Info(R), 7)) == (7, 0x75, REQUEST)


def test_a_request_that_does_not_parse_can_be_answered() -> None:
    assert c.request_of(REQUEST + b"nonsense") == R
    assert c.request_of(REQUEST[:-1]) is None


@given(st.integers(0, 255), st.binary(max_size=400))
def test_any_bytes_give_a_value_that_says_the_same(code: int, raw: bytes) -> None:
    for parse in (c.parse_for_mailbox, a.parse_from_mailbox):
        try:
            body = parse(code, raw)
        except BadBody:
            continue
        assert parse(body.command, body.encode()) == body


@pytest.mark.parametrize("count", [*range(0x70, 0x77), *range(0x78, 0x80)])
def test_most_random_bodies_of_one_code(count: int) -> None:
    """Of lengths that some layouts have, so that the property above is not only about refusals."""
    parse = c.parse_for_mailbox if count < 0x78 else a.parse_from_mailbox
    parsed = 0
    for size in range(120):
        raw = bytes((7 * at + size) % 3 for at in range(size))
        try:
            body = parse(count, raw)
        except BadBody:
            continue
        parsed += 1
        assert parse(count, body.encode()) == body
    assert parsed


def test_keys_and_contents_stay_out_of_repr() -> None:
    secret = b"secret, and 26 bytes more ....."[:32].ljust(32, b".")
    shown = repr(
        [
            c.Store(secret, secret * 5),
            c.Deposit(R, secret, 0, secret[:16], secret, secret[:17], secret),
            c.Drop(R, secret, secret),
            a.Delivery(secret * 5),
            a.Item(1, 0, 0, secret),
        ]
    )
    assert "secret" not in shown
