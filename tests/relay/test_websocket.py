"""Holding, closing, accounting and the opening of a `WebSocket`; tests/differential covers what its frames come to."""

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import groupby

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import CloseCode

from relay.websocket import Phase
from tests.differential.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, payload, raw, steps
from tests.differential.sides import Event, Ours, theirs
from tests.differential.strategies import LARGE, PATIENT, SMALL, Stream, streams

LIMIT = 70_000
HEAD = b"GET /ws HTTP/1.1\r\nHost: here\r\n\r\n"


def numbered(*numbers: int) -> bytes:
    """Messages that say their number."""
    return b"".join(raw(BINARY, b"%d" % number) for number in numbers)


def numbers(socket: Ours) -> list[int]:
    """The numbers of the messages that were taken."""
    return [int(message) for message in socket.outcome.messages]


def at(number: int, do: Callable[[], None]) -> Callable[[bytes], None]:
    """Do something within the handler of one message."""

    def handler(message: bytes) -> None:
        if message == b"%d" % number:
            do()

    return handler


def answered(payload_sent: bytes) -> Event:
    return Event("sent", raw(PONG, payload_sent, key=None))


def close_frame(code: int, reason: str = "") -> Event:
    return Event("sent", raw(CLOSE, code.to_bytes(2, "big") + reason.encode(), key=None))


# --- Holding ---------------------------------------------------------------------------------------------------------


def test_what_comes_while_held_is_parsed_at_release() -> None:
    socket = Ours(LIMIT)
    socket.hold(1)
    assert not socket.reads()
    socket.feed([numbered(1, 2), numbered(3)[:3], numbered(3)[3:], numbered(4)])
    assert numbers(socket) == []
    socket.release(1)
    assert numbers(socket) == [1, 2, 3, 4]
    assert socket.reads()
    assert socket.waiting is None
    socket.feed([numbered(5)])
    assert numbers(socket) == [1, 2, 3, 4, 5]


def test_reads_go_on_when_the_last_reason_is_gone() -> None:
    socket = Ours(LIMIT)
    socket.hold(1)
    socket.hold(4)
    socket.hold(4)
    assert socket.held == 5
    socket.feed([numbered(1)])
    socket.release(2)
    socket.release(1)
    socket.release(1)
    assert (socket.held, numbers(socket), socket.reads()) == (4, [], False)
    socket.release(4)
    assert (socket.held, numbers(socket), socket.reads()) == (0, [1], True)


def test_a_release_without_a_hold_does_nothing() -> None:
    socket = Ours(LIMIT)
    socket.wire.reading = False
    socket.release(1)
    assert not socket.reads()


@pytest.mark.parametrize("before", [b"", numbered(0)[:3]], ids=["direct", "buffered"])
def test_a_hold_in_a_handler_stops_before_the_next_message(before: bytes) -> None:
    socket = Ours(LIMIT).feed([before] if before else [])
    rest = numbered(0)[len(before) :]
    socket.on_message = at(1, lambda: socket.hold(1))
    socket.feed([rest + numbered(1, 2, 3) + numbered(4)[:4], numbered(4)[4:], numbered(5)])
    assert numbers(socket) == [0, 1]
    assert socket.waiting == numbered(2, 3, 4, 5)
    socket.on_message = at(3, lambda: socket.hold(2))
    socket.release(1)
    assert numbers(socket) == [0, 1, 2, 3]
    assert not socket.reads()
    socket.release(2)
    assert numbers(socket) == [0, 1, 2, 3, 4, 5]
    assert socket.frames == 6


@pytest.mark.parametrize("opening", [b"", raw(BINARY, fin=False)], ids=["message", "fragments"])
def test_small_messages_that_wait_behind_a_large_one_are_parsed_at_release(opening: bytes) -> None:
    large = raw(CONT if opening else BINARY, payload(60_000))
    socket = Ours(LIMIT)
    socket.on_message = lambda _message: socket.hold(1)
    socket.feed([opening + large[:-1], large[-1:] + numbered(2)])
    assert socket.outcome.messages == [payload(60_000)]
    socket.release(1)
    assert socket.outcome.messages == [payload(60_000), b"2"]


