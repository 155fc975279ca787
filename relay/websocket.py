"""WebSocket framing (RFC 6455) over an asyncio transport: bytes in, whole binary messages out.

Framing is scanned here alone. A complete, unfragmented, masked binary message, which is nearly everything that a relay
sees, is taken straight from the receive buffer; so is a pong. All the rest (pings, text, fragments, closing, every
violation) is given, in whole frames, to `websockets`' sans-I/O `Protocol`, which is made when first needed and let go
as soon as no fragmented message is under way. The differential tests hold both to the same messages and close codes.

After a Close frame of either side nothing more is parsed: the socket is half-closed, what still comes is thrown away,
and the pulse cuts it off after a deadline.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from enum import Enum
from typing import Final, cast

from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # no wheel for this platform: slower, but the same
    from websockets.utils import apply_mask as apply_mask

FIN_BINARY: Final = 0x82
FIN_PONG: Final = 0x8A
MASKED: Final = 0x80

_OPCODES: Final = frozenset(Opcode)
_DATA: Final = frozenset((Opcode.CONT, Opcode.TEXT, Opcode.BINARY))

# websockets logs frames at debug level and closings at info level: neither may ever reach a log of ours.
silent: Final = logging.getLogger("relay.websockets")
silent.addHandler(logging.NullHandler())
silent.propagate = False
silent.setLevel(logging.CRITICAL)


class Phase(Enum):
    """Where a connection stands."""

    OPENING = "opening"  # the HTTP request is not complete
    OPEN = "open"
    CLOSING = "closing"  # our Close frame and EOF are on their way
    LOST = "lost"


class WebSocket(asyncio.Protocol, ABC):
    """One connection. A subclass gives the opening, takes the messages, and is told when it is over.

    Reading can be held for several reasons at once; it goes on when the last one is gone. While it is held, bytes that
    were already read wait in the buffer, unparsed.
    """

    __slots__ = (
        "_buffer",
        "_fragments",
        "_holds",
        "_late_pong",
        "_need",
        "_protocol",
        "max_message",
        "phase",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, max_message: int) -> None:
        self.phase = Phase.OPENING
        self.max_message = max_message
        self._buffer: bytearray | None = None
        self._need = 0
        self._holds = 0
        self._protocol: Protocol | None = None
        self._fragments: bytearray | None = None
        self._late_pong: bytes | None = None

    # --- What a subclass gives ---------------------------------------------------------------------------------------

    @abstractmethod
    def opening_received(self, buffer: bytearray) -> int:
        """Take bytes of the HTTP request; return how many were used up, 0 while it is incomplete."""

    @abstractmethod
    def run_received(self, data: bytes | bytearray, position: int) -> tuple[int, int]:
        """Take plain binary messages that stand one after another in `data` from `position` on, at less cost.

        As many as it likes, each complete, unfragmented, masked and within `max_message`; what it leaves is given to
        :meth:`message_received`. Once it held reads or closed the socket it takes no more.

        Returns:
            The position behind the last one taken, and how many were taken.
        """

    @abstractmethod
    def message_received(self, message: bytes) -> None:
        """Take one binary message; it may hold reads, close the socket and move `max_message`."""

    @abstractmethod
    def pong_received(self, payload: bytes) -> None:
        """Take a pong."""

    @abstractmethod
    def chunk_received(self, size: int) -> None:
        """Account for `size` bytes read, before they are parsed."""

    @abstractmethod
    def frames_received(self, count: int) -> None:
        """Account for `count` frames parsed from what was read."""

    @abstractmethod
    def partial_frame(self, size: int) -> None:
        """Account for an unfinished message that takes `size` bytes in memory; 0 when there is none."""

    @abstractmethod
    def postponed(self) -> bool:
        """Tell whether an unusual frame, which costs much more than a plain one, has to wait; then reads are held."""

    @abstractmethod
    def violation(self) -> None:
        """The client broke RFC 6455 or a size limit; the Close frame that says so is on its way."""

    @abstractmethod
    def client_closed(self) -> None:
        """The client sent a Close frame; it was echoed."""

    @property
    @abstractmethod
    def blocked(self) -> bool:
        """Whether the transport is not taking bytes now."""

    # --- Reading -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what the transport read."""
        if self.phase is Phase.CLOSING or self.phase is Phase.LOST:
            return
        self.chunk_received(len(data))
        buffer = self._buffer
        if buffer is not None:
            buffer += data
            if self._holds:
                return
            if len(buffer) >= self._need:
                self._parse_buffer()
            elif self.phase is Phase.OPEN:
                self._note_partial()
        elif self.phase is Phase.OPEN:
            self._take_rest(data, 0, 0)
        else:
            self._buffer = bytearray(data)
            if not self._holds:
                self._parse_buffer()

    def _take_rest(self, data: bytes, position: int, count: int) -> None:
        """Take a chunk from `position` on, before which `count` frames were; keep what is not complete, or held."""
        position = self._scan(data, position, count)
        if self.phase is Phase.OPEN and (position < len(data) or self._fragments is not None):
            if position < len(data):
                self._buffer = bytearray(data[position:])
            self._note_partial()

    def _parse_buffer(self) -> None:
        """Parse what waits in the buffer, as far as it goes."""
        buffer = self._buffer
        if buffer is None:
            return
        # Taken away meanwhile: a release by whoever takes a message must not parse the same bytes again.
        self._buffer = None
        if self.phase is Phase.OPENING:
            del buffer[: self.opening_received(buffer)]
        if self.phase is Phase.OPEN and not self._holds:
            used = self._scan(buffer)
            del buffer[:used]
            if used and self._fragments is None:
                # What waits from here on is another message, with a time of its own to arrive.
                self.partial_frame(0)
        if self.phase in (Phase.CLOSING, Phase.LOST):
            return
        if buffer:
            self._buffer = buffer
        self._note_partial()

    def _note_partial(self) -> None:
        """Account for what is unfinished: the frame that is being received, and the fragments before it."""
        # While reading is held, what waits is whole frames for all we know, and bounded by one read.
        size = self._need if self._buffer is not None and not self._holds else 0
        if self._fragments is not None:
            # One more: a message of nothing but empty fragments is unfinished too.
            size += len(self._fragments) + 1
        self.partial_frame(size)

    @property
    def unparsed(self) -> int:
        """Bytes in memory that are no whole message yet."""
        return len(self._buffer or b"") + len(self._fragments or b"")

    def _scan(self, data: bytes | bytearray, position: int = 0, count: int = 0) -> int:
        """Parse frames of `data` from `position` on; return how far it got. Sets `_need` for the rest.

        `count` is how many frames of this chunk were taken already.
        """
        end = len(data)
        self._need = 0
        while not self._stopped():
            if self._fragments is None:
                position, taken = self.run_received(data, position)
                count += taken
                if self._stopped():
                    break
            if end - position < 2:
                self._need = 2
                break
            used = self._one(data, position, end)
            if used == 0:
                break
            position += used
            count += 1
        if self._stopped():
            self._need = 0
        self.frames_received(count)
        return position

    def _stopped(self) -> bool:
        """Whether nothing more is to be parsed now."""
        return self._holds != 0 or self.phase is not Phase.OPEN

    def _one(self, data: bytes | bytearray, position: int, end: int) -> int:
        """Handle one frame; return its bytes, or 0 (and set `_need`) when it is incomplete or has to wait."""
        if data[position] == FIN_BINARY and self._fragments is None:
            second = data[position + 1]
            if second < 0xFE:
                start = position + 6
                stop = start + second - MASKED
            elif second == 0xFE:
                start = position + 8
                stop = start + int.from_bytes(data[position + 2 : position + 4], "big")
            else:
                start = position + 14
                stop = start + int.from_bytes(data[position + 2 : position + 10], "big")
            if second >= MASKED and start <= end and stop - start <= self.max_message:
                if stop > end:
                    self._need = stop - position
                    return 0
                self.message_received(apply_mask(data[start:stop], data[start - 4 : start]))
                return stop - position
        if self.postponed():
            self._need = 0
            return 0
        return self._unusual(data, position, end)

    def _unusual(self, data: bytes | bytearray, position: int, end: int) -> int:
        """Handle one frame that the fast path leaves; return its bytes, or 0 (and set `_need`) when it is incomplete.

        A bad opcode, a missing mask and a length beyond the limit are passed on as soon as they show, so that nobody
        can make us wait for the rest. For other violations the parser wants the whole frame, and that is bounded.
        """
        first, second = data[position], data[position + 1]
        if (first & 0x0F) not in _OPCODES or second < MASKED:
            self._feed(bytes(data[position : position + 2]))
            return 2
        head = 2
        length = second & 0x7F
        if length >= 126:
            head = 4 if length == 126 else 10
            if end - position < head:
                self._need = head
                return 0
            length = int.from_bytes(data[position + 2 : position + head], "big")
        limit = self.max_message
        if self._protocol is not None and self._protocol.current_size is not None:
            limit -= self._protocol.current_size
        if length > limit:
            self._feed(bytes(data[position : position + head]))
            return head
        total = head + 4 + length
        if end - position < total:
            self._need = total
            return 0
        if first == FIN_PONG and length < 126:
            start = position + head + 4
            self.pong_received(apply_mask(data[start : start + length], data[start - 4 : start]))
        else:
            self._feed(bytes(data[position : position + total]))
        return total

    def _feed(self, frame: bytes) -> None:
        """Give one frame to the sans-I/O protocol and do what it says."""
        protocol = self._protocol
        if protocol is None:
            protocol = Protocol(SERVER, state=State.OPEN, max_size=self.max_message, logger=silent)
            self._protocol = protocol
        protocol.receive_data(frame)
        message = None
        closed = False
        for event in cast("list[Frame]", protocol.events_received()):
            opcode = event.opcode
            if opcode in _DATA:
                message = self._assemble(event)
            elif opcode is Opcode.CLOSE:
                closed = True
        self._write_protocol(protocol)
        if protocol.state is not State.OPEN:
            self._enter_closing()
            if closed:
                self.client_closed()
            else:
                self.violation()
            return
        if protocol.current_size is None:
            self._protocol = None
            # It and its generator hold each other: without this only the garbage collector would free them.
            protocol.parser.close()
        if message is not None:
            self.message_received(message)

    def _assemble(self, frame: Frame) -> bytes | None:
        """Return a whole binary message when this frame ends one; text is read to its end and ignored."""
        if frame.opcode is not Opcode.CONT:
            if frame.fin:
                return bytes(frame.data) if frame.opcode is Opcode.BINARY else None
            # One buffer, not a list of parts: a million empty fragments must not become a million objects.
            self._fragments = bytearray(frame.data) if frame.opcode is Opcode.BINARY else _Ignored()
            return None
        fragments = self._fragments
        if fragments is None:
            return None
        fragments += frame.data
        if not frame.fin:
            return None
        self._fragments = None
        self.partial_frame(0)
        return None if isinstance(fragments, _Ignored) else bytes(fragments)

    def _write_protocol(self, protocol: Protocol) -> None:
        for data in protocol.data_to_send():
            if not data:
                self._half_close()
            elif protocol.state is State.OPEN and self.blocked:
                # A pong for a client that does not read: RFC 6455 §5.5.3 lets us answer the latest ping alone.
                self._late_pong = data
            else:
                self.transport.write(data)

    def send_late_pong(self) -> None:
        """Send the pong that waited until the transport took bytes again, if there is one."""
        pong, self._late_pong = self._late_pong, None
        if pong is not None and self.phase is Phase.OPEN:
            self.transport.write(pong)

    # --- Holding -----------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """The reasons, as bits, for which reading is held."""
        return self._holds

    def hold(self, reason: int) -> None:
        """Read no more until :meth:`release` was called for this reason."""
        if not self._holds and self.phase in (Phase.OPENING, Phase.OPEN):
            self.transport.pause_reading()
        self._holds |= reason

    def release(self, reason: int) -> None:
        """Drop one reason to hold; without any left, parse what waits and read on."""
        if not self._holds & reason:
            return
        self._holds &= ~reason
        if self._holds or self.phase not in (Phase.OPENING, Phase.OPEN):
            return
        # Even if no frame is complete: one that began to wait while reading was held was not accounted for.
        self._parse_buffer()
        # Parsing may have held again, or closed.
        if not self._holds and self.phase in (Phase.OPENING, Phase.OPEN):
            self.transport.resume_reading()

    def parse_held(self) -> None:
        """Parse the whole frames that wait in the buffer in spite of all holds, which stay: reading ends for good."""
        holds = self._holds
        waiting = -1
        while self.phase is Phase.OPEN and self._buffer is not None and len(self._buffer) != waiting:
            waiting = len(self._buffer)
            self._holds = 0
            self._parse_buffer()
        if self.phase is Phase.OPEN:
            self._holds |= holds

    # --- Closing -----------------------------------------------------------------------------------------------------

    def close(self, code: CloseCode | int, reason: str = "") -> None:
        """Send a Close frame and EOF; what the client sends from now on is thrown away."""
        if self.phase is Phase.OPEN:
            protocol = self._protocol or Protocol(SERVER, state=State.OPEN, logger=silent)
            try:
                protocol.fail(code, reason)
            except ProtocolError as error:
                raise AssertionError("a close code of ours is not valid") from error
            self._write_protocol(protocol)
            self._enter_closing()

    def _enter_closing(self) -> None:
        self.phase = Phase.CLOSING
        self._protocol = None
        self._fragments = None
        self._late_pong = None
        self._buffer = None
        self._holds = 0
        # The end of the stream is only seen by reading, which is paused while a release parses what waited, too.
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _half_close(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


class _Ignored(bytearray):
    """Stands for a fragmented text message: whatever is added is forgotten."""

    def __iadd__(self, _data: object) -> "_Ignored":
        return self
