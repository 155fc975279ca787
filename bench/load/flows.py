"""The load itself: frames go round between clients, as many in flight as asked, bytes are counted.

One thread, one epoll. A recipient's stream is known ahead (see :mod:`bench.load.packets`), so a chunk of it costs a
division and two comparisons, however many frames it holds; whatever differs is parsed frame by frame.
"""

import select
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

from bench.load.framing import BINARY, CLOSE, PING, PONG, BadStream, frame_size, masked, take_messages
from bench.load.opening import Link
from bench.load.packets import PREFIX, Edge
from bench.machine import cpu_time
from wire import commands as c
from wire.errors import WireError
from wire.session import PeerFrame

_CHUNK: Final = 1 << 20
_DRAIN: Final = 20.0
_ENTRY: Final = slice(10, 30)


@dataclass(slots=True)
class Measured:
    """One slice of load, as the generator saw it; seconds and frames of the measured window alone."""

    frames: int = 0
    seconds: float = 0.0
    relay_cpu: float = 0.0
    relay_waiting: float = 0.0
    generator_cpu: float = 0.0
    generator_waiting: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


class Reader(Protocol):
    """What listens to one socket."""

    link: Link

    def readable(self, load: "Load") -> None:
        """Take what came."""


class Quiet:
    """A socket on which nothing but pings and the relay's own frames is to come: a sender's."""

    __slots__ = ("link",)

    def __init__(self, link: Link) -> None:
        self.link = link

    def readable(self, load: "Load") -> None:
        """Answer pings; see that nothing is refused."""
        data = self.link.socket.recv(_CHUNK)
        if not data:
            raise BadStream("the relay hung up on a sender")
        self.link.buffer += data
        for message in take_messages(self.link.buffer):
            load.unusual(self.link, message.opcode, message.payload)


class Stream:
    """A recipient with one sender: its stream is known byte by byte."""

    __slots__ = ("_have", "edge", "link")

    def __init__(self, edge: Edge) -> None:
        self.link = edge.recipient
        self.edge = edge
        self._have = 0

    def readable(self, load: "Load") -> None:
        """Count the frames of one chunk and let as many be sent again."""
        edge = self.edge
        link = self.link
        buffer = load.buffer
        if link.buffer:
            self._slowly(link.socket.recv(_CHUNK), load)
            return
        count = link.socket.recv_into(buffer)
        if count == 0:
            raise BadStream("the relay hung up on a recipient")
        have, size = self._have, edge.size
        whole, rest = divmod(have + count, size)
        first = size - have if have else 0
        expected = edge.expected
        if first < count:
            wanted = expected[(edge.delivered + (1 if have else 0)) % len(expected)]
            if not buffer.startswith(wanted if count - first >= PREFIX else wanted[: count - first], first):
                self._slowly(bytes(memoryview(buffer)[:count]), load)
                return
            last = count - rest
            if rest and last != first:
                wanted = expected[(edge.delivered + whole) % len(expected)]
                if not buffer.startswith(wanted if rest >= PREFIX else wanted[:rest], last):
                    self._slowly(bytes(memoryview(buffer)[:count]), load)
                    return
        self._have = rest
        if whole:
            edge.delivered += whole
            load.delivered(edge, whole)

    def _slowly(self, data: bytes, load: "Load") -> None:
        """Parse a chunk that holds something else too, frame by frame."""
        if not data:
            raise BadStream("the relay hung up on a recipient")
        edge, buffer = self.edge, self.link.buffer
        if self._have:
            # What was taken as the start of an expected frame stands in for itself.
            start = edge.expected[edge.delivered % len(edge.expected)][: self._have]
            buffer += start + bytes(self._have - len(start))
            self._have = 0
        buffer += data
        whole = 0
        while (size := frame_size(buffer)) is not None and size <= len(buffer):
            if buffer.startswith(edge.expected[edge.delivered % len(edge.expected)]):
                edge.delivered += 1
                whole += 1
                del buffer[:size]
                continue
            message = next(take_messages(buffer))
            load.unusual(self.link, message.opcode, message.payload)
        wanted = edge.expected[edge.delivered % len(edge.expected)]
        if buffer and buffer.startswith(wanted[: len(buffer)]):
            self._have = len(buffer)
            buffer.clear()
        if whole:
            load.delivered(edge, whole)