def test_a_hold_at_the_very_last_message_leaves_nothing() -> None:
    socket = Ours(LIMIT)
    socket.on_message = at(2, lambda: socket.hold(1))
    socket.feed([numbered(1, 2)])
    assert socket.waiting is None
    socket.release(1)
    assert numbers(socket) == [1, 2]
    assert socket.reads()


@pytest.mark.parametrize(
    "held_by",
    [
        raw(BINARY, b"1", fin=False) + raw(CONT),
        raw(BINARY, fin=False) + raw(PING) + raw(CONT, b"1"),
    ],
    ids=["fragments", "fragments with a ping between"],
)
def test_a_hold_in_the_handler_of_a_fragmented_message(held_by: bytes) -> None:
    socket = Ours(LIMIT)
    socket.on_message = at(1, lambda: socket.hold(1))
    socket.feed([held_by + raw(PING, b"later") + numbered(2)])
    assert numbers(socket) == [1]
    assert answered(b"later") not in socket.events
    socket.release(1)
    assert numbers(socket) == [1, 2]
    assert answered(b"later") in socket.events


def test_a_hold_for_a_pong_stops_before_the_next_frame() -> None:
    socket = Ours(LIMIT)
    socket.on_pong = lambda _payload: socket.hold(1)
    socket.feed([raw(PONG, b"x") + numbered(1) + raw(PONG, b"y") + numbered(2)])
    assert socket.events == [Event("pong", b"x")]
    socket.release(1)
    assert socket.events == [Event("pong", b"x"), Event("message", b"1"), Event("pong", b"y")]
    socket.release(1)
    assert numbers(socket) == [1, 2]


def test_a_hold_within_a_fragmented_message() -> None:
    socket = Ours(LIMIT).feed([raw(BINARY, b"1", fin=False)])
    socket.hold(1)
    socket.feed([raw(CONT, b"2"), numbered(3)])
    assert numbers(socket) == []
    socket.release(1)
    assert numbers(socket) == [12, 3]


def test_released_while_half_a_frame_waits() -> None:
    frame = numbered(1)
    socket = Ours(LIMIT)
    socket.hold(1)
    socket.feed([frame[:4]])
    socket.release(1)
    assert (numbers(socket), socket.waiting, socket.reads()) == ([], frame[:4], True)
    socket.feed([frame[4:] + numbered(2)])
    assert numbers(socket) == [1, 2]


def test_held_while_half_a_frame_waits() -> None:
    frame = numbered(1)
    socket = Ours(LIMIT).feed([frame[:4]])
    socket.hold(1)
    socket.release(1)
    assert (numbers(socket), socket.waiting, socket.reads()) == ([], frame[:4], True)
    socket.hold(1)
    socket.feed([frame[4:]])
    assert numbers(socket) == []
    socket.release(1)
    assert numbers(socket) == [1]


@pytest.mark.parametrize("before", [0, 1, 5], ids=["direct", "from a buffer", "from another buffer"])
def test_held_and_released_in_one_handler(before: int) -> None:
    stream = numbered(1, 2, 3, 4)
    socket = Ours(LIMIT)

    def nothing_but_a_moment() -> None:
        socket.hold(1)
        socket.release(1)

    socket.on_message = at(2, nothing_but_a_moment)
    socket.feed([stream[:before], stream[before:]] if before else [stream])
    assert numbers(socket) == [1, 2, 3, 4]
    assert socket.reads()


def test_one_reason_dropped_for_another_in_one_handler() -> None:
    socket = Ours(LIMIT)
    socket.hold(1)
    socket.feed([numbered(1, 2, 3)])

    def change() -> None:
        socket.hold(2)
        socket.hold(1)
        socket.release(2)

    socket.on_message = at(1, change)
    socket.release(1)
    assert (numbers(socket), socket.held) == ([1], 1)
    socket.release(1)
    assert numbers(socket) == [1, 2, 3]


