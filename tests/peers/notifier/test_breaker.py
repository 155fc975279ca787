"""Which push servers are sent how much, and which are left alone: rules alone, by a clock of the test."""

from __future__ import annotations

import heapq

import pytest

from peers.notifier.breaker import Breaker, Rates


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def let_through(breaker: Breaker, origin: str = "a", tries: int = 2000, **what: bool) -> int:
    """Return how many of so many pushes may be sent now."""
    return sum(breaker.wait(origin, b"%d" % number, **what) == 0 for number in range(tries))


class TestServersThatFail:
    def test_three_faults_in_a_row_pause_one_server(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        for _ in range(2):
            breaker.failed("a")
            assert breaker.wait("a") == 0
        breaker.failed("a")
        assert breaker.wait("a") > 0
        assert breaker.wait("b") == 0

    def test_an_answer_starts_the_count_again(self) -> None:
        breaker = Breaker(Clock())
        for _ in range(10):
            breaker.failed("a")
            breaker.failed("a")
            breaker.answered("a")
        assert breaker.wait("a") == 0

    def test_after_the_pause_one_goes_through_and_the_next_pause_is_longer(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        for _ in range(3):
            breaker.failed("a")
        first = breaker.wait("a")
        clock.now += first
        assert breaker.wait("a") == 0, "one is tried"
        assert breaker.wait("a") > 0, "the others wait for how it ends"
        breaker.failed("a")
        assert breaker.wait("a") > first

    def test_pauses_end(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        for _ in range(5000):
            breaker.failed("a", 1e9)
        assert 0 < breaker.wait("a") <= 3600, "it never took a push"
        breaker.took("b")
        for _ in range(5000):
            breaker.failed("b", 1e9)
        assert 0 < breaker.wait("b") <= 300

    def test_what_the_server_asks_for_counts(self) -> None:
        breaker = Breaker(Clock())
        for _ in range(3):
            breaker.failed("a", 200.0)
        assert breaker.wait("a") == 200


class TestTooManyRequests:
    """RFC 8030 means one subscription; a plain ntfy means us."""

    def test_one_token_that_is_told_429_silences_no_other(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        breaker.took("a")
        for _ in range(100):
            breaker.limited("a", b"loud", 3600.0)
        assert breaker.wait("a", b"other") == 0

    def test_several_with_nothing_taken_in_between_rest_the_server_as_long_as_asked(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        breaker.took("a")
        for number in range(3):
            breaker.limited("a", b"%d" % number, 120.0 + number)
        assert breaker.wait("a", b"other") == 120
        assert breaker.wait("b", b"other") == 0, "no other server"
        clock.now += 119
        assert breaker.wait("a", b"other") == 1
        clock.now += 1
        assert breaker.wait("a", b"0") == 0, "one goes through"
        assert breaker.wait("a", b"1") > 0, "the others wait for how it ends"
        breaker.limited("a", b"0", 100.0)
        assert breaker.wait("a", b"1") == 100
        clock.now += 100
        assert breaker.wait("a", b"0") == 0
        breaker.took("a")
        assert breaker.wait("a", b"1") == 0

    def test_the_same_holds_for_several_that_are_told_no_time(self) -> None:
        breaker = Breaker(Clock())
        for number in range(3):
            breaker.limited("a", b"%d" % number)
        assert breaker.wait("a") == 60

    def test_a_taken_push_in_between_shows_that_it_is_not_us(self) -> None:
        breaker = Breaker(Clock())
        for number in range(30):
            breaker.limited("a", b"%d" % number, 300.0)
            assert breaker.wait("a", b"other") == 0
            if number % 2:
                breaker.took("a")

    def test_and_so_does_time(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        for number in range(30):
            breaker.limited("a", b"%d" % number, 300.0)
            clock.now += 31
        assert breaker.wait("a", b"other") == 0

    def test_a_rest_is_bounded_whatever_is_asked(self) -> None:
        breaker = Breaker(Clock())
        for number in range(100):
            breaker.limited("a", b"%d" % number, 86400.0)
        assert breaker.wait("a", b"other") == 300

    def test_who_was_served_before_tries_less_and_less_often_and_ends_it(self) -> None:
        """A stranger whose tokens are told 429 on a shared server holds nobody up for long."""
        clock = Clock()
        breaker = Breaker(clock)
        breaker.took("a")
        for number in range(3):
            breaker.limited("a", b"stranger %d" % number, 300.0)
        began, tried = clock.now, []
        while clock.now < began + 299:
            assert breaker.wait("a", b"stranger 1", known=True) > 0, "not those that were told"
            assert breaker.wait("a", b"new") > 0, "nor those that anybody can make"
            if breaker.wait("a", b"known", known=True) == 0:
                tried.append(clock.now - began)
            clock.now += 1
        assert tried == [15, 45, 105, 225]
        breaker.took("a")
        assert breaker.wait("a", b"anybody") == 0

    def test_a_call_tries_sooner(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        breaker.took("a")
        for number in range(3):
            breaker.limited("a", b"%d" % number, 300.0)
        clock.now += 10
        assert breaker.wait("a", b"known", known=True) > 0
        assert breaker.wait("a", b"known", known=True, call=True) == 0
        assert breaker.wait("a", b"known", known=True, call=True) > 0, "but not each"


class TestHowMuch:
    def test_a_server_that_never_took_a_push_gets_few(self) -> None:
        clock = Clock()
        breaker = Breaker(clock, Rates(proven=50, unproven=6))
        assert let_through(breaker, call=True) == 5
        clock.now += 60
        assert let_through(breaker) == 4, "the last is for a call"
        assert let_through(breaker, call=True) == 1
        sent = 0
        for _ in range(3600):
            clock.now += 1
            sent += let_through(breaker, tries=10, call=True)
        assert sent == pytest.approx(360, abs=2)

    def test_one_that_took_some_gets_what_people_need_and_no_more(self) -> None:
        clock = Clock()
        breaker = Breaker(clock, Rates(proven=50, unproven=6))
        breaker.took("a")
        assert let_through(breaker) == 400
        assert let_through(breaker, call=True) == 100
        clock.now += 1
        assert let_through(breaker, call=True) == 50

    def test_a_token_that_took_its_last_push_proves_its_server(self) -> None:
        """After a restart nothing is remembered here, but the registry knows."""
        breaker = Breaker(Clock())
        assert let_through(breaker, tries=300, known=True) == 300

    def test_servers_that_the_operator_allowed_have_no_rate(self) -> None:
        assert let_through(Breaker(Clock()), trusted=True) == 2000

    def test_any_number_of_new_servers_together_gets_so_much(self) -> None:
        clock = Clock()
        breaker = Breaker(clock)
        breaker.took("good")
        assert sum(breaker.wait(f"{number}.example.org", call=True) == 0 for number in range(3000)) == 200
        clock.now += 1
        assert sum(breaker.wait(f"{number}.example.com", call=True) == 0 for number in range(3000)) == 20
        assert breaker.wait("good") == 0
        clock.now += 1
        assert let_through(breaker, "999.example.com", call=True) == 5, "what was not sent does not count against it"

    def test_who_is_sent_away_is_given_a_time_of_their_own(self) -> None:
        """Ten thousand wakes at once come back one after another, and all in time."""
        clock = Clock()
        breaker = Breaker(clock)
        breaker.took("a")
        waiting = [(clock.now, number) for number in range(10_000)]
        asked = 0
        while waiting:
            at, number = heapq.heappop(waiting)
            clock.now = max(clock.now, at)
            asked += 1
            left = breaker.wait("a", b"%d" % number)
            if left > 0:
                assert left <= 120
                heapq.heappush(waiting, (clock.now + left + 0.01, number))
            assert asked < 40_000, "they do not spin"
        assert clock.now - 1_000_000 < 300

    def test_what_only_web_sites_answer_counts_against_a_server_that_never_took_a_push(self) -> None:
        breaker = Breaker(Clock())
        for _ in range(3):
            breaker.strange("site")
        assert breaker.wait("site") > 0

    def test_at_a_push_server_it_is_about_the_endpoint(self) -> None:
        """Else anybody could have it left alone, by endpoints of their invention."""
        breaker = Breaker(Clock())
        breaker.took("a")
        for _ in range(19):
            breaker.strange("a")
        assert let_through(breaker) == 400

    def test_unless_there_is_nothing_else(self) -> None:
        breaker = Breaker(Clock())
        breaker.took("a")
        for _ in range(20):
            breaker.strange("a")
        assert let_through(breaker) == 4

    def test_who_is_doubted_and_proves_to_be_one_again_and_again_gains_nothing(self) -> None:
        """A web site may answer 200 at one path and 400 at another."""
        breaker = Breaker(Clock())
        breaker.took("site")
        sent = 0
        for _ in range(20):
            sent += let_through(breaker, "site", call=True)
            for _ in range(20):
                breaker.strange("site")
            sent += let_through(breaker, "site", call=True)
            breaker.took("site")
        assert sent == 500 + 5

    def test_memory_is_bounded_and_new_servers_do_not_push_out_those_that_serve(self) -> None:
        breaker = Breaker(Clock())
        for number in range(3000):
            breaker.took(f"good {number}")
        for number in range(20_000):
            for _ in range(3):
                breaker.failed(str(number))
            for token in range(3):
                breaker.limited(str(number), b"%d" % token)
        assert len(breaker) <= 5000
        assert breaker.wait("0") == 0, "forgotten"
        assert let_through(breaker, "good 2999") == 400
        for token in range(10_000):
            breaker.limited("19999", b"%d" % token)
        assert len(breaker._state("19999").limited) <= 16
