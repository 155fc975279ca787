"""Thousands of clients that hardly say a word: they idle, answer pings, watch, come back."""

import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

from bench.load.framing import BINARY, CLOSE, PING, PONG, BadStream, masked, take_messages
from bench.load.opening import Link
from bench.machine import cpu_time
from keys.identity import Identity
from wire import commands as c
from wire.errors import WireError

_CHUNK: Final = 1 << 16


@dataclass(slots=True)
class Quietness:
    """What a while of idling cost."""

    seconds: float = 0.0
    relay_cpu: float = 0.0
    generator_cpu: float = 0.0
    pings: int = 0
    messages: int = 0

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


class _Mark(NamedTuple):
    seconds: float
    relay_cpu: float
    generator_cpu: float
    pings: int
    messages: int


class Crowd:
    """Links that are listened to.

    Args:
        links: open, and verified.
        relay_pid: whose CPU time is counted.
        answer: whether pings are answered.
    """

    def __init__(self, links: Sequence[Link], relay_pid: int | None, *, answer: bool = True) -> None:
        self.links = list(links)
        self.relay_pid = relay_pid
        self._answer = answer
        self._epoll = select.epoll()
        self._by_descriptor = {link.socket.fileno(): link for link in links}
        self.pings = 0
        self.messages = 0
        for link in links:
            self._epoll.register(link.socket, select.EPOLLIN)

    @property
    def descriptor(self) -> int:
        """An epoll's, which is readable when somebody was sent something."""
        return self._epoll.fileno()

    def begin(self) -> "_Mark":
        """Note where the counts stand now."""
        relay = cpu_time(self.relay_pid).on_cpu if self.relay_pid else 0.0
        return _Mark(time.perf_counter(), relay, cpu_time().on_cpu, self.pings, self.messages)

    def since(self, mark: "_Mark") -> Quietness:
        """Return what has been since then."""
        now = self.begin()
        return Quietness(
            seconds=now.seconds - mark.seconds,
            relay_cpu=now.relay_cpu - mark.relay_cpu,
            generator_cpu=now.generator_cpu - mark.generator_cpu,
            pings=now.pings - mark.pings,
            messages=now.messages - mark.messages,
        )

    def listen(self, timeout: float) -> None:
        """Take what comes; waits for it so long at most.

        Raises:
            BadStream: the relay hung up on somebody.
        """
        for descriptor, _ in self._epoll.poll(timeout):
            self._read(self._by_descriptor[descriptor])

    def _read(self, link: Link) -> None:
        data = link.socket.recv(_CHUNK)
        if not data:
            raise BadStream("the relay hung up on an idle client")
        link.buffer += data
        self._take(link)

    def _take(self, link: Link) -> None:
        for message in take_messages(link.buffer):
            if message.opcode == PING:
                self.pings += 1
                if self._answer:
                    link.socket.send(masked(message.payload, PONG, b"\x01\x02\x03\x04"))
            elif message.opcode == BINARY:
                self.messages += 1
            elif message.opcode == CLOSE:
                code = int.from_bytes(message.payload[:2], "big")
                raise BadStream(f"the relay closed an idle connection with code {code}")

    def drain(self) -> None:
        """Read what has come already, such as CHALLENGE, so that it is not counted later."""
        for link in self.links:
            # What came in one piece with the answer to the handshake no epoll tells of.
            self._take(link)
        for descriptor, _ in self._epoll.poll(0, max(len(self.links), 1)):
            self._read(self._by_descriptor[descriptor])

    def watch(self, friend: Identity) -> None:
        """Let every client subscribe to one friend."""
        for link in self.links:
            link.socket.send(masked(link.session.command(c.Subscribe((friend.public.x_pub,)))))

    def close(self) -> None:
        """Hang up, all of them."""
        self._epoll.close()
        for link in self.links:
            link.close()
        self.links = []


def idle(
    crowds: Mapping[str, Crowd], seconds: float, enough: Callable[[], bool] = lambda: False
) -> dict[str, Quietness]:
    """Listen to several crowds for so long, or until there was enough.

    Raises:
        BadStream: a relay hung up on somebody.
    """
    marks = {name: crowd.begin() for name, crowd in crowds.items()}
    until = time.perf_counter() + seconds
    with select.epoll() as epoll:
        by_descriptor = {}
        for crowd in crowds.values():
            epoll.register(crowd.descriptor, select.EPOLLIN)
            by_descriptor[crowd.descriptor] = crowd
        while (left := until - time.perf_counter()) > 0 and not enough():
            for descriptor, _ in epoll.poll(min(left, 0.5)):
                by_descriptor[descriptor].listen(0)
    return {name: crowd.since(marks[name]) for name, crowd in crowds.items()}


class Flood:
    """A sender whose recipient never reads: as fast as the relay takes it, for as long as it is told to.

    Args:
        sender: its link; the recipient's is merely kept open.
        frames: what is sent, again and again.
    """

    def __init__(self, sender: Link, recipient: Link, frames: Sequence[bytes]) -> None:
        self._sender = sender
        self._recipient = recipient
        # The kernel is not to hide the stall: what it buffers for the recipient is small.
        recipient.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._data = b"".join(frames)
        self._at = 0
        self.sent = 0
        self.refused = 0

    def run(self, seconds: float) -> None:
        """Send whenever the relay takes something."""
        sock = self._sender.socket
        until = time.perf_counter() + seconds
        with select.epoll() as epoll:
            epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
            while (left := until - time.perf_counter()) > 0:
                for _, events in epoll.poll(left):
                    if events & select.EPOLLOUT:
                        self._push()
                    if events & ~select.EPOLLOUT:
                        self._listen()

    def _push(self) -> None:
        try:
            count = self._sender.socket.send(memoryview(self._data)[self._at : self._at + _CHUNK])
        except BlockingIOError:
            return
        self._at = (self._at + count) % len(self._data)
        self.sent += count

    def _listen(self) -> None:
        data = self._sender.socket.recv(_CHUNK)
        if not data:
            raise BadStream("the relay hung up on the sender of a stalled reader")
        self._sender.buffer += data
        for message in take_messages(self._sender.buffer):
            if message.opcode != BINARY:
                continue
            try:
                body = self._sender.session.receive(message.payload)
            except WireError as error:
                raise BadStream("a frame that was never sent") from error
            self.refused += isinstance(body, c.RecipientOffline)

    def close(self) -> None:
        """Hang up, both."""
        self._sender.close()
        self._recipient.close()
