"""Who watches whom, and how flapping is damped."""

from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from keys.identity import PublicIdentity
from relay.hub import Change, Presence
from tests.relay.harness import identity

RATE: Final = 0.1
BURST: Final = 3
ON: Final = Change.ONLINE
OFF: Final = Change.OFFLINE
BOTH: Final = ON | OFF
KEY: Final = b"k" * 32
OTHER: Final = b"o" * 32


class Watcher:
    """Only its identity counts."""

    @property
    def public(self) -> PublicIdentity:
        return identity(1).public


def presence(rate: float = RATE, burst: int = BURST) -> Presence[Watcher]:
    return Presence(rate, burst)


def use_up(who: Presence[Watcher], now: float = 0.0, key: bytes = KEY) -> None:
    """Spend the burst of a key."""
    for _ in range(BURST):
        assert who.changed(key, ON, now)
        who.announce(key)


# --- Watching --------------------------------------------------------------------------------------------------------


def test_watchers_are_told_in_the_order_they_came_and_once_each() -> None:
    who, one, two = presence(), Watcher(), Watcher()
    who.watch(two, [KEY, OTHER])
    who.watch(one, [KEY])
    who.watch(two, [KEY])
    assert who.watched == 2
    assert who.changed(KEY, ON, 0.0)
    assert who.announce(KEY) == (ON, [two, one])
    assert who.changed(OTHER, OFF, 0.0)
    assert who.announce(OTHER) == (OFF, [two])


def test_what_nobody_watches_is_not_noted() -> None:
    who, one = presence(), Watcher()
    assert not who.changed(KEY, ON, 0.0)
    who.watch(one, [KEY])
    assert who.announce(KEY) == (Change(0), [one])
    assert not who._changes


def test_unwatching() -> None:
    who, one, two = presence(), Watcher(), Watcher()
    who.watch(one, [KEY, OTHER])
    who.watch(two, [KEY])
    who.unwatch(one, [KEY, OTHER, b"never watched".ljust(32)])
    who.unwatch(one, [KEY])
    assert who.watched == 1
    assert who.announce(KEY)[1] == [two]
    who.unwatch(two, [KEY])
    assert who.watched == 0
    assert not who.changed(KEY, ON, 0.0)


# --- Merging ---------------------------------------------------------------------------------------------------------


def test_what_happens_before_it_was_told_is_told_as_one() -> None:
    who, one = presence(), Watcher()
    who.watch(one, [KEY])
    assert who.changed(KEY, OFF, 0.0)
    assert not who.changed(KEY, ON, 0.0)
    assert who.announce(KEY) == (BOTH, [one])
    assert who.announce(KEY) == (Change(0), [one])


def test_what_is_told_as_one_costs_one() -> None:
    who = presence()
    who.watch(Watcher(), [KEY])
    for _ in range(BURST):
        assert who.changed(KEY, OFF, 0.0)
        for _ in range(20):
            assert not who.changed(KEY, ON, 0.0)
        who.announce(KEY)
    assert not who.changed(KEY, OFF, 0.0)


# --- Damping ---------------------------------------------------------------------------------------------------------


def test_after_the_burst_a_key_is_told_at_its_rate() -> None:
    who = presence()
    who.watch(Watcher(), [KEY])
    use_up(who)
    assert not who.changed(KEY, OFF, 0.0)
    assert not who.changed(KEY, ON, 5.0)
    assert who.due(9.9) == []
    assert who.due(10.0) == [KEY]
    assert who.announce(KEY)[0] == BOTH
    assert who.due(100.0) == []


def test_a_key_that_never_rests_is_told_once_in_ten_seconds() -> None:
    who = presence()
    who.watch(Watcher(), [KEY])
    told = []
    for tenth in range(6000):
        now = tenth / 10
        if who.changed(KEY, ON if tenth % 2 else OFF, now):
            who.announce(KEY)
            told.append(now)
        for key in who.due(now):
            who.announce(key)
            told.append(now)
    assert len(told) <= BURST + 600 * RATE + 1
    assert all(later - earlier >= 9.9 for earlier, later in zip(told[BURST:], told[BURST + 1 :], strict=False))


def test_one_key_does_not_slow_another() -> None:
    who = presence()
    who.watch(Watcher(), [KEY, OTHER])
    use_up(who)
    assert not who.changed(KEY, OFF, 0.0)
    assert who.changed(OTHER, ON, 0.0)


def test_rest_is_rewarded() -> None:
    who = presence()
    who.watch(Watcher(), [KEY])
    use_up(who)
    assert who.changed(KEY, OFF, 10.0)
    who.announce(KEY)
    assert not who.changed(KEY, ON, 10.0)


