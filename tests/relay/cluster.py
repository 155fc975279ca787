"""Several relays on one virtual clock, and between them a bus that can lose, delay, cut and split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from relay.backplane.bus import Answered, Outcome, Received
from relay.backplane.node import Backplane
from relay.backplane.options import ClusterOptions
from tests.relay.harness import Lab, Peer, identity
from tests.relay.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from keys.identity import Identity
    from relay.limits import Limits

SECRET: Final = b"\x77" * 32
OPTIONS: Final = ClusterOptions(("nats://127.0.0.1:4222",), SECRET)


class Medium:
    """What lies between the nodes. A message takes `delay` seconds, and is lost if `lose` says so."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.buses: list[MemoryBus] = []
        self.delay = 0.0
        self.lose: Callable[[MemoryBus, MemoryBus, bytes], bool] = lambda _source, _to, _data: False
        self.seen: list[tuple[str, bytes]] = []

    def reachable(self, source: MemoryBus, to: MemoryBus) -> bool:
        return to is not source and source.up and to.up and source.side == to.side

    def carry(self, source: MemoryBus, to: MemoryBus, call: Callable[..., None], *args: Any) -> None:
        """Bring something to a node, in the order in which it was sent."""

        def arrive() -> None:
            if self.reachable(source, to):
                if to.paused:
                    to.unread.append((call, args))
                else:
                    call(*args)

        if self.delay:
            self.loop.call_later(self.delay, arrive)
        else:
            self.loop.call_soon(arrive)

    def split(self, *sides: list[MemoryBus]) -> None:
        """Let nodes reach only those of their own side."""
        for number, side in enumerate(sides):
            for bus in side:
                bus.side = number

    def heal(self) -> None:
        for bus in self.buses:
            bus.side = 0


class MemoryBus:
    """One node's connection to a :class:`Medium`."""

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        medium.buses.append(self)
        self.up = True
        self.side = 0
        self.paused = False
        self.unread: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.changed: Callable[[bool], None] = lambda _: None
        self.subjects: dict[str, Received] = {}
        self.max_payload = 1024 * 1024
        self.backlog = 0
        self.published = 0
        self._asked: dict[str, Answered] = {}
        self._count = 0

    @property
    def connected(self) -> bool:
        return self.up

    def publish(self, subject: str, *parts: bytes) -> None:
        self._send(subject, b"".join(parts), "")

    def _send(self, subject: str, data: bytes, reply: str) -> int:
        medium = self.medium
        if not self.up:
            return 0
        self.published += 1
        medium.seen.append((subject, data))
        found = 0
        for bus in medium.buses:
            if not medium.reachable(self, bus):
                continue
            if subject in bus.subjects or subject in bus._asked:
                found += 1
                if not medium.lose(self, bus, data):
                    medium.carry(self, bus, bus._receive, subject, data, reply)
        return found

    def _receive(self, subject: str, data: bytes, reply: str) -> None:
        answered = self._asked.get(subject)
        if answered is not None:
            if not answered(Outcome.ANSWER, data):
                self._asked.pop(subject, None)
        elif subject in self.subjects:
            self.subjects[subject](data, reply, subject)

    def request(self, subject: str, data: bytes, timeout: float, answered: Answered) -> None:
        loop = self.medium.loop
        if not self.up:
            loop.call_soon(answered, Outcome.LOST, b"")
            return
        self._count += 1
        reply = f"answer.{self.medium.buses.index(self)}.{self._count}"
        if not self._send(subject, data, reply):
            loop.call_soon(answered, Outcome.NO_RESPONDERS, b"")
            return
        self._asked[reply] = answered
        loop.call_later(timeout, self._overdue, reply)

    def _overdue(self, reply: str) -> None:
        answered = self._asked.pop(reply, None)
        if answered is not None:
            answered(Outcome.TIMEOUT, b"")

    def subscribe(self, subject: str, received: Received) -> None:
        self.subjects[subject] = received

    def unsubscribe(self, subject: str) -> None:
        del self.subjects[subject]

    async def close(self) -> None:
        self.up = False

    # --- What the test calls -----------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Lose the connection, and know it."""
        self.up = False
        asked, self._asked = self._asked, {}
        for answered in asked.values():
            answered(Outcome.LOST, b"")
        self.changed(False)

    def restore(self) -> None:
        self.up = True
        self.changed(True)

    def die(self) -> None:
        """Be gone without a word."""
        self.up = False

    def pause(self) -> None:
        """Read nothing: what arrives waits."""
        self.paused = True

    def read_on(self) -> None:
        self.paused = False
        unread, self.unread = self.unread, []
        for call, args in unread:
            self.medium.loop.call_soon(call, *args)


class Cluster:
    """Relays that are one."""

    def __init__(
        self,
        count: int = 3,
        limits: Limits | None = None,
        notifier: Identity | None = None,
        unit: float = 0.0,
    ) -> None:
        self.loop = Loop()
        self.medium = Medium(self.loop)
        self.labs: list[Lab] = []
        self.nodes: list[Backplane] = []
        self.buses: list[MemoryBus] = []
        self._limits, self._notifier, self._unit = limits, notifier, unit
        for _ in range(count):
            self.add()
        self.run()
        for node in self.nodes:
            node.shares.nonces.joined()
        # In the order of their numbers: where that counts a test can rely on it.
        order = sorted(range(count), key=lambda index: self.nodes[index].number)
        self.labs = [self.labs[index] for index in order]
        self.nodes = [self.nodes[index] for index in order]
        self.buses = [self.buses[index] for index in order]

    def add(self, options: ClusterOptions = OPTIONS) -> Backplane:
        """Start another relay."""
        index = len(self.labs)
        lab = Lab(
            self._limits,
            self._notifier,
            self._unit,
            loop=self.loop,
            name=f"relay {index}",
            first=1_000_000_000 * (index + 1),
        )
        bus = MemoryBus(self.medium)
        node = Backplane(lab.core, options, bus)
        self.labs.append(lab)
        self.nodes.append(node)
        self.buses.append(bus)
        node.begin()
        return node

    def connect(self, at: int, *ours: int) -> list[Peer]:
        """Return clients that were let in at a node, with nothing left to hear."""
        return self.labs[at].connect(*ours)

    def run(self) -> None:
        self.loop.run()

    def advance(self, seconds: float) -> None:
        """Let time pass; what the relays do each second is done."""
        until = self.loop.now + seconds
        while self.loop.now < until:
            self.loop.advance(min(1.0, until - self.loop.now))
            for lab in self.labs:
                lab.pulse.deadlines(self.loop.now)
            self.loop.run()

    def sessions(self, number: int) -> list[int]:
        """Return at which nodes an identity has a session."""
        return [index for index, lab in enumerate(self.labs) if identity(number).id in lab.core.sessions]

    def check_settled(self) -> None:
        """Fail if anything still waits."""
        for node in self.nodes:
            if node.core.cluster is not None and node.bus.connected:
                assert node.router.idle
                assert node.router.bytes == 0
                assert all(peer.settled for peer in node.peers)
                assert node.claims.idle
                assert not node.core.claims
                assert not node.pressure