def test_held_by_the_accounting() -> None:
    socket = Ours(LIMIT)
    socket.on_frames = lambda count: socket.hold(1) if count else None
    socket.feed([numbered(1, 2) + numbered(3)[:3], numbered(3)[3:] + numbered(4)])
    assert numbers(socket) == [1, 2]
    socket.release(1)
    assert numbers(socket) == [1, 2, 3, 4]
    assert not socket.reads()


def test_held_when_nothing_can_be_read_any_more() -> None:
    for phase in (Phase.CLOSING, Phase.LOST):
        socket = Ours(LIMIT, phase)
        socket.hold(1)
        assert socket.reads()
        socket.release(1)
        socket.data_received(numbered(1))
        assert (socket.events, socket.chunks, socket.waiting) == ([], [], None)


REASONS = (1, 2, 4)
steps_taken = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.integers(1, 40) | st.integers(1, 80_000)),
        st.tuples(st.sampled_from(("hold", "release", "release")), st.sampled_from(REASONS)),
    ),
    max_size=30,
)
holding_messages = st.dictionaries(st.integers(0, 12), st.sampled_from((0, *REASONS)), max_size=6)


def check_holding(stream: Stream, script: list[tuple[str, int]], holding: dict[int, int]) -> None:
    """Feed a stream between holds and releases, from outside and in handlers: nothing but the time may differ."""
    socket = Ours(stream.limit)
    data = stream.data
    taken: list[int] = []

    def handler(_message: bytes) -> None:
        reason = holding.get(len(socket.outcome.messages) - 1)
        if reason is not None:
            socket.hold(reason or 1)
            if not reason:
                socket.release(1)
            else:
                taken.append(len(socket.events))

    def still() -> None:
        """While it is held, nothing happens."""
        if socket.held and socket.phase is Phase.OPEN:
            assert len(socket.events) == happened

    socket.on_message = handler
    position = 0
    script = [*script, ("feed", len(data) + 1)]
    script += [("release", reason) for _ in range(len(holding) + 1) for reason in REASONS]
    for what, value in script:
        happened = len(socket.events)
        if what == "feed":
            held = socket.held
            chunk = data[position : position + value]
            position += len(chunk)
            if chunk:
                socket.data_received(chunk)
            if held:
                still()
        elif what == "hold" and socket.phase is Phase.OPEN:
            socket.hold(value)
            still()
        elif what == "release":
            socket.release(value)
        if taken and socket.held:
            assert len(socket.events) == taken[-1]
        if not socket.held:
            taken.clear()
        socket.check()
    assert not socket.held
    assert socket.outcome == theirs(data, stream.limit)


@given(stream=streams(SMALL), script=steps_taken, holding=holding_messages)
@settings(PATIENT, max_examples=400)
@example(Stream(10, [numbered(1, 2, 3)], []), [("feed", 3)], {0: 0})
def test_holding_changes_nothing_but_the_time(
    stream: Stream, script: list[tuple[str, int]], holding: dict[int, int]
) -> None:
    check_holding(stream, script, holding)


@given(stream=streams(LARGE), script=steps_taken, holding=holding_messages)
@settings(PATIENT, max_examples=60)
def test_holding_large_frames_changes_nothing_but_the_time(
    stream: Stream, script: list[tuple[str, int]], holding: dict[int, int]
) -> None:
    check_holding(stream, script, holding)


# --- The limit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [11, 126, 65_536, LIMIT])
@pytest.mark.parametrize("step", [100_000, 1000, 9], ids=["at once", "in chunks", "in small chunks"])
def test_a_raised_limit_holds_for_the_next_frame_of_the_chunk(size: int, step: int) -> None:
    socket = Ours(10)

    def raise_limit(_message: bytes) -> None:
        socket.max_message = LIMIT

    socket.on_message = raise_limit
    socket.feed(steps(raw(BINARY, b"first") + raw(BINARY, payload(size)) + raw(BINARY, payload(LIMIT + 1)), step))
    assert socket.outcome.messages == [b"first", payload(size)]
    assert socket.outcome.sent[2:4] == (1009).to_bytes(2, "big")