def test_rest_saves_up_no_more_than_a_burst() -> None:
    who = presence()
    who.watch(Watcher(), [KEY])
    assert who.changed(KEY, OFF, 0.0)
    who.announce(KEY)
    use_up(who, 1000.0)
    assert not who.changed(KEY, OFF, 1000.0)


def test_without_a_rate_everything_is_told_at_once() -> None:
    who = presence(rate=0.0)
    who.watch(Watcher(), [KEY])
    for _ in range(1000):
        assert who.changed(KEY, ON, 0.0)
        who.announce(KEY)
    assert who.due(0.0) == []
    assert not who._changes


def test_what_is_due_is_told_to_those_who_watch_then() -> None:
    who, one, two = presence(), Watcher(), Watcher()
    who.watch(one, [KEY])
    use_up(who)
    assert not who.changed(KEY, OFF, 0.0)
    who.unwatch(one, [KEY])
    who.watch(two, [KEY])
    assert who.due(50.0) == [KEY]
    assert who.announce(KEY) == (OFF, [two])


def test_who_has_long_been_steady_is_forgotten() -> None:
    who = presence()
    who.watch(Watcher(), [KEY, OTHER])
    use_up(who, 0.0)
    use_up(who, 30.0, OTHER)
    lifetime = (BURST + 1) / RATE
    who.due(lifetime - 0.1)
    assert list(who._changes) == [KEY, OTHER]
    who.due(lifetime)
    assert list(who._changes) == [OTHER]
    who.due(30.0 + lifetime)
    assert not who._changes
    assert not who._pending
    assert not who._due


def test_forgetting_forgives_nothing_that_was_not_earned() -> None:
    who = presence()
    who.watch(Watcher(), [KEY])
    use_up(who)
    assert not who.changed(KEY, OFF, 0.0)
    assert who.due(20.0) == [KEY]
    who.announce(KEY)
    who.due(40.0)
    use_up(who, 40.0)
    assert not who.changed(KEY, OFF, 40.0)


# --- In the end everybody knows ---------------------------------------------------------------------------------------

KEYS: Final = (KEY, OTHER)
keys: Final = st.sampled_from(KEYS)
watchers: Final = st.integers(0, 2)


class EventuallyTold(RuleBasedStateMachine):
    """Keys come and go; watchers come, go, and hear what the relay tells in the order in which it does."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.presence = presence(burst=2)
        self.online = dict.fromkeys(KEYS, False)
        self.watchers = [Watcher() for _ in range(3)]
        self.told: dict[Watcher, dict[bytes, bool]] = {each: {} for each in self.watchers}

    @rule(key=keys, replaced=st.booleans())
    def change(self, key: bytes, *, replaced: bool) -> None:
        """Come or go; a session that is replaced goes and comes at once."""
        changes = [OFF, ON] if replaced and self.online[key] else [OFF if self.online[key] else ON]
        for change in changes:
            self.online[key] = change is ON
            if self.presence.changed(key, change, self.now):
                self.announce(key)

    @rule(at=watchers, key=keys)
    def watch(self, at: int, key: bytes) -> None:
        """Subscribe: the relay answers at once with what is so."""
        watcher = self.watchers[at]
        self.presence.watch(watcher, [key])
        self.told[watcher][key] = self.told[watcher].get(key, False) or self.online[key]

    @rule(at=watchers, key=keys)
    def unwatch(self, at: int, key: bytes) -> None:
        self.presence.unwatch(self.watchers[at], [key])
        self.told[self.watchers[at]].pop(key, None)

    @rule(seconds=st.sampled_from((0.1, 1.0, 9.0, 30.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for key in self.presence.due(self.now):
            self.announce(key)

    def announce(self, key: bytes) -> None:
        change, watchers = self.presence.announce(key)
        assert len(set(map(id, watchers))) == len(watchers)
        for watcher in watchers:
            # As a session tells it: offline first, and then what is true now, whatever was noted.
            if OFF in change:
                self.told[watcher][key] = False
            if self.online[key]:
                self.told[watcher][key] = True

    def teardown(self) -> None:
        for _ in range(3):
            self.wait(10.0)
        for told in self.told.values():
            assert all(online == self.online[key] for key, online in told.items())
        self.wait(100.0)
        assert not self.presence._pending
        assert not self.presence._due
        assert not self.presence._changes


TestEventuallyTold = EventuallyTold.TestCase
TestEventuallyTold.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
