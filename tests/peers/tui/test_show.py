"""How things look: texts of others can do nothing, nothing rests on colour alone, and all of it fits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.identity import Identity
from peers.chat.tui import files, show
from peers.chat.tui.status import status_line
from peers.store.contacts import ContactRow
from peers.store.message_rows import MessageRow, State

TODAY = date(2026, 11, 20)
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
DAY = 24 * 3600 * 1000
HOSTILE = "\x1b]0;title\x07\x1b[31m[red]x[/red]\u202eevil\x9b2J\r\n\ttab[@click=app.quit]y[/]"
ROW = MessageRow(1, 1, b"u" * 16, True, "text", "hello", NOON, State.SENT, None, None, None, None)
BOB = ContactRow(1, Identity.generate().public, "Bob", "Bob", "invite", NOON, None, False, True, True, False, None)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "moment", lambda ms: datetime.fromtimestamp(ms / 1000, tz=UTC))


def test_days_and_times() -> None:
    assert show.clock(NOON) == "12:00"
    assert show.day(NOON, TODAY) == "Today"
    assert show.day(NOON - DAY, TODAY) == "Yesterday"
    assert show.day(NOON - 7 * DAY, TODAY) == "Friday, 13 November"
    assert show.day(NOON - 365 * DAY, TODAY) == "Thursday, 20 November 2025"
    assert [show.short_time(NOON - n * DAY, TODAY) for n in (0, 1, 7)] == ["12:00", "Thu", "2026-11-13"]


def test_the_states_of_a_message_differ_without_colour() -> None:
    marks = {state: show.bubble(replace(ROW, state=state)).plain for state in State}
    assert marks == {
        State.QUEUED: "hello  12:00 ·",
        State.SENT: "hello  12:00 ✓",
        State.DELIVERED: "hello  12:00 ✓✓",
        State.READ: "hello  12:00 ✓✓ read",
        State.FAILED: "hello  12:00 ✗ failed",
    }
    assert show.bubble(replace(ROW, outgoing=False, edited_at=NOON)).plain == "hello  12:00 edited"
    assert show.bubble(replace(ROW, text="", deleted_at=NOON)).plain == "message deleted  12:00"
    assert show.bubble(replace(ROW, kind="call", outgoing=False)).plain.startswith("☎ tried to call")


def test_trust_and_presence_differ_without_colour() -> None:
    people = [
        BOB,
        replace(BOB, verified_at=NOON),
        replace(BOB, origin="introduction"),
        replace(BOB, online=True),
        replace(BOB, blocked=True),
    ]
    assert len({show.heading(row, TODAY).plain for row in people}) == len(people)
    assert show.heading(people[1], TODAY).plain == "○ Bob  ◆ verified  not seen yet"
    assert show.heading(replace(BOB, seen_at=NOON - DAY), TODAY).plain.endswith("last seen Thu")
    lines = {show.contact_line(row, 0, None, 26, TODAY).plain for row in people}
    assert len(lines) == len(people)


def test_a_text_of_others_is_text() -> None:
    for content in (
        show.bubble(replace(ROW, text=HOSTILE)),
        show.preview(replace(ROW, text=HOSTILE)),
        show.heading(replace(BOB, label=HOSTILE), TODAY),
        show.contact_line(replace(BOB, label=HOSTILE), 3, replace(ROW, text=HOSTILE), 30, TODAY),
        show.snippet(replace(ROW, text=HOSTILE), ["evil"], 80),
        status_line({"state": "waiting", "text": HOSTILE}, carrying=True, failure=None),
    ):
        assert all(c == "\n" or c.isprintable() for c in content.plain), ascii(content.plain)
        assert "[red]" in content.plain  # shown as it came, and not taken as markup
        assert not any("@click" in str(span.style) or "red" in str(span.style) for span in content.spans)


def test_a_long_text_is_cut_and_says_so() -> None:
    long = show.bubble(replace(ROW, text="x" * 65536)).plain
    assert "… show all (64.0 KiB)" in long
    assert len(long) < show.CHARACTERS + 100
    tall = show.bubble(replace(ROW, text="\n" * 60000 + "end")).plain
    assert tall.count("\n") < show.LINES + 3
    assert "end" not in tall
    assert show.bubble(replace(ROW, text="line\n" * (show.LINES - 1))).plain.count("show all") == 0


@given(
    label=st.text(min_size=1, max_size=40),
    text=st.text(max_size=60),
    unread=st.integers(0, 5000),
    width=st.integers(18, 60),
)
def test_a_line_of_the_list_has_its_width(label: str, text: str, unread: int, width: int) -> None:
    content = show.contact_line(replace(BOB, label=label), unread, replace(ROW, text=text), width, TODAY)
    assert [line.cell_length for line in content.split("\n", allow_blank=True)] == [width, width]


@given(st.text(max_size=300), st.lists(st.text(min_size=1, max_size=5), max_size=3), st.integers(5, 60))
def test_a_snippet_is_one_line(text: str, words: list[str], width: int) -> None:
    line = show.snippet(replace(ROW, text=text), words, width).plain
    assert "\n" not in line
    assert len(line) <= width + 1


def test_a_snippet_shows_what_was_found() -> None:
    row = replace(ROW, text="a" * 500 + " Needle " + "b" * 500)
    assert "Needle" in show.snippet(row, ["need"], 40).plain


def test_sizes() -> None:
    assert [show.size(n) for n in (0, 1023, 1024, 1536, 5 << 20, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "5120.0 GiB",
    ]


def test_only_what_is_whole_looks_full() -> None:
    assert files.progress(0, 10).plain == "░" * 16 + " 0 %"
    assert files.progress(999, 1000).plain == "█" * 15 + "░" + " 99 %"
    assert files.progress(10, 10).plain == "█" * 16 + " 100 %"
    assert files.progress(0, 0).plain == "█" * 16 + " 100 %"


def test_the_status_line_says_what_is_and_what_to_do() -> None:
    def line(state: str, text: str = "", *, carrying: bool = True, failure: str | None = None, **more: object) -> str:
        return status_line({"state": state, "text": text, **more}, carrying=carrying, failure=failure).plain

    assert line("connected") == "● connected"
    assert line("connected", carrying=False) == "● connected · carried by another program of this profile"
    assert line("connecting") == "◌ connecting…"
    waiting = line("waiting", "connection refused", at=NOON, retry_in=5.0)
    assert waiting == "○ no connection: connection refused; trying again at 12:00:05"
    assert "what you write is kept" in line("closed")
    assert line("refused", "the relay asks for a token").startswith("✗ the relay asks for a token · what you write")
    failed = line("closed", failure="the relay at ws://x has other keys")
    assert failed.startswith("✗ the relay at ws://x has other keys")
    assert "doctor" in failed
