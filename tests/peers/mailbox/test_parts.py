"""The pure parts: the clock, what is used once, rates, prices, leases, access, limits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.stamp import BITS_MAX
from peers.mailbox import unmarked
from peers.mailbox.clock import FASTEST, SLOWEST, MailboxClock
from peers.mailbox.leases import Leases
from peers.mailbox.once import UsedOnce
from peers.mailbox.price import TOLD, Price, PriceList
from peers.mailbox.quotas import Budgets, Rate, address_key
from peers.mailbox.rules import (
    DAY,
    HOUR,
    AccessRule,
    Limits,
    Refused,
    Usage,
    check_recipient,
    check_size,
    expiry,
    token_digest,
)
from peers.mailbox.store import StoreFull
from tests.keys.known import NOT_CANONICAL_X
from tests.support.clients import run_async
from wire.mailbox_codes import Access, ItemKind, Reason

# --- The clock --------------------------------------------------------------------------------------------------------


def test_a_true_clock_is_followed() -> None:
    clock = MailboxClock(1_000_000, 50.0)
    for second in range(1, 100):
        assert clock.at(1_000_000 + 1000 * second, 50.0 + second) == (1_000_000 + 1000 * second, 50.0 + second)


def test_hours_ahead_for_an_hour() -> None:
    clock, jump = MailboxClock(0, 0.0), 5 * HOUR
    assert clock.at(jump, 0.0).now == 0  # no time has passed, whatever the clock says
    for minute in range(1, 61):
        now = clock.at(jump + minute * 60_000, minute * 60.0).now
    assert now == 2 * HOUR  # an hour too much, and not five
    for minute in range(61, 61 + 120):
        now = clock.at(minute * 60_000, minute * 60.0).now
    assert now == 3 * HOUR  # right again after two more


def test_hours_behind() -> None:
    clock = MailboxClock(10 * HOUR, 0.0)
    assert clock.at(4 * HOUR, 60.0).now == 10 * HOUR + 30_000  # slower, and never back
    for minute in range(2, 12 * 60 + 1):
        now = clock.at(4 * HOUR + minute * 60_000, minute * 60.0).now
    assert now == 16 * HOUR


@given(st.lists(st.tuples(st.floats(-1e15, 1e15), st.floats(-10, 100_000)), max_size=50))
def test_it_goes_on_within_bounds_whatever_the_clock_says(steps: list[tuple[float, float]]) -> None:
    clock, tick, before = MailboxClock(1e12, 0.0), 0.0, int(1e12)
    for wall, passed in steps:
        at = clock.at(wall, tick + passed)
        real = max(0.0, passed) * 1000
        assert real * SLOWEST - 1 <= at.now - before <= real * FASTEST + 1
        assert at.tick >= tick
        tick, before = at.tick, at.now


# --- Once -------------------------------------------------------------------------------------------------------------


def test_once_and_again_after_it_did_not_happen() -> None:
    once = UsedOnce(10, 100)
    assert once.use(b"a", 5, 5)
    assert not once.use(b"a", 5, 5)
    once.unuse(b"a")
    assert once.use(b"a", 5, 6)
    assert not once.use(b"a", 5, 6)


def test_what_is_given_back_again_and_again_takes_no_room_of_others() -> None:
    once = UsedOnce(3, 100)
    assert once.use(b"early", 1, 5)
    for _ in range(10):
        assert once.use(b"a", 5, 5)
        once.unuse(b"a")
    assert len(once) == 2
    assert not once.too_old(1)
    assert not once.use(b"early", 1, 5)


def test_what_is_too_old_is_forgotten() -> None:
    once = UsedOnce(10, 100)
    once.use(b"a", 5, 5)
    once.use(b"b", 106, 106)
    assert len(once) == 1


def test_what_is_given_back_takes_no_second_place() -> None:
    """Else one stamp, of a time to come, that buys nothing without end would make all others be refused."""
    once = UsedOnce(10, 100)
    assert once.use(b"honest", 5, 5)
    for _ in range(50):
        assert once.use(b"dated ahead", 90, 5)
        once.unuse(b"dated ahead")
    assert len(once) == 2
    assert not once.too_old(6)
    assert once.use(b"another", 6, 6)
    assert not once.use(b"honest", 5, 6)
    assert once.use(b"dated ahead", 90, 6)
    assert not once.use(b"dated ahead", 90, 7)


def test_a_full_memory_shortens_the_time_and_lets_nothing_be_used_twice() -> None:
    once = UsedOnce(2, 100)
    assert [once.use(bytes((time,)), time, 10) for time in (3, 1, 2)] == [True] * 3
    assert len(once) == 2
    assert once.too_old(1)
    assert not once.use(b"new", 1, 10)
    assert not once.too_old(2)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), max_size=60), st.integers(1, 5))
def test_never_twice(uses: list[tuple[int, int]], size: int) -> None:
    """A thing bears one time, and its caller takes it for `lifetime` from then."""
    once, now, taken = UsedOnce(size, 10), 0, set()
    for thing, passed in uses:
        now += passed
        if now - thing > 10:
            continue  # the caller does not take it any more
        if once.use(bytes((thing,)), thing, now):
            assert thing not in taken
            taken.add(thing)
        assert len(once) <= size


# --- Rates ------------------------------------------------------------------------------------------------------------


def test_a_budget_is_spent_and_fills_again() -> None:
    budgets = Budgets(Rate(items=3, size=100, period=30.0), keys=10)
    assert [budgets.spend(b"a", 10, 0.0) for _ in range(4)] == [True, True, True, False]
    assert budgets.spend(b"b", 100, 0.0)
    assert not budgets.spend(b"b", 1, 0.0)
    assert [budgets.spend(b"a", 10, 10.0), budgets.spend(b"a", 10, 10.0)] == [True, False]
    assert [budgets.spend(b"b", 34, 10.0), budgets.spend(b"b", 33, 10.0)] == [False, True]
    assert not Budgets(Rate(3, 100, 1.0), 10).spend(b"a", 101, 0.0)


def test_a_clock_that_stands_gives_nothing() -> None:
    budgets = Budgets(Rate(items=1, size=100, period=30.0), keys=10)
    assert budgets.spend(b"a", 1, 100.0)
    assert not budgets.spend(b"a", 1, 0.0)


def test_no_more_keys_than_that() -> None:
    budgets = Budgets(Rate(items=1, size=100, period=30.0), keys=2)
    for key in (b"a", b"b", b"c"):
        budgets.spend(key, 1, 0.0)
    assert len(budgets) == 2
    assert not budgets.spend(b"c", 1, 0.0)
    assert len(Budgets(Rate(0, 0, 1.0), 2)) == 0
    assert Budgets(Rate(0, 0, 1.0), 2).spend(b"a", 1 << 60, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_what_an_address_counts_as(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same


# --- Prices -----------------------------------------------------------------------------------------------------------


def test_a_quiet_mailbox_costs_nothing() -> None:
    price = Price(PriceList())
    for second in range(500):
        price.count(second * 1.0)
        assert price.bits(second * 1.0, 0.0) == 0


def test_the_price_rises_with_the_rate_and_falls_again() -> None:
    price = Price(PriceList(base=2, most=22, busy=60))
    seen = []
    for at in range(3000):
        price.count(at / 10)  # ten each second: 600 a minute, ten times what is busy
        seen.append(price.bits(at / 10, 0.0))
    assert seen[0] == 2
    assert seen == sorted(seen)
    assert seen[-1] == 2 + 4
    assert price.bits(300.0 + 61, 0.0) == 2


@pytest.mark.parametrize(("full", "bits"), [(0.0, 1), (0.49, 1), (0.5, 3), (0.75, 5), (0.9, 9), (1.1, 9)])
def test_the_price_rises_as_the_mailbox_fills(full: float, bits: int) -> None:
    assert Price(PriceList(base=1)).bits(0.0, full) == bits
    assert Price(PriceList(base=1, most=4)).bits(0.0, full) == min(bits, 4)


def test_a_price_that_was_told_is_good_for_some_minutes() -> None:
    price = Price(PriceList())
    assert price.bits(0.0, 0.5) == 2
    assert price.bits(10.0, 0.9) == 8
    assert price.least(11.0, 0.9) == 2
    assert price.least(TOLD, 0.9) == 2
    assert price.least(TOLD + 0.1, 0.9) == 8
    assert price.least(TOLD + 0.2, 0.0) == 0


@pytest.mark.parametrize("wrong", [{"base": -1}, {"base": 5, "most": 4}, {"most": BITS_MAX + 1}, {"busy": 0}])
def test_prices_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"prices|busy"):
        PriceList(**wrong)


# --- Leases -----------------------------------------------------------------------------------------------------------


def test_leases_end() -> None:
    leases = Leases()
    leases.take(7, 1, 10.0)
    leases.take(7, 2, 20.0)
    leases.take(8, 1, 10.0)
    assert set(leases.out(7, 9.9)) == {1, 2}
    assert set(leases.out(7, 10.0)) == {2}
    leases.end(7, 2, 19.0)  # of another lease
    assert set(leases.out(7, 10.0)) == {2}
    leases.end(7, 2, 20.0)
    leases.end(7, 2)
    leases.end(9, 2)
    assert len(leases) == 1
    leases.sweep(10.0)
    assert len(leases) == 0


# --- Rules ------------------------------------------------------------------------------------------------------------


def refused(call: Any, *arguments: Any) -> Reason | None:
    try:
        call(*arguments)
    except Refused as refusal:
        return refusal.reason
    return None


def test_access() -> None:
    some = AccessRule(recipients=frozenset({b"r" * 32}))
    assert some.kind is Access.RECIPIENTS
    assert refused(some.check, b"r" * 32, b"") is None
    assert refused(some.check, b"s" * 32, b"token") is Reason.NOT_SERVED
    token = AccessRule(tokens=(token_digest(b"one"), token_digest(b"two")))
    assert token.kind is Access.TOKEN
    assert [refused(token.check, b"s" * 32, shown) for shown in (b"one", b"two")] == [None, None]
    assert [refused(token.check, b"s" * 32, shown) for shown in (b"", b"on", b"One")] == [Reason.TOKEN] * 3
    both = AccessRule(some.recipients, token.tokens)
    assert refused(both.check, b"s" * 32, b"") is Reason.TOKEN
    assert refused(both.check, b"s" * 32, b"one") is Reason.NOT_SERVED
    assert AccessRule().kind is Access.OPEN
    assert refused(AccessRule().check, b"s" * 32, b"") is None
    assert refused(AccessRule(recipients=frozenset()).check, b"s" * 32, b"") is Reason.NOT_SERVED


def test_ends_are_rounded_up_to_the_hour() -> None:
    limits = Limits()
    assert expiry(0, 0, limits) == 14 * DAY
    assert expiry(1, 0, limits) == 14 * DAY + HOUR
    assert expiry(HOUR - 1, 1, limits) == HOUR
    assert expiry(0, 400 * DAY, limits) == 30 * DAY


@given(st.integers(0, 1 << 42), st.integers(0, 1 << 42))
def test_nothing_ends_before_its_ttl(now: int, ttl: int) -> None:
    limits = Limits()
    held = expiry(now, ttl, limits) - now
    asked = min(ttl or limits.ttl, limits.ttl_max)
    assert asked <= held < asked + HOUR


def test_room() -> None:
    limits = Limits(recipient_items=2, recipient_bytes=1 << 20, total_items=3, total_bytes=2 << 20, item_bytes=1 << 18)
    assert Usage(1, 1000, 2, 1000).has_room(1024, limits)
    assert not Usage(2, 0, 2, 0).has_room(1024, limits)
    assert not Usage(1, (1 << 20) - 1023, 1, 1 << 20).has_room(1024, limits)
    assert not Usage(0, 0, 3, 0).has_room(1024, limits)
    assert not Usage(0, 0, 1, (2 << 20) - 1023).has_room(1024, limits)
    assert Usage(1, (1 << 20) - 1024, 2, (2 << 20) - 1024).has_room(1024, limits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": 0},
        {"ttl": 31 * DAY},
        {"item_bytes": 1023},
        {"item_bytes": (1 << 18) + 1},
        {"recipient_bytes": 1 << 17},
        {"total_bytes": 1 << 20},
        {"recipient_items": 0},
        {"recipient_items": 3_000_000},
        {"fetch_items": 0},
        {"fetch_items": 300},
        {"lease": 8.0},
    ],
    ids=str,
)
def test_limits_that_contradict_each_other(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Limits(**wrong)


def test_keys_and_sizes_that_are_none() -> None:
    for x_pub in [bytes.fromhex(key) for key in NOT_CANONICAL_X] + [bytes(32), bytes(8) + b"x" * 24, b"short"]:
        assert refused(check_recipient, x_pub) is Reason.BAD_DEPOSIT
    limits = Limits(item_bytes=1 << 16)
    deposit, envelope = ItemKind.DEPOSIT, ItemKind.ENVELOPE
    assert [refused(check_size, deposit, size, limits) for size in (1 << 10, 1 << 16)] == [None, None]
    assert [refused(check_size, deposit, size, limits) for size in (0, 1025)] == [Reason.BAD_DEPOSIT] * 2
    assert refused(check_size, deposit, 1 << 18, limits) is Reason.TOO_BIG
    assert refused(check_size, envelope, 1025, limits) is None
    assert refused(check_size, envelope, (1 << 16) + 1, limits) is Reason.TOO_BIG


# --- Refusals that could not be written down --------------------------------------------------------------------------


@run_async
async def test_what_could_not_be_written_down_is_once_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmarked, "_MOST", 2)
    waiting = unmarked.Unmarked()
    for number, recipient in enumerate((b"a", b"b", b"c")):
        waiting.add(recipient, number)
    written: list[tuple[bytes, int]] = []

    async def mark(recipient: bytes, when: int) -> None:
        if recipient == b"b" and len(written) == 1:
            written.append((b"full", 0))
            raise StoreFull("no room")
        written.append((recipient, when))

    with pytest.raises(StoreFull):
        await waiting.write(mark)
    await waiting.write(mark)
    await waiting.write(mark)
    assert written == [(b"a", 0), (b"full", 0), (b"b", 1)]
