"""What the tests of the notifier share: a channel that does as it is told, a ledger, and tokens."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peers.notifier.channel import Outcome, Push, PushType, Result
from peers.notifier.registry import Registered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SENT = Outcome(Result.SENT)
MESSAGE, CALL = PushType.MESSAGE, PushType.CALL


@dataclass(frozen=True)
class Taken:
    """A push that the channel was given."""

    at: float
    token: bytes
    push: Push


@dataclass
class ScriptedChannel:
    """Notes every push, and answers as the script says; without one each is sent at once."""

    kind: int = 1
    name: str = "fcm"
    script: Callable[[bytes, Push], Awaitable[Outcome]] | None = None
    taken: list[Taken] = field(default_factory=list)
    most_at_once: int = 0
    under_way: int = 0
    closed: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def check_token(self, token: bytes) -> None:
        if token.startswith(b"bad"):
            raise ValueError("not a token")
        if token.startswith(b"bug"):
            raise RecursionError

    async def push(self, token: bytes, push: Push) -> Outcome:
        self.taken.append(Taken(asyncio.get_running_loop().time(), token, push))
        self._more.set()
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            return SENT if self.script is None else await self.script(token, push)
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        self.closed = True

    async def has_taken(self, count: int) -> None:
        """Return once so many pushes came."""
        while len(self.taken) < count:
            self._more.clear()
            await self._more.wait()

    @property
    def tokens(self) -> list[bytes]:
        return [each.token for each in self.taken]


def answers(*outcomes: Outcome) -> Callable[[bytes, Push], Awaitable[Outcome]]:
    """Return a script that gives these outcomes one after another, and then SENT."""
    waiting = list(outcomes)

    async def script(_token: bytes, _push: Push) -> Outcome:
        return waiting.pop(0) if waiting else SENT

    return script


@dataclass
class ListLedger:
    """Notes what it is told."""

    told: list[tuple[str, bytes]] = field(default_factory=list)

    def worked(self, registered: Registered) -> None:
        self.told.append(("worked", registered.token))

    def failed(self, registered: Registered) -> None:
        self.told.append(("failed", registered.token))

    def forget(self, registered: Registered) -> None:
        self.told.append(("forget", registered.token))


def device(name: str = "phone", *, failures: int = 0, kind: int = 1, fresh: bool = False) -> Registered:
    """Return a token as the registry gives it; a `fresh` one was never reached."""
    return Registered(kind, name.encode().ljust(16, b"."), name.encode(), None if fresh else 20_000, failures)
