"""The plaintext of a packet."""

import pytest

from wire.errors import BadFrame, LocalError
from wire.inner import Inner, parse_inner


@pytest.mark.parametrize(
    ("inner", "literal"),
    [
        (Inner(0, 0x4A, b""), b"\x00\x00\x4a"),
        (Inner(0x0102, 0x20, b"body"), b"\x02\x01\x20body"),
        (Inner(0xFFFF, 0xFF, b"\x00"), b"\xff\xff\xff\x00"),
        (Inner(1, 0, b""), b"\x01\x00\x00"),
    ],
)
def test_one_literal_both_ways(inner: Inner, literal: bytes) -> None:
    assert inner.encode() == literal
    assert parse_inner(literal) == inner


@pytest.mark.parametrize("literal", [b"", b"\x00", b"\x00\x00"])
def test_too_short(literal: bytes) -> None:
    with pytest.raises(BadFrame):
        parse_inner(literal)


@pytest.mark.parametrize(("message_id", "command"), [(-1, 0), (0x10000, 0), (0, -1), (0, 0x100)])
def test_out_of_range_is_our_bug(message_id: int, command: int) -> None:
    with pytest.raises(LocalError):
        Inner(message_id, command, b"").encode()


def test_repr_does_not_show_the_body() -> None:
    assert repr(Inner(7, 0x20, b"SECRET")) == "Inner(message_id=7, command=32)"
    assert "SECRET" not in str([Inner(7, 0x20, b"SECRET")])