def test_a_raised_limit_holds_for_fragments() -> None:
    socket = Ours(10)

    def raise_limit(_message: bytes) -> None:
        socket.max_message = 20

    socket.on_message = raise_limit
    fragments = raw(BINARY, payload(15), fin=False) + raw(CONT, payload(5, 15))
    socket.feed(
        [raw(BINARY, b"first") + fragments + fragments + raw(BINARY, payload(15), fin=False) + raw(CONT, payload(6))]
    )
    assert socket.outcome.messages == [b"first", payload(20), payload(20)]
    assert socket.outcome.sent[2:4] == (1009).to_bytes(2, "big")


# --- Pongs, text, fragments ------------------------------------------------------------------------------------------


def test_while_blocked_the_latest_ping_alone_is_answered_later() -> None:
    socket = Ours(LIMIT)
    socket.stalled = True
    socket.feed([raw(PING, b"one") + raw(PING, b"two"), numbered(1), raw(PING, b"three")])
    assert socket.events == [Event("message", b"1")]
    socket.stalled = False
    socket.send_late_pong()
    assert socket.events == [Event("message", b"1"), answered(b"three")]
    socket.send_late_pong()
    assert len(socket.events) == 2
    socket.feed([raw(PING, b"four")])
    assert socket.events[2:] == [answered(b"four")]


@pytest.mark.parametrize("by_client", [True, False])
def test_a_late_pong_does_not_follow_a_close(by_client: bool) -> None:
    socket = Ours(LIMIT)
    socket.stalled = True
    socket.feed([raw(PING, b"one")])
    if by_client:
        socket.feed([raw(CLOSE, b"\x03\xe8")])
    else:
        socket.close(1000)
    # Blocked or not, the Close frame is the last thing that is said.
    ending = [close_frame(1000), Event("eof")]
    assert socket.events == ending + ([Event("closed")] if by_client else [])
    socket.stalled = False
    socket.send_late_pong()
    assert len(socket.events) == len(ending) + by_client


def test_a_violation_is_answered_while_blocked() -> None:
    socket = Ours(LIMIT)
    socket.stalled = True
    socket.feed([raw(3)])
    assert [event.kind for event in socket.events] == ["sent", "eof", "violation"]


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
@pytest.mark.parametrize("at_once", [True, False])
def test_any_number_of_empty_fragments_weighs_nothing(opcode: int, at_once: bool) -> None:
    socket = Ours(LIMIT).feed([raw(opcode, b"a", fin=False)])
    chunk = raw(CONT, fin=False) * 500
    chunks = [chunk] if at_once else list(steps(chunk, 6))

    def more() -> None:
        for piece in chunks:
            socket.data_received(piece)
        socket.partials.clear()
        socket.chunks.clear()

    more()
    tracemalloc.start()
    try:
        more()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            more()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A list of parts would hold 5000 more references, and as many objects.
    assert after - before < 4000
    assert socket.assembled == (1 if opcode == BINARY else 0)
    socket.feed([raw(CONT, b"b") + numbered(7)])
    assert socket.outcome.messages == ([b"ab"] if opcode == BINARY else []) + [b"7"]


def test_text_is_read_and_forgotten() -> None:
    socket = Ours(LIMIT)
    socket.feed([raw(TEXT, b"text") + numbered(1) + raw(TEXT, b"a", fin=False) + raw(CONT, payload(10_000), fin=False)])
    assert socket.assembled == 0
    socket.feed([raw(PING, b"x") + raw(CONT, b"end") + numbered(2)])
    assert socket.events == [Event("message", b"1"), answered(b"x"), Event("message", b"2")]


