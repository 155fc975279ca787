"""The feed: its order, its numbers, and what passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from peers.store import feed
from peers.store.feed import BATCH, Kind
from tests.peers.store.stores import new_store

if TYPE_CHECKING:
    import sqlite3

DAY = 24 * 3600 * 1000


def test_events_come_in_order_once_and_in_parts(db: sqlite3.Connection) -> None:
    assert (feed.last(db), feed.read(db, 0)) == (0, [])
    numbers = [feed.add(db, i, Kind.NOTICE, detail=str(i)) for i in range(2 * BATCH + 7)]
    assert numbers == sorted(set(numbers))
    after, got, parts = 0, [], 0
    while events := feed.read(db, after):
        got += [event.detail for event in events]
        after, parts = events[-1].seq, parts + 1
    assert got == [str(i) for i in range(2 * BATCH + 7)]
    assert (parts, after) == (3, feed.last(db))


PASSING = {Kind.PRESENCE, Kind.CONNECTION, Kind.FILE}


@given(
    st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(0, 60 * DAY)), max_size=40), st.integers(0, 61 * DAY)
)
def test_what_passes_and_what_stays(events: list[tuple[Kind, int]], now: int) -> None:
    db = new_store()
    for kind, at in events:
        feed.add(db, at, kind)
    last = feed.last(db)
    feed.prune(db, now)

    def stays(kind: Kind, at: int) -> bool:
        if kind is Kind.MESSAGE:
            return True
        return at >= now - (DAY if kind in PASSING else 30 * DAY)

    kept = [(event.kind, event.at) for event in feed.read(db, 0)]
    assert kept == [event for event in events if stays(*event)]
    # No number is given twice, whatever was removed: a cursor would skip what came under it.
    assert feed.last(db) == last
    assert feed.add(db, now, Kind.NOTICE) == last + 1


def test_a_cursor_never_goes_back(db: sqlite3.Connection) -> None:
    assert feed.cursor(db, "listen") == 0
    for seq in (5, 3, 9, 9, 1):
        feed.advance(db, "listen", seq)
    feed.advance(db, "other", 2)
    assert (feed.cursor(db, "listen"), feed.cursor(db, "other")) == (9, 2)


def test_the_connection_is_known_to_all(db: sqlite3.Connection) -> None:
    assert feed.connection(db) == {"state": "closed", "text": "", "retry_in": None, "at": 0}
    feed.set_connection(db, 3, "waiting", text="the cable is out", retry_in=2.5)
    assert feed.connection(db) == {"state": "waiting", "text": "the cable is out", "retry_in": 2.5, "at": 3}
    feed.set_connection(db, 4, "connected")
    assert feed.connection(db) == {"state": "connected", "text": "", "retry_in": None, "at": 4}
    assert [event.kind for event in feed.read(db, 0)] == [Kind.CONNECTION] * 2
