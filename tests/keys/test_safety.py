"""Safety numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.identity import Identity, PublicIdentity
from keys.safety import SAFETY_DIGITS, fingerprint, grouped, parse_safety_number, safety_number
from tests.keys.known import ALICE, BOB

ALICES = "008926661828140168849132462347"
BOBS = "758936508818651185915520184994"

seeds = st.binary(min_size=32, max_size=32)
parties = st.builds(lambda x, ed: Identity(x, ed).public, seeds, seeds)


def test_vector() -> None:
    """Of the parties of tests/vectors/v2.json; docs/chat.md repeats it for other programs."""
    assert fingerprint(ALICE.public) == ALICES
    assert fingerprint(BOB.public) == BOBS
    assert safety_number(ALICE.public, BOB.public) == "".join(sorted((ALICES, BOBS)))


@given(parties, parties)
def test_both_see_the_same_60_digits(one: PublicIdentity, other: PublicIdentity) -> None:
    number = safety_number(one, other)
    assert number == safety_number(other, one)
    assert len(number) == SAFETY_DIGITS
    assert number.isascii()
    assert number.isdigit()
    assert fingerprint(one) in (number[:30], number[30:])


@given(parties, parties, seeds)
def test_each_key_counts(one: PublicIdentity, other: PublicIdentity, seed: bytes) -> None:
    stranger = Identity(seed, seed).public
    number = safety_number(one, other)
    for false in (PublicIdentity(stranger.x_pub, other.ed_pub), PublicIdentity(other.x_pub, stranger.ed_pub)):
        assert (safety_number(one, false) == number) == (false == other)


@given(parties, parties)
def test_what_is_shown_can_be_read_back(one: PublicIdentity, other: PublicIdentity) -> None:
    number = safety_number(one, other)
    shown = grouped(number)
    assert [len(group) for group in shown.split(" ")] == [5] * 12
    assert parse_safety_number(shown) == number
    assert parse_safety_number(shown.replace(" ", "\n") + "\n") == number


@pytest.mark.parametrize("text", ["", "1" * 59, "1" * 61, "x" + "1" * 59, "１" * 60, "²" * 60])
def test_other_texts_are_no_safety_number(text: str) -> None:
    assert parse_safety_number(text) is None
