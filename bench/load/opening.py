"""Many openings at once: TCP, HTTP upgrade, handshake of protocol v2, all by one epoll.

What costs a client time is done before (keys, the sealed handshake request) or after (verifying the relay's answer), so
that the relay is measured and not the generator.
"""

import contextlib
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.load.framing import BadStream, masked, take_messages, upgrade_request
from bench.machine import CpuTime, cpu_time
from bench.targets import Target
from keys.identity import Identity, PublicIdentity
from wire import commands as c
from wire.session import ClientSession

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
_PER_ADDRESS = 20_000
_TRIES = 8


class Link:
    """One client of one relay."""

    __slots__ = ("buffer", "identity", "pending", "server", "session", "socket")

    def __init__(self, sock: socket.socket, ticket: "Ticket", server: PublicIdentity, rest: bytes) -> None:
        self.socket = sock
        self.identity = ticket.identity
        self.session = ticket.session
        self.server = server
        self.buffer = bytearray(rest)
        self.pending = b""

    @property
    def shared(self) -> bytes:
        """The X25519 secret with the relay, computed anew."""
        return self.identity.shared_with(self.server.x_pub)

    def close(self) -> None:
        """Reset the connection: no port stays in TIME_WAIT, of which a storm would run out."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()


@dataclass(slots=True)
class Ticket:
    """A handshake that is ready to be sent, once."""

    identity: Identity
    session: ClientSession
    hello: bytes
    answer: bytes = b""


def prepare(target: Target, identities: Iterable[Identity]) -> list[Ticket]:
    """Seal a handshake request for each identity."""
    tickets = []
    for identity in identities:
        session = ClientSession(identity, target.public)
        tickets.append(Ticket(identity, session, masked(session.hello())))
    return tickets


@dataclass(slots=True)
class Opened:
    """What came of many openings."""

    links: list[Link]
    seconds: float
    times: list[float]
    """For each client, from the start of all until its HANDSHAKE_OK was there."""
    relay: CpuTime
    generator: CpuTime
    retries: int = 0
    tickets: list[Ticket] = field(default_factory=list, repr=False)

    def confirm(self) -> None:
        """Verify every answer of the relay: afterwards, for it costs a client more than all the rest.

        Raises:
            BadStream: an answer is not HANDSHAKE_OK of the relay whose keys are pinned.
        """
        for ticket in self.tickets:
            answer = ticket.session.receive(ticket.answer)
            if not isinstance(answer, c.HandshakeOk):
                raise BadStream(f"the relay answered a handshake with {type(answer).__name__}")


class _Opening:
    __slots__ = ("buffer", "socket", "stage", "ticket", "tries")

    def __init__(self, ticket: Ticket, tries: int) -> None:
        self.ticket = ticket
        self.tries = tries
        self.stage = 0
        self.buffer = bytearray()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Opener:
    """Opens connections to one relay.

    Args:
        target: the relay.
        at_once: openings under way at the same time.
        deadline: seconds for all of them.
    """

    def __init__(self, target: Target, at_once: int = 64, deadline: float = 180.0) -> None:
        self._target = target
        self._at_once = at_once
        self._deadline = deadline
        self._request = upgrade_request(f"{target.host}:{target.port}", target.path)
        self._loopback = target.host.startswith("127.")
        self._count = 0

    def open(self, tickets: Sequence[Ticket]) -> Opened:
        """Open one connection for each ticket.

        Raises:
            BadStream: the relay answers with something else, or refuses again and again.
            TimeoutError: not all were open in time.
        """
        waiting = deque((ticket, 0) for ticket in tickets)
        opened = Opened([], 0.0, [], CpuTime(0, 0), CpuTime(0, 0), tickets=list(tickets))
        under_way: dict[int, _Opening] = {}
        pid = self._target.pid
        with select.epoll() as epoll:
            relay, own = cpu_time(pid) if pid else None, cpu_time()
            start = time.perf_counter()
            while waiting or under_way:
                while waiting and len(under_way) < self._at_once:
                    opening = self._connect(*waiting.popleft())
                    under_way[opening.socket.fileno()] = opening
                    epoll.register(opening.socket, select.EPOLLOUT)
                for fd, _ in epoll.poll(1.0):
                    opening = under_way[fd]
                    try:
                        done = self._step(opening, epoll)
                    except OSError as error:
                        self._again(opening, waiting, error)
                        opened.retries += 1
                        del under_way[fd]
                        continue
                    if done:
                        opened.times.append(time.perf_counter() - start)
                        epoll.unregister(fd)
                        del under_way[fd]
                        link = Link(opening.socket, opening.ticket, self._target.public, bytes(opening.buffer))
                        opened.links.append(link)
                if time.perf_counter() - start > self._deadline:
                    raise TimeoutError(f"{len(opened.links)} of {len(tickets)} were open after {self._deadline:.0f} s")
            opened.seconds = time.perf_counter() - start
            opened.generator = cpu_time() - own
            if pid and relay is not None:
                opened.relay = cpu_time(pid) - relay
        return opened

    def _connect(self, ticket: Ticket, tries: int) -> _Opening:
        opening = _Opening(ticket, tries)
        if self._loopback:
            # Every 127.x.y.z is ours: with one source address 28,000 ports would be all.
            number = self._count // _PER_ADDRESS
            opening.socket.setsockopt(socket.IPPROTO_IP, _NO_PORT, 1)
            opening.socket.bind((f"127.{1 + number // 250}.{number % 250}.1", 0))
        self._count += 1
        with contextlib.suppress(BlockingIOError):
            opening.socket.connect((self._target.host, self._target.port))
        return opening

    def _step(self, opening: _Opening, epoll: select.epoll) -> bool:
        if opening.stage == 0:
            error = opening.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "connect")
            opening.socket.send(self._request)
            opening.stage = 1
            epoll.modify(opening.socket, select.EPOLLIN)
            return False
        data = opening.socket.recv(4096)
        if not data:
            raise ConnectionResetError("the relay hung up during the opening")
        opening.buffer += data
        if opening.stage == 1:
            end = opening.buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            if b" 101 " not in opening.buffer[:16]:
                raise BadStream(f"the relay does not upgrade: {bytes(opening.buffer[:80])!r}")
            del opening.buffer[: end + 4]
            opening.socket.send(opening.ticket.hello)
            opening.stage = 2
        message = next(take_messages(opening.buffer), None)
        if message is None:
            return False
        opening.ticket.answer = message.payload
        return True

    @staticmethod
    def _again(opening: _Opening, waiting: deque[tuple[Ticket, int]], error: OSError) -> None:
        opening.socket.close()
        if opening.stage == 2:
            # The request may have been read: sent again it would be a replay.
            raise BadStream("the relay hung up on a handshake") from error
        if opening.tries + 1 >= _TRIES:
            raise BadStream(f"the relay cannot be reached: {error}") from error
        waiting.append((opening.ticket, opening.tries + 1))


def open_links(target: Target, identities: Iterable[Identity], at_once: int = 64) -> list[Link]:
    """Open and verify one connection for each identity, in their order."""
    opened = Opener(target, at_once).open(prepare(target, identities))
    opened.confirm()
    by_identity = {link.identity.id: link for link in opened.links}
    return [by_identity[ticket.identity.id] for ticket in opened.tickets]


def settle(pid: int | None, timeout: float = 20.0) -> None:
    """Wait until a relay has nothing left to do: under 5 % of its core over 50 ms."""
    if pid is None:
        return
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        before = cpu_time(pid)
        time.sleep(0.05)
        used = cpu_time(pid) - before
        if used.on_cpu + used.waiting < 0.0025:
            return
