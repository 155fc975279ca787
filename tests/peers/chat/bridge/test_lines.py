"""Bytes cut into lines, and lines read as texts to somebody."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.identity import Identity
from peers.chat.bridge.lines import LINE_MAX, BadLine, Line, Reader, Splitter, one_line
from peers.store.contacts import ContactRow


def contact(number: int, label: str) -> ContactRow:
    return ContactRow(
        number, Identity.generate().public, label, label, "invite", 0, None, False, True, True, False, None
    )


def line(text: str) -> Line:
    return Line(f"{text}\n".encode(), whole=True)


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 9)))
def test_lines_are_the_same_however_they_are_cut(parts: list[bytes], sizes: list[int]) -> None:
    raw = b"\n".join(parts)
    splitter, found, rest = Splitter(), [], raw
    for size in sizes:
        found += splitter.feed(rest[:size])
        rest = rest[size:]
    found += splitter.feed(rest)
    found += splitter.end()
    assert [each.raw for each in found] == [part for part in re.split(rb"(?<=\n)", raw) if part]
    assert b"".join(each.raw for each in found) == raw
    assert all(each.whole for each in found)
    assert all(each.raw.count(b"\n") <= 1 for each in found)


@pytest.mark.parametrize("piece", [1000, 65536, 3 * LINE_MAX])
def test_a_line_that_is_too_long_is_never_held_whole(piece: int) -> None:
    raw = b"before\n" + b"x" * (3 * LINE_MAX) + b"\nafter\n"
    splitter, found = Splitter(), []
    for start in range(0, len(raw), piece):
        found += splitter.feed(raw[start : start + piece])
        assert splitter.waiting <= LINE_MAX
    assert b"".join(each.raw for each in found) == raw
    assert [each.raw for each in found if each.whole] == [b"before\n", b"after\n"]
    with pytest.raises(BadLine, match="more than 524288 bytes"):
        Reader([contact(1, "a")], json=False).read(found[1])


@given(st.text())
def test_to_a_single_peer_a_line_is_the_text(text: str) -> None:
    text = "".join(c for c in text if c not in "\n\r" and not 0xD800 <= ord(c) < 0xE000)
    found = Reader([contact(7, "Bob")], json=False).read(line(text))
    assert found == ((7, text) if text.strip() else None)


def test_several_peers() -> None:
    reader = Reader([contact(1, "Bob"), contact(2, "Bob: the other"), contact(3, "Straße")], json=False)
    with pytest.raises(BadLine, match="none is chosen"):
        reader.read(line("hello"))
    with pytest.raises(BadLine, match="none is chosen"):
        reader.read(line("Carol: hello"))
    assert reader.read(line("bob: hello")) == (1, "hello")
    assert reader.read(line("carol: hello")) == (1, "carol: hello")
    assert reader.read(line("Bob: The Other: hello")) == (2, "hello")
    assert reader.read(line("further")) == (2, "further")
    assert reader.read(line("STRASSE:  two spaces")) == (3, " two spaces")
    assert reader.read(line("Bob:")) is None
    assert reader.read(line("Bo: x: y")) == (1, "Bo: x: y")
    assert reader.read(line(" Bob: x")) == (1, " Bob: x")


@given(st.text(), st.text(min_size=1))
def test_in_json_no_text_names_a_recipient(head: str, rest: str) -> None:
    bob, carol = contact(1, "Bob"), contact(2, "Carol")
    reader = Reader([bob, carol], json=True)
    text = f'{head}\n{{"to": "Carol", "text": {json.dumps(rest)}}}\nCarol: {rest}'
    assert reader.read(line(json.dumps({"to": "bob", "text": text}))) == (1, text)
    assert reader.read(line(json.dumps({"to": carol.public.id.hex(), "text": text}))) == (2, text)
    with pytest.raises(BadLine, match="name one"):
        reader.read(line(json.dumps({"text": text})))


@pytest.mark.parametrize(
    "raw",
    [
        b"hello",
        b"[]",
        b'"text"',
        b'{"text": 1}',
        b'{"text": "x", "to": 1}',
        b'{"text": "x", "to": "Carol"}',
        b'{"text": "x", "to": "Bob", "file": "y"}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_no_json_line(raw: bytes) -> None:
    with pytest.raises(BadLine):
        Reader([contact(1, "Bob"), contact(2, "Dan")], json=True).read(Line(raw, whole=True))


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(BadLine, match="not UTF-8"):
        Reader([contact(1, "Bob")], json=False).read(Line(b"\xff\n", whole=True))


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    shown = one_line(text)
    assert len(f"{shown}x".splitlines()) == 1
    assert not {c for c in shown if c != "\t" and (ord(c) < 32 or 0x7F <= ord(c) < 0xA0)}
