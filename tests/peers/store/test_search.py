"""Search: any text may be looked for, and what stands in a message is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peers.store import messages
from peers.store.words import WORDS_MAX, wanted
from tests.peers.store.stores import add, new_store

if TYPE_CHECKING:
    import sqlite3

ANY = st.text(st.characters(), max_size=40)  # half surrogates and zero bytes too
SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


def found(db: sqlite3.Connection, words: str) -> list[str]:
    return [row.text for row in messages.search(db, words)]


def store_with(*texts: str) -> sqlite3.Connection:
    db = new_store()
    contact = add(db)
    for text in texts:
        messages.receive(db, 1, contact.id, messages.uuid(), text)
    return db


@given(SAID, ANY)
@example("x", '"')
@example("x", "a\0b")
@example("x", "\ud800")
@example("x", "NEAR(a b) OR c* ^d -e {f}:g")
@example("x", "* AND NOT (")
@example("x", "\u00a0\u2003")
def test_any_text_can_be_looked_for(said: str, words: str) -> None:
    db = store_with(said)
    assert found(db, words) in ([], [said])


@given(SAID)
@example("İstanbul’da buluşalım")
@example("C++ ist schön & gut: straße")
@example("प्यार हिन्दी")
@example("🎉")
@example("\U0001e900\U0001e922")  # letters younger than SQLite's tables
@example("a\u0301\u0301b")
@example("ﬁne x² ½")
def test_each_word_of_a_text_finds_it(said: str) -> None:
    db = store_with(said, "something else")
    for word in said.split():
        if "\0" not in word:
            assert said in found(db, word), word
    if "\0" not in said and 0 < len(said.split()) <= WORDS_MAX:
        assert said in found(db, " ".join(reversed(said.split())))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("hello", ["Hello world"]),
        ("hel wor", ["Hello world"]),
        ("world hello", ["Hello world"]),
        ("hello moon", []),
        ("orld", []),
        ("cafe", ["Café crème, s'il vous plaît"]),
        ("CRÈME", ["Café crème, s'il vous plaît"]),
        ("s'il", ["Café crème, s'il vous plaît"]),
        ("吃饭", ["我们明天去吃饭"]),
        ("明天 吃饭", ["我们明天去吃饭"]),
        ("🎉", ["Party 🎉 tonight"]),
        ("tonight 🎉", ["Party 🎉 tonight"]),
        ("🎉 hello", []),
        ("100%", ["100% sure_thing"]),
        ("%", ["100% sure_thing"]),
        ("_", ["100% sure_thing"]),
        ("", []),
        ("   ", []),
        ("hello " * 10_000, ["Hello world"]),
    ],
)
def test_what_is_found(words: str, expected: list[str]) -> None:
    db = store_with(
        "Hello world", "Café crème, s'il vous plaît", "我们明天去吃饭", "Party 🎉 tonight", "100% sure_thing"
    )
    assert found(db, words) == expected


def test_the_newest_come_first_by_contact_and_in_pages() -> None:
    db = new_store()
    one, two = add(db, "One"), add(db, "Two")
    ids = []
    for i in range(20):
        row = messages.receive(db, i, (one, two)[i % 2].id, messages.uuid(), f"word {i} 🎉")
        assert row is not None
        ids.append(row.id)
    for words in ("word", "🎉", "word 🎉"):
        assert [row.id for row in messages.search(db, words)] == ids[::-1]
        assert [row.id for row in messages.search(db, words, contact=two.id)] == ids[1::2][::-1]
        assert [row.id for row in messages.search(db, words, limit=3, before=ids[10])] == ids[9:6:-1]


def test_what_was_edited_or_deleted_is_found_no_more() -> None:
    db = new_store()
    contact = add(db)
    first, second = (messages.compose(db, 1, contact.id, text) for text in ("old words", "old bones"))
    messages.edit(db, 2, first.id, "new words")
    messages.delete(db, 3, second.id, for_both=True)
    assert found(db, "old") == []
    assert found(db, "new") == ["new words"]
    # Nor does anything of it stay in the index.
    assert db.execute("SELECT count(*) FROM messages_text WHERE messages_text MATCH 'bones'").fetchone()[0] == 0
    db.execute("INSERT INTO messages_text (messages_text, rank) VALUES ('integrity-check', 1)")


def test_only_so_many_words_are_looked_for() -> None:
    assert wanted("a " * 100).query.count('"a"*') == WORDS_MAX
    assert len(wanted("% " * 100).literals) == WORDS_MAX