class Mixed:
    """A recipient with many senders: each frame is told by its sender's masked id and nonce."""

    __slots__ = ("_edges", "link")

    def __init__(self, edges: Sequence[Edge]) -> None:
        self.link = edges[0].recipient
        self._edges = {
            expected[_ENTRY]: (edge, number) for edge in edges for number, expected in enumerate(edge.expected)
        }

    def readable(self, load: "Load") -> None:
        """Tell each frame's sender, see that none is missing, and let it send another."""
        data = self.link.socket.recv(_CHUNK)
        if not data:
            raise BadStream("the relay hung up on a recipient")
        buffer = self.link.buffer
        buffer += data
        at, end = 0, len(buffer)
        while (size := frame_size(buffer, at)) is not None and size <= end - at:
            entry = self._edges.get(bytes(buffer[at + _ENTRY.start : at + _ENTRY.stop]))
            if entry is None:
                message = next(take_messages(buffer[at : at + size]))
                load.unusual(self.link, message.opcode, message.payload)
            else:
                edge, number = entry
                if edge.delivered % len(edge.expected) != number:
                    raise BadStream("a frame was lost, doubled or overtaken")
                edge.delivered += 1
                load.delivered(edge, 1)
            at += size
        del buffer[:at]


class Load:
    """Keeps frames going round on edges of one relay.

    Args:
        edges: with their rings loaded.
        window: frames in flight on each edge; the pace of :meth:`run` may stay below.
    """

    def __init__(self, edges: Sequence[Edge], window: int, relay_pid: int | None) -> None:
        self.edges = edges
        self.window = window
        self.buffer = bytearray(_CHUNK)
        self.frames = 0
        self._pid = relay_pid
        self._closed_loop = False
        self._sending: dict[Link, list[bytes]] = {}
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}
        by_recipient: dict[Link, list[Edge]] = {}
        for edge in edges:
            by_recipient.setdefault(edge.recipient, []).append(edge)
        for its_edges in by_recipient.values():
            self._listen(Stream(its_edges[0]) if len(its_edges) == 1 else Mixed(its_edges))
        for link in dict.fromkeys(edge.sender for edge in edges):
            if link.socket.fileno() not in self._readers:
                self._listen(Quiet(link))

    def _listen(self, reader: Reader) -> None:
        descriptor = reader.link.socket.fileno()
        self._readers[descriptor] = reader
        self._epoll.register(descriptor, select.EPOLLIN)

    # --- What the readers tell ---------------------------------------------------------------------------------------

    def delivered(self, edge: Edge, count: int) -> None:
        """Count frames; in a closed loop as many are sent again."""
        self.frames += count
        if self._closed_loop:
            self._send(edge, count)

    def unusual(self, link: Link, opcode: int, payload: bytes) -> None:
        """Take what is no frame of the load.

        Raises:
            BadStream: it cannot be explained, or the relay refused a frame: below the limits none may be.
        """
        if opcode == PING:
            self._put(link, masked(payload, PONG))
        elif opcode == BINARY:
            try:
                body = link.session.receive(payload)
            except WireError as error:
                raise BadStream("a frame came that was never sent, or out of turn") from error
            if isinstance(body, c.RecipientOffline):
                raise BadStream("the relay refused a frame (0x03)")
            if isinstance(body, PeerFrame):
                raise BadStream("a frame was lost, doubled, overtaken or changed")
        elif opcode == CLOSE:
            raise BadStream(f"the relay closed a connection with code {int.from_bytes(payload[:2], 'big')}")

    # --- Sending -----------------------------------------------------------------------------------------------------

    def _send(self, edge: Edge, count: int) -> None:
        data = edge.next_frames(count)
        waiting = self._sending.get(edge.sender)
        if waiting is None:
            self._sending[edge.sender] = [data]
        else:
            waiting.append(data)

    def _flush(self) -> None:
        sending, self._sending = self._sending, {}
        for link, data in sending.items():
            self._put(link, data[0] if len(data) == 1 else b"".join(data))

    def _put(self, link: Link, data: bytes) -> None:
        if link.pending:
            link.pending += data
            return
        try:
            sent = link.socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            link.pending = data[sent:]
            self._epoll.modify(link.socket, select.EPOLLIN | select.EPOLLOUT)

    def _writable(self, link: Link) -> None:
        data, link.pending = link.pending, b""
        self._epoll.modify(link.socket, select.EPOLLIN)
        self._put(link, data)

    # --- Running -----------------------------------------------------------------------------------------------------

    def run(self, seconds: float, ramp: float = 0.2, rate: float = 0.0) -> Measured:
        """Load the relay and measure.

        Args:
            seconds: measured, after the ramp; what is in flight then is waited for, and not measured.
            ramp: seconds of load before.
            rate: frames per second; 0 is a closed loop, as fast as it goes.

        Raises:
            BadStream: what came is not what was sent, or something never came.
        """
        measured = Measured()
        self._closed_loop = rate <= 0
        if self._closed_loop:
            for edge in self.edges:
                self._send(edge, self.window)
            self._flush()
        start = time.perf_counter()
        self._turn_until(start + ramp, rate)
        frames = self.frames
        relay, own = cpu_time(self._pid) if self._pid else None, cpu_time()
        begun = time.perf_counter()
        self._turn_until(begun + seconds, rate)
        measured.seconds = time.perf_counter() - begun
        measured.frames = self.frames - frames
        used = cpu_time() - own
        measured.generator_cpu, measured.generator_waiting = used.on_cpu, used.waiting
        if self._pid and relay is not None:
            used = cpu_time(self._pid) - relay
            measured.relay_cpu, measured.relay_waiting = used.on_cpu, used.waiting
        self._drain()
        return measured

    def close(self) -> None:
        """Let go of the epoll; the links stay open."""
        self._epoll.close()

    def _turn_until(self, until: float, rate: float) -> None:
        clock, poll, readers = time.perf_counter, self._epoll.poll, self._readers
        if rate > 0:
            self._paced_until(until, rate)
            return
        while clock() < until:
            for descriptor, events in poll(0.1):
                if events & select.EPOLLOUT:
                    self._writable(readers[descriptor].link)
                if events & ~select.EPOLLOUT:
                    readers[descriptor].readable(self)
            if self._sending:
                self._flush()

    def _paced_until(self, until: float, rate: float) -> None:
        """Send at a steady rate whatever comes back, edge after edge, up to the window on each."""
        clock, edges = time.perf_counter, self.edges
        start = clock()
        sent = turn = 0
        while (now := clock()) < until:
            due = int((now - start) * rate) - sent
            sent += due
            # What could not be sent for want of a window is not made up for: it would come as a burst.
            for _ in range(min(due, len(edges) * self.window)):
                edge = edges[turn % len(edges)]
                turn += 1
                if edge.in_flight < self.window:
                    self._send(edge, 1)
            if self._sending:
                self._flush()
            self.serve(0)
            time.sleep(0.0001)

    def _drain(self) -> None:
        """Send no more and wait for what is in flight."""
        self._closed_loop = False
        until = time.perf_counter() + _DRAIN
        while in_flight := sum(edge.in_flight for edge in self.edges):
            if time.perf_counter() > until:
                raise BadStream(f"{in_flight} frames were lost")
            self.serve(0.1)
            self._flush()

    def serve(self, timeout: float) -> None:
        for descriptor, events in self._epoll.poll(timeout):
            if events & select.EPOLLOUT:
                self._writable(self._readers[descriptor].link)
            if events & ~select.EPOLLOUT:
                self._readers[descriptor].readable(self)
