"""A quiet observer: a message to a friend and back through the relay, every few milliseconds, and how long that took.

Both friends sit in this process, so that one clock is enough, and the process does nothing else. A round trip counts
from the time when it was due, not from when it could begin: a relay that stands still for a while delays all that was
due meanwhile, and that is not to be forgotten.
"""

import time
from typing import Final

from bench.load.framing import BINARY, BadStream, take_messages
from bench.load.opening import Link
from bench.load.packets import Edge

_DEADLINE: Final = 10.0


class Observer:
    """Two friends.

    Args:
        there: with its ring loaded, as `back`, which leads the other way.
    """

    def __init__(self, there: Edge, back: Edge) -> None:
        self._there = there
        self._back = back
        for link in (there.sender, back.sender):
            link.socket.settimeout(_DEADLINE)

    def watch(self, seconds: float, interval: float) -> list[float]:
        """Return the time of each round trip, in seconds.

        Raises:
            BadStream: what came is not what was sent.
            TimeoutError: nothing came for ten seconds.
        """
        times = []
        start = time.perf_counter()
        # At random places of the relay's own rhythm: an interval that is no multiple of anything.
        due = start
        while due < start + seconds:
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            self._pass_on(self._there)
            self._pass_on(self._back)
            times.append(time.perf_counter() - due)
            due += interval
        return times

    def _pass_on(self, edge: Edge) -> None:
        edge.sender.socket.sendall(edge.next_frames(1))
        link = edge.recipient
        expected = edge.expected[edge.delivered % len(edge.expected)]
        until = time.perf_counter() + _DEADLINE
        while time.perf_counter() < until:
            if link.buffer.startswith(expected) and len(link.buffer) >= edge.size:
                del link.buffer[: edge.size]
                edge.delivered += 1
                return
            if not self._skip(link, expected):
                data = link.socket.recv(65536)
                if not data:
                    raise BadStream("the relay hung up on the observer")
                link.buffer += data
        raise BadStream("the observer's message did not arrive")

    @staticmethod
    def _skip(link: Link, expected: bytes) -> bool:
        """Drop one frame that is not the awaited one (a CHALLENGE, a ping); False when there is none."""
        if link.buffer.startswith(expected[: len(link.buffer)]):
            return False
        message = next(take_messages(link.buffer), None)
        return message is not None and message.opcode >= BINARY
