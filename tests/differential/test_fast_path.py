"""The fast path is really taken: `websockets`' parser is made only for what is unusual, and never outlives it."""

import gc
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import Protocol

import relay.websocket
from relay.websocket import Phase
from tests.differential.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, payload, pieces, raw, steps
from tests.differential.sides import Ours
from tests.differential.strategies import PATIENT, cuts, forms, keys, right_sizes, salts

LIMIT = 70_000


class Counted(Protocol):
    """The parser, counted as it is made."""

    made: list["weakref.ref[Counted]"]

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.made.append(weakref.ref(self))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list["weakref.ref[Counted]"]:
    """All parsers that `relay.websocket` made since the test began."""
    monkeypatch.setattr(Counted, "made", [], raising=False)
    monkeypatch.setattr(relay.websocket, "Protocol", Counted)
    return Counted.made


def alive(made: list["weakref.ref[Counted]"]) -> int:
    gc.collect()  # a parser stands in a cycle with its generator
    return sum(reference() is not None for reference in made)


plain = st.builds(
    lambda size, salt, key, form, pong: (
        raw(PONG, payload(min(size, 125), salt), key=key, form=form)
        if pong
        else raw(BINARY, payload(size, salt), key=key, form=form)
    ),
    right_sizes(LIMIT),
    salts,
    keys,
    forms,
    st.booleans(),
)


@given(data=st.data(), frames=st.lists(plain, min_size=1, max_size=6))
@settings(PATIENT, max_examples=150)
def test_messages_and_pongs_need_no_parser(data: st.DataObject, frames: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay.websocket, "Protocol", None)
        socket = Ours(LIMIT).feed(pieces(b"".join(frames), data.draw(cuts(frames))))
    assert socket.frames == len(frames)
    assert len(socket.events) == len(frames)


@pytest.mark.parametrize("form", [7, 16, 64])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, LIMIT])
def test_every_length_is_on_the_fast_path(size: int, form: int, made: list["weakref.ref[Counted]"]) -> None:
    frame = raw(BINARY, payload(size), form=form)
    socket = Ours(LIMIT).feed([frame * 2, frame[:1], frame[1:3], frame[3:]])
    assert socket.outcome.messages == [payload(size)] * 3
    assert made == []


@pytest.mark.parametrize(
    "frame", [raw(PING), raw(PING, b"payload"), raw(TEXT, b"text"), raw(TEXT)], ids=["ping", "ping+", "text", "text-"]
)
def test_one_unusual_frame_needs_a_parser_for_a_moment(frame: bytes, made: list["weakref.ref[Counted]"]) -> None:
    socket = Ours(LIMIT)
    for count in (1, 2, 3):
        socket.feed([frame[:-1]])
        assert len(made) == count - 1
        socket.feed([frame[-1:]])
        assert len(made) == count
        assert socket.unusual is None
        assert alive(made) == 0
        socket.feed([raw(BINARY, b"usual again")])
        assert len(made) == count


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_fragmented_message_has_one_parser(opcode: int, at_once: bool, made: list["weakref.ref[Counted]"]) -> None:
    frames = [raw(opcode, b"a", fin=False), raw(PING), raw(CONT, b"b", fin=False), raw(PONG), raw(CONT, b"c")]
    usual = raw(BINARY, b"usual") * 2
    socket = Ours(LIMIT).feed([usual])
    if at_once:
        socket.feed([b"".join([*frames, usual])])
    else:
        for frame in frames[:-1]:
            socket.feed(steps(frame, 1))
            assert len(made) == alive(made) == 1
            assert socket.unusual is made[0]()
        socket.feed([frames[-1], usual])
    assert len(made) == 1
    assert socket.unusual is None
    assert socket.assembled is None
    assert alive(made) == 0
    assert socket.outcome.messages == [b"usual"] * 2 + ([b"abc"] if opcode == BINARY else []) + [b"usual"] * 2


def test_the_parser_is_gone_before_a_fragmented_message_is_taken() -> None:
    socket = Ours(LIMIT)
    socket.on_message = lambda _message: seen.append((socket.unusual, socket.assembled))
    seen: list[tuple[object, object]] = []
    socket.feed([raw(BINARY, b"a", fin=False) + raw(CONT, b"b")])
    assert seen == [(None, None)]


@pytest.mark.parametrize("fragmented", [True, False])
def test_a_raised_limit_reaches_the_fast_path(fragmented: bool, made: list["weakref.ref[Counted]"]) -> None:
    first = raw(BINARY, b"a", fin=False) + raw(CONT, b"b") if fragmented else raw(BINARY, b"ab")
    socket = Ours(10)

    def raise_limit(_message: bytes) -> None:
        socket.max_message = 1000

    socket.on_message = raise_limit
    socket.feed([first + raw(BINARY, payload(1000))])
    assert socket.outcome.messages == [b"ab", payload(1000)]
    assert len(made) == fragmented


@pytest.mark.parametrize(
    "frames",
    [
        [raw(CLOSE)],
        [raw(CLOSE, b"\x03\xe8bye")],
        [raw(3)],
        [raw(BINARY, b"a", key=None)],
        [raw(BINARY, payload(LIMIT + 1))],
        [raw(BINARY, b"a", fin=False), raw(BINARY, b"b")],
        [raw(BINARY, b"a", fin=False), raw(CLOSE)],
    ],
    ids=["Close", "Close 1000", "opcode", "mask", "too big", "no continuation", "Close between fragments"],
)
def test_no_parser_outlives_the_end(frames: list[bytes], made: list["weakref.ref[Counted]"]) -> None:
    socket = Ours(LIMIT).feed(frames)
    assert socket.phase is Phase.CLOSING
    assert len(made) == 1
    assert socket.unusual is None
    assert alive(made) == 0


@pytest.mark.parametrize("between", [True, False], ids=["between fragments", "idle"])
def test_no_parser_outlives_our_own_close(between: bool, made: list["weakref.ref[Counted]"]) -> None:
    socket = Ours(LIMIT)
    if between:
        socket.feed([raw(BINARY, b"a", fin=False)])
    socket.close(1000)
    assert len(made) == 1
    assert socket.unusual is None
    assert alive(made) == 0