# --- Closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*CloseCode, 3000, 4999])
def test_our_close_frame(code: int) -> None:
    socket = Ours(LIMIT)
    if code in (CloseCode.NO_STATUS_RCVD, CloseCode.TLS_HANDSHAKE):
        with pytest.raises(AssertionError):
            socket.close(code, "reason")
        assert (socket.events, socket.phase) == ([], Phase.OPEN)
        return
    socket.close(code, "reason: ä")
    # 1006 is no code to send: the stream ends without a word.
    assert socket.events == ([] if code == 1006 else [close_frame(code, "reason: ä")]) + [Event("eof")]
    assert socket.phase is Phase.CLOSING


@pytest.mark.parametrize(("code", "reason"), [(999, ""), (5000, ""), (1000, "x" * 124)])
def test_a_close_frame_that_cannot_be_is_our_mistake(code: int, reason: str) -> None:
    socket = Ours(LIMIT)
    with pytest.raises(AssertionError):
        socket.close(code, reason)
    assert (socket.events, socket.phase) == ([], Phase.OPEN)


@pytest.mark.parametrize("phase", [Phase.OPENING, Phase.CLOSING, Phase.LOST])
def test_only_what_is_open_can_be_closed(phase: Phase) -> None:
    socket = Ours(LIMIT, phase)
    socket.close(1000)
    assert (socket.events, socket.phase) == ([], phase)


def test_a_transport_that_cannot_half_close_is_closed() -> None:
    socket = Ours(LIMIT)
    socket.wire.half_closes = False
    socket.close(1000)
    assert socket.events == [close_frame(1000)]
    assert socket.wire.is_closing()
    held = Ours(LIMIT)
    held.wire.half_closes = False
    held.hold(1)
    held.close(1000)  # the transport, which is closing, is not told to read on
    assert held.held == 0


AFTER = numbered(8) + raw(PING, b"x") + raw(PONG, b"x") + raw(CLOSE, b"\x03\xe9") + raw(3) + numbered(9)[:4]


def after_the_end() -> Iterator[bytes]:
    yield AFTER
    yield from steps(AFTER, 1)


@pytest.mark.parametrize(
    ("last", "code", "ending"),
    [
        (raw(CLOSE, b"\x03\xe9"), 1001, ["closed"]),
        (raw(3), 1002, ["violation"]),
        (raw(BINARY, payload(LIMIT + 1)), 1009, ["violation"]),
        (raw(CLOSE, b"\x03\xe8\xff"), 1007, ["violation"]),
        (b"", 1013, []),
    ],
    ids=["by the client", "broken rule", "too big", "bad reason", "by us"],
)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("before", [b"", numbered(1)[:3]], ids=["direct", "buffered"])
def test_nothing_is_parsed_after_a_close(
    last: bytes, code: int, ending: list[str], together: bool, before: bytes
) -> None:
    socket = Ours(LIMIT)
    if before:
        socket.feed([before])
    if not last:
        socket.on_message = at(1, lambda: socket.close(code))
    stream = numbered(1)[len(before) :] + last
    socket.feed([stream + AFTER] if together else [stream])
    socket.feed(after_the_end())
    assert [event.kind for event in socket.events] == ["message", "sent", "eof", *ending]
    assert socket.outcome.sent[2:4] == code.to_bytes(2, "big")
    assert socket.waiting is None
    assert len(socket.chunks) == 1 + bool(before)


def test_closed_by_the_handler_of_a_fragmented_message() -> None:
    socket = Ours(LIMIT)
    socket.on_message = at(1, lambda: socket.close(1008, "no"))
    socket.feed([raw(BINARY, b"1", fin=False) + raw(CONT) + AFTER])
    assert socket.events == [Event("message", b"1"), close_frame(1008, "no"), Event("eof")]


