"""A push server that limits what one address posts, as ntfy does: lane, channel and breaker in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from peers.notifier.breaker import Breaker
from peers.notifier.lane import Lane
from peers.notifier.limits import Limits
from peers.notifier.metrics import Metrics
from peers.notifier.outbound import Outbound, Reply
from peers.notifier.registry import Registered
from peers.notifier.unifiedpush import UnifiedPush
from peers.notifier.vapid import VapidKey, VapidTokens
from peers.notifier.webpush import WebPush
from tests.peers.notifier.scripted import CALL, MESSAGE, ListLedger
from tests.support.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from peers.notifier.endpoints import Endpoint

KEY = VapidKey.generate()


class LimitingServer(Outbound):
    """Takes `burst` posts, then one every `every` seconds (ntfy: 60 and 5 s); the topics in `full` it never takes."""

    def __init__(self, burst: float, every: float, full: Collection[str] = ()) -> None:
        super().__init__()
        self._left, self._burst, self._every = burst, burst, every
        self._full = full
        self._at = 0.0
        self.taken: list[tuple[float, str]] = []
        self.calls: list[float] = []
        self.refused: list[float] = []

    async def post(self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> Reply:
        await asyncio.sleep(0.05)
        now = asyncio.get_running_loop().time()
        self._left = min(self._burst, self._left + (now - self._at) / self._every)
        self._at = now
        topic = endpoint.url.path.strip("/")
        if topic in self._full or self._left < 1:
            self.refused.append(now)
            return Reply(429)
        self._left -= 1
        self.taken.append((now, topic))
        if headers["Urgency"] == "high":
            self.calls.append(now)
        return Reply(200)


def lane(server: Outbound) -> tuple[Lane, ListLedger]:
    ledger = ListLedger()
    breaker = Breaker(asyncio.get_running_loop().time)
    channel = UnifiedPush(server, WebPush(server, VapidTokens(KEY, "mailto:a@b.example"), breaker), breaker)
    return Lane(channel, Limits(), 32, ledger, Metrics(["unifiedpush"])), ledger


def device(topic: str, *, known: bool = True) -> Registered:
    token = f"https://ntfy.example.org/{topic}".encode()
    return Registered(3, token.ljust(64, b".")[-40:], token, 20_000 if known else None, 0)


@in_virtual_time
async def test_a_server_that_limits_us_rests_and_no_message_is_lost() -> None:
    server = LimitingServer(60, 5)
    pushing, ledger = lane(server)
    for number in range(100):
        pushing.wake(device(f"up{number}"), MESSAGE)
        pushing.wake(device(f"up{number}"), MESSAGE)
    await asyncio.sleep(600)
    assert sorted(topic for _, topic in server.taken) == sorted(f"up{number}" for number in range(100))
    assert {what for what, _ in ledger.told} == {"worked"}
    assert pushing.queued == 0
    assert len(server.refused) < 40, "whoever goes on gets locked out"


@in_virtual_time
async def test_a_call_does_not_wait_until_the_rest_is_over() -> None:
    server = LimitingServer(60, 5)
    pushing, _ = lane(server)
    for number in range(70):
        pushing.wake(device(f"up{number}"), MESSAGE)
    await asyncio.sleep(11)
    pushing.wake(device("up3"), CALL)
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(30)
    (at,) = server.calls
    assert at - began < 2


@in_virtual_time
async def test_a_stranger_at_a_shared_server_delays_others_by_seconds() -> None:
    """Their topics are always full. All who are served there still are."""
    server = LimitingServer(10_000, 0.001, full=[f"stranger{number}" for number in range(50)])
    pushing, _ = lane(server)
    late: list[float] = []
    for minute in range(20):
        for number in range(50):
            pushing.wake(device(f"stranger{number}", known=False), MESSAGE)
            pushing.wake(device(f"stranger{number}", known=False), CALL)
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        pushing.wake(device(f"friend{minute % 3}"), MESSAGE)
        await asyncio.sleep(60)
        late += [at - began for at, topic in server.taken if topic.startswith("friend") and at >= began]
    assert len(late) == 20
    assert max(late) < 20
