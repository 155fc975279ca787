"""How much an agent may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.chat.agent.rate import Bucket, Limit, Rate


@pytest.mark.parametrize(
    ("text", "count", "seconds"), [("20/min", 20, 60), ("1/s", 1, 1), (" 3/h ", 3, 3600), ("999999/day", 999999, 86400)]
)
def test_rates(text: str, count: int, seconds: float) -> None:
    rate = Rate.parse(text)
    assert (rate.count, rate.seconds) == (count, seconds)
    assert str(rate) == text.strip()


@pytest.mark.parametrize("text", ["", "20", "0/min", "-1/min", "20/", "/min", "20/week", "20 / min", "1e3/s", "٣/min"])
def test_no_rates(text: str) -> None:
    with pytest.raises(ValueError, match="such as 20/min"):
        Rate.parse(text)


def test_a_bucket() -> None:
    bucket = Bucket(Rate(2, 10.0), 100.0)
    for _ in range(2):
        assert bucket.wait(100.0) == 0.0
        bucket.take(100.0)
    assert bucket.wait(100.0) == 5.0
    assert bucket.wait(104.0) == pytest.approx(1.0)
    assert bucket.wait(105.0) == 0.0
    bucket.take(105.0)
    assert bucket.wait(105.0) == 5.0
    assert bucket.wait(1000.0) == 0.0


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 5), st.sampled_from([1.0, 7.0, 60.0]))
def test_never_more_than_the_rate(gaps: list[float], count: int, seconds: float) -> None:
    now, taken = 0.0, []
    bucket = Bucket(Rate(count, seconds), now)
    for gap in gaps:
        now += gap
        if bucket.wait(now) == 0.0:
            bucket.take(now)
            taken.append(now)
    for first, start in enumerate(taken):
        for last, end in enumerate(taken[first:], first):
            # As many as fill the bucket, and what flows in meanwhile.
            assert last - first + 1 <= count + (end - start) * count / seconds + 1e-6


@given(st.integers(1, 9), st.sampled_from([1.0, 7.0, 60.0, 3600.0]), st.floats(0, 1e6))
def test_who_waits_as_told_gets_one(count: int, seconds: float, now: float) -> None:
    bucket = Bucket(Rate(count, seconds), now)
    for _ in range(50):
        now += bucket.wait(now)
        assert bucket.wait(now) == pytest.approx(0.0, abs=1e-6)
        now += bucket.wait(now)
        bucket.take(now)


def test_one_contact_does_not_use_up_what_others_have() -> None:
    limit = Limit(Rate(1, 10.0), Rate(3, 30.0), 0.0)
    assert limit.take(1, 0.0) == 0.0
    assert limit.take(1, 0.0) == 10.0  # and takes nothing of the total
    assert limit.take(2, 0.0) == 0.0
    assert limit.take(3, 0.0) == 0.0
    assert limit.take(4, 0.0) == 10.0
    assert limit.take(4, 10.0) == 0.0