def test_closed_by_the_handler_of_a_pong() -> None:
    socket = Ours(LIMIT)
    socket.on_pong = lambda _payload: socket.close(1000)
    socket.feed([raw(PONG, b"x") + AFTER])
    assert socket.events == [Event("pong", b"x"), close_frame(1000), Event("eof")]


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
def test_closed_while_a_fragmented_message_is_under_way(opcode: int) -> None:
    socket = Ours(LIMIT).feed([raw(opcode, b"1", fin=False) + raw(CONT, b"2")[:5]])
    socket.close(1001)
    assert socket.events == [close_frame(1001), Event("eof")]
    socket.feed([raw(CONT, b"2")[5:], AFTER])
    socket.check()
    assert len(socket.events) == 2


@pytest.mark.parametrize("first", ["hold", "close"])
def test_held_and_closed_in_one_handler(first: str) -> None:
    socket = Ours(LIMIT)

    def both() -> None:
        if first == "hold":
            socket.hold(1)
        socket.close(1000)
        if first == "close":
            socket.hold(1)

    socket.on_message = at(1, both)
    socket.feed([numbered(1) + AFTER])
    assert socket.events == [Event("message", b"1"), close_frame(1000), Event("eof")]
    assert socket.waiting is None


def test_closing_lets_the_end_of_the_stream_be_read() -> None:
    socket = Ours(LIMIT)
    socket.hold(1)
    socket.feed([numbered(1, 2)])
    socket.close(1000)
    assert (socket.held, socket.reads(), socket.waiting) == (0, True, None)
    socket.release(1)
    assert numbers(socket) == []


def test_closed_at_release() -> None:
    socket = Ours(LIMIT)
    socket.hold(1)
    socket.feed([numbered(1) + raw(CLOSE, b"\x03\xe8") + numbered(2)])
    socket.release(1)
    assert [event.kind for event in socket.events] == ["message", "sent", "eof", "closed"]
    socket.check()


# --- Accounting ------------------------------------------------------------------------------------------------------


def wanted(frame: bytes, read: int) -> int:
    """How much of this frame must be there before any more can be said, when `read` bytes of it are."""
    if read == 0:
        return 0
    if read < 2:
        return 2
    head = {0xFE: 4, 0xFF: 10}.get(frame[1], 2)
    return head if read < head else len(frame)


@pytest.mark.parametrize("opcode", [BINARY, TEXT, PING, PONG])
@pytest.mark.parametrize("form", [7, 16, 64])
@pytest.mark.parametrize("size", [0, 1, 100])
def test_an_unfinished_frame_is_accounted_for(opcode: int, form: int, size: int) -> None:
    frame = raw(opcode, payload(size), form=form)
    for cut in range(len(frame)):
        for before in (b"", numbered(1)):
            socket = Ours(LIMIT)
            if before or cut:
                socket.feed([before + frame[:cut]])
            assert socket.partial == wanted(frame, cut)
            socket.feed([frame[cut:] + before])
            assert socket.partial == 0
    socket = Ours(LIMIT).feed(steps(frame, 1))
    news = [size for size, _ in groupby(socket.partials)]
    assert news == [*sorted({wanted(frame, read) for read in range(1, len(frame))}), 0]


@pytest.mark.parametrize("size", [126, 65_535, 65_536, LIMIT])
def test_a_large_unfinished_frame_is_accounted_for(size: int) -> None:
    frame = raw(BINARY, payload(size))
    socket = Ours(LIMIT)
    for cut in (1, 4, 10, 14, 100):
        socket = Ours(LIMIT).feed([numbered(1), frame[:cut]])
        assert socket.partial == wanted(frame, cut)
    socket.feed([frame[100:-1]])
    assert socket.partial == len(frame)
    socket.feed([frame[-1:] + frame[:50]])
    assert socket.partial == len(frame)
    socket.feed([frame[50:]])
    assert socket.partial == 0


def test_a_frame_refused_unfinished_is_no_longer_accounted_for() -> None:
    for form, limit in ((16, 125), (64, 125), (64, 65_535)):
        frame = raw(BINARY, payload(limit + 1), form=form)
        socket = Ours(limit).feed([numbered(1), frame[:3]])
        assert socket.partial
        socket.feed([frame[3:10]])
        assert (socket.phase, socket.partial) == (Phase.CLOSING, 0)


