"""Replay memory, token buckets and allowances."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.guard import Allowance, Buckets, ReplayMemory, Seldom, Tally
from tests.wire.pair import Counted

ALICE: Final = b"a" * 32
MALLORY: Final = b"m" * 32


def nonce(number: int) -> bytes:
    return number.to_bytes(24, "big")


def memory(ring: int = 4, keys: int = 3) -> ReplayMemory:
    return ReplayMemory(ring, keys, Counted("memory"))


def contents(thing: object) -> Iterator[bytes]:
    """Yield every byte string that an object holds, but for its secret."""
    values: list[Any] = [value for name, value in vars(thing).items() if name != "_secret"]
    while values:
        value = values.pop()
        if isinstance(value, bytes):
            yield value
        elif isinstance(value, dict):
            values += [*value, *value.values()]
        elif isinstance(value, tuple | list):
            values += value


# --- Replay memory ---------------------------------------------------------------------------------------------------


def test_a_nonce_is_new_once() -> None:
    seen = memory()
    assert seen.first_time(ALICE, nonce(1))
    assert not seen.first_time(ALICE, nonce(1))
    assert seen.first_time(ALICE, nonce(2))
    assert not seen.first_time(ALICE, nonce(1))


def test_the_same_nonce_of_another_key_is_another() -> None:
    seen = memory()
    assert seen.first_time(ALICE, nonce(1))
    assert seen.first_time(MALLORY, nonce(1))


def test_a_ring_holds_exactly_so_many_and_forgets_the_oldest_first() -> None:
    seen = memory(ring=4)
    for number in range(4):
        assert seen.first_time(ALICE, nonce(number))
    assert not any(seen.first_time(ALICE, nonce(number)) for number in range(4))
    assert seen.first_time(ALICE, nonce(4))
    assert not any(seen.first_time(ALICE, nonce(number)) for number in (1, 2, 3, 4))
    assert seen.first_time(ALICE, nonce(0))


def test_a_repetition_does_not_use_up_the_ring() -> None:
    seen = memory(ring=2)
    seen.first_time(ALICE, nonce(1))
    seen.first_time(ALICE, nonce(2))
    for _ in range(10):
        assert not seen.first_time(ALICE, nonce(2))
    assert not seen.first_time(ALICE, nonce(1))


def test_nobody_flushes_anothers_ring_by_filling_their_own() -> None:
    seen = memory(ring=4)
    seen.first_time(ALICE, nonce(1))
    for number in range(1000):
        assert seen.first_time(MALLORY, nonce(number))
    assert not seen.first_time(ALICE, nonce(1))


def test_the_least_recently_used_key_goes_first() -> None:
    seen = memory(keys=3)
    keys = [bytes([number]) * 32 for number in range(4)]
    for key in keys[:3]:
        seen.first_time(key, nonce(1))
    assert not seen.first_time(keys[0], nonce(1))  # a repetition is use too
    seen.first_time(keys[3], nonce(1))
    assert len(seen) == 3
    assert not seen.first_time(keys[0], nonce(1))
    assert not seen.first_time(keys[2], nonce(1))
    assert seen.first_time(keys[1], nonce(1))


def test_the_memory_stays_within_its_bounds() -> None:
    seen = memory(ring=4, keys=3)
    for number in range(500):
        seen.first_time(bytes([number % 7]) * 32, nonce(number))
    assert len(seen) == 3
    assert all(len(ring) <= 4 * 8 for ring in seen._held.values())


def test_the_memory_names_nobody_and_no_nonce() -> None:
    seen = memory()
    seen.first_time(ALICE, nonce(0x0102030405060708))
    held = list(contents(seen))
    assert held
    for each in held:
        assert each not in ALICE
        assert each[:8] not in nonce(0x0102030405060708)
        assert ALICE[:8] not in each


def test_a_nonce_looks_different_under_each_key() -> None:
    seen = memory()
    seen.first_time(ALICE, nonce(1))
    seen.first_time(MALLORY, nonce(1))
    assert len(set(contents(seen))) == 4


def test_digests_differ_from_process_to_process() -> None:
    one, two = memory(), ReplayMemory(4, 3, Counted("another"))
    one.first_time(ALICE, nonce(1))
    two.first_time(ALICE, nonce(1))
    assert not set(contents(one)) & set(contents(two))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=60))
@settings(deadline=None)
def test_against_a_model(uses: list[tuple[int, int]]) -> None:
    seen = memory(ring=3, keys=2)
    model: dict[int, list[int]] = {}
    for key, number in uses:
        ring = model.pop(key, [])
        expected = number not in ring
        model[key] = (ring + [number] * expected)[-3:]
        if len(model) > 2:
            del model[next(iter(model))]
        assert seen.first_time(bytes([key]) * 32, nonce(number)) is expected


# --- What is handed over ---------------------------------------------------------------------------------------------


def handed_over(one: ReplayMemory, other: ReplayMemory) -> None:
    for key in one.latest():
        other.inherit(key, one.ring(key))


def test_a_memory_that_is_handed_over_is_the_same() -> None:
    one, other = memory(), memory()
    for number in range(9):
        one.first_time(bytes([number % 4]) * 32, nonce(number))
    handed_over(one, other)
    assert list(other._held.items()) == list(one._held.items())


def test_what_is_taken_over_is_older_than_what_is_here() -> None:
    one, other = memory(ring=3, keys=3), memory(ring=3, keys=3)
    for number in (1, 2, 3):
        one.first_time(ALICE, nonce(number))
    for key in (MALLORY, b"b" * 32, b"c" * 32):
        one.first_time(key, nonce(1))
    for number in (3, 4):
        other.first_time(ALICE, nonce(number))
    one.first_time(ALICE, nonce(1))
    handed_over(one, other)
    # Of Alice one of those that only the other had fits in, the youngest of them; and of the keys those used last.
    assert not any(other.first_time(ALICE, nonce(number)) for number in (3, 4))
    assert len(other) == 3
    assert not other.first_time(b"c" * 32, nonce(1))
    assert list(other._held) == [one.digest(key) for key in (b"b" * 32, ALICE, b"c" * 32)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 5)), max_size=60))
@settings(deadline=None)
def test_whatever_either_had_is_known_after_it(uses: list[tuple[bool, int, int]]) -> None:
    one, other = memory(ring=8, keys=8), memory(ring=8, keys=8)
    for first, key, number in uses:
        (one if first else other).first_time(bytes([key]) * 32, nonce(number))
    handed_over(one, other)
    for _, key, number in uses:
        assert not other.first_time(bytes([key]) * 32, nonce(number))


# --- Buckets ---------------------------------------------------------------------------------------------------------


def buckets(rate: float = 2.0, burst: int = 3, keys: int = 100) -> Buckets:
    return Buckets(rate, burst, keys, Counted("buckets"))


def test_a_burst_and_then_the_rate() -> None:
    rate = buckets()
    assert [rate.allow(b"a", 10.0) for _ in range(4)] == [True, True, True, False]
    assert not rate.allow(b"a", 10.4)
    assert rate.allow(b"a", 10.5)
    assert not rate.allow(b"a", 10.5)


def test_a_refusal_costs_nothing() -> None:
    rate = buckets(rate=1.0, burst=1)
    assert rate.allow(b"a", 0.0)
    assert not any(rate.allow(b"a", tenth / 10) for tenth in range(10))
    assert rate.allow(b"a", 1.0)


def test_no_more_than_a_burst_is_saved_up() -> None:
    rate = buckets()
    rate.allow(b"a", 0.0)
    assert [rate.allow(b"a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_each_key_has_its_own_bucket() -> None:
    rate = buckets(burst=1)
    assert rate.allow(b"a", 0.0)
    assert rate.allow(b"b", 0.0)
    assert not rate.allow(b"a", 0.0)


def test_a_rate_of_zero_allows_everything_and_remembers_nothing() -> None:
    rate = buckets(rate=0.0, burst=1)
    assert all(rate.allow(b"a", 0.0) for _ in range(1000))
    assert len(rate) == 0
    rate.forget_full(0.0)


def test_buckets_are_bounded_and_the_least_recently_used_goes_first() -> None:
    rate = buckets(burst=1, keys=2)
    assert rate.allow(b"a", 0.0)
    assert rate.allow(b"b", 0.0)
    assert not rate.allow(b"a", 0.0)
    assert rate.allow(b"c", 0.0)
    assert len(rate) == 2
    assert not rate.allow(b"a", 0.0)
    assert rate.allow(b"b", 0.0)


def test_full_buckets_are_forgotten() -> None:
    rate = buckets(rate=2.0, burst=3)
    rate.allow(b"a", 0.0)
    rate.allow(b"b", 1.0)
    rate.forget_full(1.4)
    assert len(rate) == 2
    rate.forget_full(1.5)
    assert len(rate) == 1
    rate.forget_full(2.5)
    assert len(rate) == 0


def test_forgetting_forgives_nothing() -> None:
    rate = buckets(rate=2.0, burst=3)
    for _ in range(3):
        rate.allow(b"a", 0.0)
    rate.forget_full(1.4)
    assert [rate.allow(b"a", 1.4) for _ in range(3)] == [True, True, False]


def test_what_is_missing_in_another_bucket_is_missing_here() -> None:
    one, other = buckets(rate=2.0, burst=4), buckets(rate=2.0, burst=4)
    digest = one.digest(b"a")
    for _ in range(4):
        assert one.allow(b"a", 0.0)
    assert one.missing(digest, 0.5) == 3.0
    other.missing_elsewhere(digest, one.missing(digest, 0.5), 0.5)
    assert [other.allow(b"a", 0.5) for _ in range(2)] == [True, False]
    # What is told twice counts once, and what is told late takes nothing back.
    other.missing_elsewhere(digest, 3.0, 0.5)
    assert other.missing(digest, 0.5) == 4.0
    assert other.wait(b"a", 0.5) == 0.5
    # More than there can be is a debt of one burst at most.
    other.missing_elsewhere(digest, 1e9, 0.5)
    assert other.missing(digest, 0.5) == 8.0


def test_without_a_rate_nothing_is_missing() -> None:
    rate = buckets(rate=0.0)
    rate.missing_elsewhere(b"a" * 16, 5.0, 0.0)
    assert rate.missing(b"a" * 16, 0.0) == 0.0
    assert len(rate) == 0


def test_buckets_name_nobody() -> None:
    rate = buckets()
    rate.allow(b"198.51.100.7", 0.0)
    assert not any(b"198.51" in each or each in b"198.51.100.7" for each in contents(rate))


# --- Allowances ------------------------------------------------------------------------------------------------------


def test_an_allowance_is_overdrawn_and_paid_back_by_waiting() -> None:
    allowance = Allowance(rate=10.0, burst=5.0, now=0.0)
    assert allowance.left == 5.0
    allowance.left -= 5
    assert allowance.debt(0.0) == 0.0
    allowance.left -= 4
    assert allowance.debt(0.0) == pytest.approx(0.4)
    assert allowance.debt(0.1) == pytest.approx(0.3)
    assert allowance.debt(0.4) == pytest.approx(0.0)


def test_an_allowance_saves_up_no_more_than_its_burst() -> None:
    allowance = Allowance(rate=10.0, burst=5.0, now=0.0)
    assert allowance.debt(100.0) == 0.0
    assert allowance.left == 5.0


def test_without_a_rate_there_is_no_debt() -> None:
    allowance = Allowance(rate=0.0, burst=5.0, now=0.0)
    allowance.left -= 1_000_000
    assert allowance.debt(0.0) == 0.0
    assert allowance.left > 0


# --- What else buckets and memories tell -----------------------------------------------------------------------------


def test_the_wait_for_a_token_is_told_and_takes_none() -> None:
    rate = buckets(rate=0.5, burst=1)
    assert rate.wait(b"a", 0.0) == 0.0
    assert len(rate) == 0
    assert rate.allow(b"a", 0.0)
    assert rate.wait(b"a", 0.0) == 2.0
    assert rate.wait(b"a", 1.5) == 0.5
    assert not rate.allow(b"a", 1.5)
    assert rate.wait(b"a", 2.0) == 0.0
    assert rate.wait(b"b", 0.0) == 0.0
    assert rate.allow(b"a", 2.0)


def test_there_is_no_wait_where_there_is_no_rate() -> None:
    rate = buckets(rate=0.0, burst=1)
    rate.allow(b"a", 0.0)
    assert rate.wait(b"a", 0.0) == 0.0


@given(st.floats(0.01, 50), st.integers(1, 5), st.lists(st.floats(0, 3), max_size=30))
def test_the_wait_is_honest(speed: float, burst: int, pauses: list[float]) -> None:
    rate, now = buckets(rate=speed, burst=burst), 0.0
    for pause in pauses:
        now += pause
        wait = rate.wait(b"a", now)
        if wait > 1e-6:
            assert not rate.allow(b"a", now)
            assert rate.wait(b"a", now + wait + 1e-6) == pytest.approx(0.0, abs=1e-6)
        elif wait == 0.0:
            assert rate.allow(b"a", now)


def test_who_is_known_at_one_moment() -> None:
    seen = memory(keys=2)
    seen.first_time(ALICE, nonce(1))
    known = seen.known([b"c" * 32])
    assert known(ALICE)
    assert known(b"c" * 32)
    assert not known(MALLORY)
    seen.first_time(MALLORY, nonce(1))
    assert not known(MALLORY)
    assert seen.known()(MALLORY)


# --- Tallies ---------------------------------------------------------------------------------------------------------


def tally(most: int = 2, *, clear: bool = False) -> Tally:
    return Tally(most, Counted("tally"), clear=clear)


def test_connections_of_an_address_are_counted_and_given_back() -> None:
    doors = tally()
    one, two = doors.take(b"abcd"), doors.take(b"abcd")
    assert one is not None
    assert one is two  # one object for all: it weighs on each of a hundred thousand
    assert doors.take(b"abcd") is None
    assert doors.take(b"abce") is not None
    assert (doors.total, len(doors)) == (3, 2)
    doors.release(one)
    assert doors.take(b"abcd") is one
    for _ in range(2):
        doors.release(one)
    assert (doors.total, len(doors)) == (1, 1)


def test_nobody_in_particular_is_counted_with_all_and_never_too_many() -> None:
    doors = tally(1)
    places = [doors.take(b"") for _ in range(5)]
    assert all(place is not None for place in places)
    assert (doors.total, len(doors)) == (5, 0)
    for place in places:
        assert place is not None
        doors.release(place)
    assert doors.total == 0


def test_a_tally_that_is_switched_off_still_counts() -> None:
    doors = tally(0)
    assert all(doors.take(b"abcd") is not None for _ in range(100))
    assert doors.total == 100


def test_a_tally_names_nobody_unless_lists_need_it() -> None:
    place = tally().take(b"\xc6\x33\x64\x07")
    assert place is not None
    assert b"\xc6\x33" not in place.key
    place = tally(clear=True).take(b"\xc6\x33\x64\x07")
    assert place is not None
    assert place.key == b"\xc6\x33\x64\x07"


def test_what_is_said_seldom() -> None:
    seldom = Seldom(10.0)
    assert [seldom.due(now) for now in (3.0, 3.0, 12.9, 13.0, 14.0, 100.0)] == [True, False, False, True, False, True]
