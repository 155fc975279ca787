"""A lane with a scripted channel, for tests in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from peers.notifier.lane import Lane
from peers.notifier.limits import Limits
from peers.notifier.metrics import Metrics
from tests.peers.notifier.scripted import ListLedger, ScriptedChannel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from peers.notifier.channel import Outcome, Push, PushType


class Rig:
    """A lane with a scripted channel."""

    def __init__(
        self,
        script: Callable[[bytes, Push], Awaitable[Outcome]] | None = None,
        *,
        workers: int = 8,
        limits: Limits | None = None,
    ) -> None:
        self.channel = ScriptedChannel(script=script)
        self.ledger = ListLedger()
        self.metrics = Metrics(["fcm"])
        self.limits = limits or Limits()
        self.lane = Lane(self.channel, self.limits, workers, self.ledger, self.metrics)
        self.began = asyncio.get_running_loop().time()

    def skipped(self, kind: PushType, reason: str) -> int:
        return self.figure("skipped_total", channel="fcm", type=kind.value, reason=reason)

    def figure(self, name: str, **labels: str) -> int:
        value = self.metrics.registry.get_sample_value(f"blindrelay_notifier_{name}", labels)
        assert value is not None
        return int(value)

    @property
    def times(self) -> list[float]:
        """When pushes were tried, since the beginning."""
        return [each.at - self.began for each in self.channel.taken]


async def passes(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)