def test_the_next_unfinished_frame_has_a_time_of_its_own() -> None:
    one, two = numbered(1), raw(BINARY, payload(100))
    socket = Ours(LIMIT).feed([one[:5], one[5:] + two[:5], two[5:20]])
    assert [size for size, _ in groupby(socket.partials)] == [len(one), 0, len(two)]


def test_an_unfinished_frame_stays_accounted_for_while_held() -> None:
    frame = raw(BINARY, payload(100))
    socket = Ours(LIMIT).feed([frame[:10]])
    socket.hold(1)
    socket.hold(2)
    socket.feed([frame[10:20]])
    socket.release(2)
    assert set(socket.partials) == {len(frame)}
    socket.release(1)
    assert set(socket.partials) == {len(frame)}


def test_whole_frames_that_wait_are_no_unfinished_frame() -> None:
    socket = Ours(LIMIT)
    socket.on_message = at(1, lambda: socket.hold(1))
    socket.feed([numbered(1, 2) + numbered(3)[:4]])
    assert socket.partial == 0
    socket.release(1)
    assert socket.partial == len(numbered(3))


def test_an_unfinished_frame_is_accounted_for_once_reading_goes_on() -> None:
    """Else whoever is held as its frame begins may take as long as it likes, and as much memory."""
    frame = raw(BINARY, payload(60_000))
    socket = Ours(LIMIT)
    socket.on_frames = lambda count: socket.hold(1) if count else None
    socket.feed([numbered(1) + frame[:100]])
    assert (socket.held, socket.partial) == (1, 0)
    socket.on_frames = lambda _count: None
    socket.release(1)
    assert (socket.held, socket.partial) == (0, len(frame))
    socket.feed([frame[100:-1]])
    assert socket.partial == len(frame)
    socket.feed([frame[-1:]])
    assert socket.partial == 0
    assert socket.outcome.messages[-1] == payload(60_000)


def test_held_for_an_unfinished_frame() -> None:
    frame = raw(BINARY, payload(60_000))

    class Crowded(Ours):
        def partial_frame(self, size: int) -> None:
            super().partial_frame(size)
            if size > 1000:
                self.hold(4)

    socket = Crowded(LIMIT)
    socket.data_received(numbered(1) + frame[:100])
    assert (socket.held, socket.reads()) == (4, False)
    socket.data_received(frame[100:])
    assert numbers(socket) == [1]
    socket.release(4)
    assert (socket.outcome.messages[1:], socket.held, socket.reads()) == ([payload(60_000)], 0, True)


@given(stream=streams(SMALL))
@settings(PATIENT, max_examples=100)
def test_every_chunk_and_every_frame_is_accounted_for(stream: Stream) -> None:
    socket = Ours(stream.limit)
    position = 0
    for chunk in steps(stream.data, 5):
        if socket.phase is not Phase.OPEN:
            break
        socket.data_received(chunk)
        position += len(chunk)
    assert sum(socket.chunks) == position
    assert socket.frames == theirs(stream.data, stream.limit).frames
    if socket.phase is Phase.OPEN:
        assert (socket.partial == 0) is (socket.waiting is None and not theirs(stream.data, stream.limit).fragmented)


# --- Opening ---------------------------------------------------------------------------------------------------------

STREAM = numbered(1) + raw(PING, b"x") + raw(BINARY, b"2", fin=False) + raw(CONT, b"3")
EVENTS = [Event("message", b"1"), answered(b"x"), Event("message", b"23")]


@pytest.mark.parametrize("cut", range(len(HEAD) + len(STREAM)))
def test_frames_may_follow_the_request_at_once(cut: int) -> None:
    stream = HEAD + STREAM
    socket = Ours(LIMIT, Phase.OPENING)
    socket.feed([stream[:cut], stream[cut:]] if cut else [stream])
    assert socket.heads == [HEAD]
    assert socket.events == EVENTS
    assert (socket.waiting, socket.partial) == (None, 0)


