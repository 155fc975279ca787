"""What a NATS server says, in whatever pieces it comes: messages are handed over, the rest is left to nats-py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from relay.backplane.nats_wire import _MAX_LINE, _MAX_LINES, _MAX_MESSAGE, _SIZE, Inlet, Wire
from tests.support.clients import run_async

if TYPE_CHECKING:
    from collections.abc import Sequence

Said = tuple[int, bytes, bytes, bytes, bytes | None]


class Ended:
    """As much of a transport as an inlet needs that gives up."""

    def __init__(self) -> None:
        self.aborted = False
        self.reading = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def inlet(said: list[Said]) -> tuple[Inlet, Ended]:
    made, transport = Inlet(lambda *what: said.append(what)), Ended()
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, transport


def feed(reader: Inlet, data: bytes, step: int = 1 << 20) -> None:
    """Put bytes where the event loop would, no more at once than there is room."""
    position = 0
    while position < len(data):
        room = reader.get_buffer(-1)
        count = min(step, len(room), len(data) - position)
        assert count
        room[:count] = data[position : position + count]
        position += count
        reader.buffer_updated(count)


def message(sid: int, reply: bytes, payload: bytes, headers: bytes | None = None) -> bytes:
    answer = reply + b" " if reply else b""
    if headers is None:
        return b"MSG a.b %d %s%d\r\n%s\r\n" % (sid, answer, len(payload), payload)
    size = len(headers) + len(payload)
    return b"HMSG a.b %d %s%d %d\r\n%s%s\r\n" % (sid, answer, len(headers), size, headers, payload)


messages = st.tuples(
    st.integers(1, 2**40),
    st.sampled_from((b"", b"blindrelay.answer.1")),
    st.one_of(st.binary(max_size=80), st.just(b"\r\nMSG x 1 3\r\nabc\r\n"), st.just(bytes(2_000))),
    st.one_of(st.none(), st.just(b"NATS/1.0 503\r\n\r\n")),
)


lines = st.sampled_from((b"PING\r\n", b"PONG\r\n", b"-ERR 'x'\r\n"))


@given(st.lists(st.one_of(messages, lines), max_size=12), st.integers(1, 4096))
def test_any_division_of_the_bytes_brings_the_same(items: Sequence[Any], step: int) -> None:
    async def run() -> None:
        said: list[Said] = []
        reader, transport = inlet(said)
        data = b"".join(item if isinstance(item, bytes) else message(*item) for item in items)
        feed(reader, data, step)
        wanted = [item for item in items if not isinstance(item, bytes)]
        assert said == [(sid, b"a.b", reply, payload, headers) for sid, reply, payload, headers in wanted]
        others = [item for item in items if isinstance(item, bytes)]
        assert [await reader.line() for _ in others] == others
        assert not reader.at_eof
        assert not transport.aborted

    asyncio.run(run())


@run_async
async def test_a_message_larger_than_the_buffer_is_taken_and_the_room_given_back() -> None:
    said: list[Said] = []
    reader, _ = inlet(said)
    feed(reader, message(1, b"", bytes(3 * _SIZE)) + b"MSG a.b 2 1\r\n")
    assert [len(payload) for _, _, _, payload, _ in said] == [3 * _SIZE]
    feed(reader, b"x\r\n")
    assert said[1] == (2, b"a.b", b"", b"x", None)
    assert len(reader.get_buffer(-1)) == _SIZE


@pytest.mark.parametrize(
    "data",
    [
        b"MSG a.b 1\r\n",
        b"MSG\r\n\r\nMSG a.b x 3\r\nabc\r\n",
        b"MSG a.b 1 -3\r\nabc\r\n",
        b"MSG a.b 1 one two 3\r\nabc\r\n",
        b"MSG a.b 1 %d\r\n" % (_MAX_MESSAGE + 1),
        b"HMSG a.b 1 9 3\r\nabc\r\n",
        b"HMSG a.b 1 3\r\nabc\r\n",
        bytes(_MAX_LINE + 2),
    ],
)
@run_async
async def test_what_no_server_says_ends_the_connection(data: bytes) -> None:
    said: list[Said] = []
    reader, transport = inlet(said)
    feed(reader, data)
    assert transport.aborted
    feed(reader, message(1, b"", b"too late"))
    assert said == []
    reader.connection_lost(None)
    with pytest.raises(ProtocolError):
        while True:
            await reader.line()


@run_async
async def test_the_end_is_told_to_whoever_waits() -> None:
    reader, _ = inlet([])
    line = asyncio.ensure_future(reader.line())
    reader.pause_writing()
    drained = asyncio.ensure_future(reader.drain())
    await asyncio.sleep(0)
    assert not line.done()
    assert not drained.done()
    reader.connection_lost(None)
    assert await line == b""
    with pytest.raises(ConnectionResetError):
        await drained
    assert reader.at_eof
    broken, _ = inlet([])
    broken.connection_lost(TimeoutError("no answer"))
    assert not broken.at_eof
    with pytest.raises(TimeoutError):
        await broken.line()


@run_async
async def test_drain_waits_until_the_kernel_takes_more() -> None:
    reader, _ = inlet([])
    await reader.drain()
    reader.pause_writing()
    drained = asyncio.ensure_future(reader.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    reader.resume_writing()
    await drained


@run_async
async def test_a_wire_without_a_connection_says_so_and_takes_nothing() -> None:
    wire = Wire(lambda *_: None)
    assert bool(wire)
    assert wire.at_eof()
    wire.write(b"PING\r\n")
    wire.close()
    wire.abort()
    await wire.wait_closed()
    for use in (wire.readline(), wire.read(1), wire.drain()):
        with pytest.raises(ConnectionResetError):
            await use


@run_async
async def test_lines_that_nobody_reads_are_bounded() -> None:
    said: list[Said] = []
    reader, transport = inlet(said)
    feed(reader, b"PING\r\n" * (_MAX_LINES + 1) + message(1, b"", b"x"))
    assert not transport.reading
    assert len(said) == 1
    for _ in range(_MAX_LINES):
        assert await reader.line() == b"PING\r\n"
    assert not transport.reading
    await reader.line()
    assert transport.reading


@run_async
async def test_whoever_stops_waiting_does_not_stop_the_others() -> None:
    reader, _ = inlet([])
    reader.pause_writing()
    first, second = (asyncio.ensure_future(reader.drain()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    assert not second.done()
    reader.resume_writing()
    await second
