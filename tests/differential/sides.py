"""The two sides of the comparison: our `WebSocket` on a transport that records, and `websockets`' parser on its own."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, NamedTuple, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from relay.websocket import Phase, WebSocket, silent
from tests.differential.raw import steps


class Event(NamedTuple):
    """One thing that happened, in its place among the others."""

    kind: Literal["message", "pong", "sent", "eof", "closed", "violation"]
    data: bytes = b""

    def __repr__(self) -> str:
        if len(self.data) <= 64:
            return f"{self.kind}({self.data.hex(' ')})"
        return f"{self.kind}({self.data[:16].hex(' ')}… {len(self.data)} bytes, {sha256(self.data).hexdigest()[:8]})"


@dataclass(frozen=True)
class Outcome:
    """All that can be told from outside."""

    events: list[Event]
    frames: int
    """Frames taken, the one that broke a rule included."""
    fragmented: bool
    """Whether a fragmented message is under way."""

    @property
    def messages(self) -> list[bytes]:
        """The binary messages."""
        return [event.data for event in self.events if event.kind == "message"]

    @property
    def sent(self) -> bytes:
        """What was written."""
        return b"".join(event.data for event in self.events if event.kind == "sent")


class Wire(asyncio.Transport):
    """A transport that takes everything and records it among the other events."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self._events = events
        self._closing = False
        self.reading = True
        self.half_closes = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data, "websockets' sign for the end of the stream is no data"
        self._events.append(Event("sent", bytes(data)))

    def write_eof(self) -> None:
        self._events.append(Event("eof"))

    def can_write_eof(self) -> bool:
        return self.half_closes

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self._closing
        self.reading = True


class Ours(WebSocket):
    """The class under test, with nothing around it: it records, and calls `on_message` where a session would act."""

    def __init__(self, limit: int, phase: Phase = Phase.OPEN) -> None:
        super().__init__(limit)
        self.phase = phase
        self.events: list[Event] = []
        self.wire = Wire(self.events)
        self.transport = self.wire
        self.stalled = False
        self.on_message: Callable[[bytes], None] = lambda _message: None
        self.on_pong: Callable[[bytes], None] = lambda _payload: None
        self.on_frames: Callable[[int], None] = lambda _count: None
        self.heads: list[bytes] = []
        self.chunks: list[int] = []
        self.frames = 0
        self.partial = 0
        self.partials: list[int] = []

    def opening_received(self, buffer: bytearray) -> int:
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return 0
        self.heads.append(bytes(buffer[:end]))
        self.phase = Phase.OPEN
        return end

    def run_received(self, _data: bytes | bytearray, position: int) -> tuple[int, int]:
        return position, 0

    def message_received(self, message: bytes) -> None:
        assert type(message) is bytes
        assert self.phase is Phase.OPEN
        assert not self.held
        self.events.append(Event("message", message))
        self.on_message(message)

    def pong_received(self, payload: bytes) -> None:
        assert type(payload) is bytes
        assert self.phase is Phase.OPEN
        self.events.append(Event("pong", payload))
        self.on_pong(payload)

    def chunk_received(self, size: int) -> None:
        self.chunks.append(size)

    def frames_received(self, count: int) -> None:
        self.frames += count
        self.on_frames(count)

    def postponed(self) -> bool:
        return False

    def partial_frame(self, size: int) -> None:
        self.partial = size
        self.partials.append(size)

    def violation(self) -> None:
        assert self.phase is Phase.CLOSING
        self.events.append(Event("violation"))

    def client_closed(self) -> None:
        assert self.phase is Phase.CLOSING
        self.events.append(Event("closed"))

    def reads(self) -> bool:
        """Tell whether the transport is told to read."""
        return self.wire.reading

    @property
    def blocked(self) -> bool:
        return self.stalled

    @property
    def unusual(self) -> Protocol | None:
        """The sans-I/O protocol, while there is one."""
        return self._protocol

    @property
    def waiting(self) -> bytes | None:
        """What was read and not parsed; None where not even an empty buffer is kept."""
        return None if self._buffer is None else bytes(self._buffer)

    @property
    def assembled(self) -> int | None:
        """How many bytes of a fragmented message are kept; None where there is no such message."""
        return None if self._fragments is None else len(self._fragments)

    def feed(self, chunks: Iterable[bytes]) -> "Ours":
        """Read these chunks, one by one; what may be kept between two of them is checked."""
        for chunk in chunks:
            self.data_received(chunk)
            self.check()
        return self

    def check(self) -> None:
        """Check what holds between any two chunks."""
        if self.phase is Phase.CLOSING:
            assert (self.unusual, self.assembled, self.waiting, self._late_pong) == (None, None, None, None)
            assert self.wire.reading or self.wire.is_closing()
            return
        assert self.wire.reading is (not self.held)
        assert (self.unusual is None) is (self.assembled is None)
        assert self.waiting != b""
        if self.unusual is not None:
            assert self.unusual.state is State.OPEN
            assert self.unusual.current_size is not None
            assert not self.unusual.reader.buffer, "it is given whole frames alone"

    @property
    def outcome(self) -> Outcome:
        """All that can be told from outside."""
        return Outcome(self.events, self.frames, self.unusual is not None)


def ours(chunks: Iterable[bytes], limit: int) -> Outcome:
    """Let our class read these chunks."""
    return Ours(limit).feed(chunks).outcome


_SMALLEST: Final = 6


def theirs(stream: bytes, limit: int) -> Outcome:
    """Let `websockets` read this stream: messages as its own connection classes put them together, but for text.

    No two whole frames fit into one piece of the smallest frame's size, so the order of what is received and what is
    sent can be told although it comes in two lists.
    """
    protocol = Protocol(SERVER, state=State.OPEN, max_size=limit, logger=silent)
    events: list[Event] = []
    parts: list[bytes] = []
    binary = False
    frames = 0
    ended = False
    for piece in steps(stream, _SMALLEST):
        protocol.receive_data(piece)
        for frame in cast("list[Frame]", protocol.events_received()):
            frames += 1
            if frame.opcode is Opcode.PONG:
                events.append(Event("pong", bytes(frame.data)))
            if frame.opcode not in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
                continue
            if frame.opcode is not Opcode.CONT:
                binary = frame.opcode is Opcode.BINARY
                parts.clear()
            parts.append(bytes(frame.data))
            if frame.fin and binary:
                events.append(Event("message", b"".join(parts)))
        events += [Event("sent", data) if data else Event("eof") for data in protocol.data_to_send()]
        if protocol.state is not State.OPEN and not ended:
            ended = True
            frames += protocol.parser_exc is not None
            events.append(Event("closed" if protocol.parser_exc is None else "violation"))
    return Outcome(events, frames, protocol.current_size is not None and not ended)