def test_a_request_byte_by_byte() -> None:
    socket = Ours(LIMIT, Phase.OPENING).feed(steps(HEAD + STREAM, 1))
    assert socket.heads == [HEAD]
    assert socket.events == EVENTS


def test_half_a_frame_after_the_request() -> None:
    frame = raw(BINARY, payload(200))
    socket = Ours(LIMIT, Phase.OPENING).feed([HEAD + frame[:20]])
    assert (socket.waiting, socket.partial) == (frame[:20], len(frame))
    socket.feed([frame[20:]])
    assert socket.outcome.messages == [payload(200)]


def test_an_unfinished_request_is_no_unfinished_frame() -> None:
    socket = Ours(LIMIT, Phase.OPENING).feed([HEAD[:10], HEAD[10:20]])
    assert socket.waiting == HEAD[:20]
    assert set(socket.partials) == {0}
    assert socket.frames == 0


def test_a_request_held() -> None:
    socket = Ours(LIMIT, Phase.OPENING)
    socket.hold(1)
    socket.hold(2)
    assert not socket.reads()
    socket.feed([HEAD + STREAM[:10], STREAM[10:]])
    socket.release(2)
    assert socket.heads == []
    socket.release(1)
    assert socket.heads == [HEAD]
    assert socket.events == EVENTS
    assert socket.reads()


def test_held_by_the_opening() -> None:
    class Held(Ours):
        def opening_received(self, buffer: bytearray) -> int:
            used = super().opening_received(buffer)
            if used:
                self.hold(1)
            return used

    socket = Held(LIMIT, Phase.OPENING).feed([HEAD + STREAM])
    assert (socket.phase, socket.events, socket.waiting) == (Phase.OPEN, [], STREAM)
    socket.release(1)
    assert socket.events == EVENTS


def test_a_refused_opening_leaves_nothing() -> None:
    class Refusing(Ours):
        def opening_received(self, buffer: bytearray) -> int:
            self._half_close()
            self._enter_closing()
            return 0

    socket = Refusing(LIMIT, Phase.OPENING).feed([b"nonsense", STREAM])
    assert socket.events == [Event("eof")]
    assert (socket.phase, socket.waiting, socket.chunks) == (Phase.CLOSING, None, [8])


def test_what_comes_when_it_is_lost_is_thrown_away() -> None:
    socket = Ours(LIMIT, Phase.LOST)
    socket.data_received(STREAM)
    assert (socket.events, socket.chunks, socket.waiting) == ([], [], None)


# --- Accounting for a fragmented message -----------------------------------------------------------------------------


def test_fragments_are_accounted_for_until_the_message_is_complete() -> None:
    socket = Ours(LIMIT)
    socket.feed([raw(BINARY, payload(1000), fin=False)])
    assert socket.partial == 1001
    socket.feed([raw(CONT, payload(500), fin=False) + raw(PING, b"alive?")])
    assert socket.partial == 1501
    last = raw(CONT, payload(200))
    socket.feed([last[:50]])
    assert socket.partial == 1501 + len(last)
    assert 0 not in socket.partials[1:], "each report of 0 would start the deadline anew"
    socket.feed([last[50:]])
    assert socket.partial == 0
    assert len(socket.outcome.messages) == 1


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
def test_a_message_of_empty_fragments_is_unfinished_too(opcode: int) -> None:
    socket = Ours(LIMIT)
    socket.feed([raw(opcode, b"", fin=False)])
    for _ in range(5):
        socket.feed([raw(CONT, b"", fin=False)])
    assert socket.partial == 1
    assert 0 not in socket.partials


def test_a_message_after_a_fragmented_one_has_its_own_time() -> None:
    socket = Ours(LIMIT)
    begun = raw(BINARY, payload(300))[:100]
    socket.feed([raw(BINARY, payload(10), fin=False), raw(CONT, b"", fin=True) + begun])
    assert socket.partials[-2:] == [0, len(raw(BINARY, payload(300)))]
