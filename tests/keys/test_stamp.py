"""Stamps: what they bind, and what is wrong with those that are not taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.stamp import BITS_MAX, NO_STAMP, STAMP_SIZE, WINDOW, StampFault, check_stamp, mint_stamp, stamp_time
from tests.keys.known import ALICE, BOB, NOTIFIER, ROOT, drawn, unhex

KNOWN = json.loads((ROOT / "tests" / "vectors" / "mailbox.json").read_text("utf-8"))["stamp"]
NOW = 1_700_000_000_000
MAILBOX, RECIPIENT, BODY = NOTIFIER.public.x_pub, BOB.public.x_pub, b"the deposit"


def check(stamp: bytes, bits: int, **changed: Any) -> StampFault | None:
    arguments: dict[str, Any] = {"mailbox_x_pub": MAILBOX, "recipient_x_pub": RECIPIENT, "body": BODY, "now": NOW}
    return check_stamp(stamp, bits=bits, **(arguments | changed))


def mint(bits: int, now: int = NOW) -> bytes:
    return mint_stamp(MAILBOX, RECIPIENT, BODY, now, bits)


@pytest.mark.parametrize("case", KNOWN["cases"], ids=lambda case: str(case["bits"]))
def test_the_recorded_stamps(case: dict[str, Any]) -> None:
    first = KNOWN["first_count"].to_bytes(8, "little")
    stamp = mint_stamp(MAILBOX, RECIPIENT, unhex(KNOWN["body"]), KNOWN["now"], case["bits"], drawn(first))
    assert stamp.hex() == case["stamp"]
    assert check(stamp, case["bits"]) is None
    assert stamp_time(stamp) == KNOWN["now"]


def test_bits() -> None:
    stamp = mint(9)
    assert len(stamp) == STAMP_SIZE
    assert [check(stamp, bits) for bits in (0, 8, 9)] == [None] * 3
    assert check(stamp, 10) is StampFault.CHEAP
    assert check(NO_STAMP, 1) is check(b"", 1) is check(stamp + b"\0", 1) is StampFault.CHEAP
    assert check(NO_STAMP, 0) is check(b"anything", 0) is None


def test_the_bits_aimed_at_are_committed() -> None:
    """A stamp is not worth what it was not aimed at: neither more, were it by luck, nor less."""
    stamp = unhex(KNOWN["cases"][2]["stamp"])
    assert check(stamp, 1) is None
    for bits in (*range(4, 16), *range(17, BITS_MAX + 2), 255):
        assert check(stamp[:8] + bytes((bits,)) + stamp[9:], 1) is StampFault.WRONG


@pytest.mark.parametrize(
    "changed", [{"mailbox_x_pub": BOB.public.x_pub}, {"recipient_x_pub": ALICE.public.x_pub}, {"body": b"another"}]
)
def test_what_a_stamp_binds(changed: dict[str, Any]) -> None:
    stamp = mint(16)
    assert check(stamp, 16) is None
    assert check(stamp, 16, **changed) is StampFault.WRONG


def test_time() -> None:
    stamp = mint(16)
    assert check(stamp, 16, now=NOW + WINDOW) is check(stamp, 16, now=NOW - WINDOW) is None
    assert check(stamp, 16, now=NOW + WINDOW + 1) is check(stamp, 16, now=NOW - WINDOW - 1) is StampFault.TIME
    later = (NOW + 1).to_bytes(8, "little") + stamp[8:]
    assert check(later, 16) is StampFault.WRONG


@pytest.mark.parametrize("bits", [-1, BITS_MAX + 1, 255])
def test_nobody_works_for_ever(bits: int) -> None:
    with pytest.raises(ValueError, match=str(BITS_MAX)):
        mint(bits)


def test_the_count_goes_round() -> None:
    stamp = mint_stamp(MAILBOX, RECIPIENT, BODY, NOW, 6, drawn(b"\xff" * 8))
    assert check(stamp, 6) is None


@given(st.binary(max_size=40), st.integers(1, 255))
def test_any_bytes_give_a_verdict(stamp: bytes, bits: int) -> None:
    assert check(stamp, bits) in {*StampFault, None}
