"""One channel's pushes: what waits, what is under way, what is tried again. Each channel has a lane of its own.

For every device there is at most one message push that waits or is under way: it says "something is there", so that
one is as good as ten. After one that was taken comes the window of `Limits.message_window`; a wake in its first part is
covered by it, a later one has a push at its end. Calls are each pushed, up to so many a minute.

Whoever registers chooses the server behind an endpoint, and may choose one that answers slowly, or not. A push that
failed before therefore shares a quarter of the lane with its like, and leaves the rest to those that did not.

All methods are for one event loop. Nothing here knows ids.
"""

import asyncio
from collections import OrderedDict
from typing import Final, Protocol

import structlog

from keys.primitives import random_bytes
from peers.client.backoff import ASKED_MOST, Backoff, Random
from peers.notifier.channel import Channel, Outcome, Push, PushType, Result
from peers.notifier.devices import Device, Devices, Errand, Standing
from peers.notifier.limits import Limits
from peers.notifier.metrics import Metrics
from peers.notifier.registry import Registered
from peers.service.log import Seldom, where

_MESSAGE_BACKOFF: Final = (2.0, 120.0)
_CALL_BACKOFF: Final = (0.5, 5.0)
_PAUSE_BACKOFF: Final = (5.0, ASKED_MOST)
"""Least and most seconds between attempts."""


class Ledger(Protocol):
    """Where a lane tells what it learned of tokens. Returns at once."""

    def worked(self, registered: Registered) -> None:
        """A push was taken."""

    def failed(self, registered: Registered) -> None:
        """A push failed until its time was up."""

    def forget(self, registered: Registered) -> None:
        """Nothing can be sent to it any more."""


class Lane:
    """The pushes of one channel.

    Args:
        channel: sends them; is not closed here.
        limits: see there.
        workers: pushes under way at once.
        ledger: is told of tokens.
        metrics: counts.
        random: for jitter.
    """

    def __init__(
        self,
        channel: Channel,
        limits: Limits,
        workers: int,
        ledger: Ledger,
        metrics: Metrics,
        *,
        random: Random = random_bytes,
    ) -> None:
        self.name = channel.name
        self._channel = channel
        self._limits = limits
        self._workers = workers
        self._most = {
            Standing.PROVEN: workers,
            Standing.FRESH: max(1, workers // 2),
            Standing.SUSPECT: max(1, workers // 4),
        }
        self._ledger = ledger
        self._metrics = metrics
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._devices = Devices()
        # All that waits, ready or not, in the order in which it gives way when there is too much.
        self._waiting: dict[PushType, OrderedDict[Errand, None]] = {each: OrderedDict() for each in PushType}
        # What could be under way now: first what worked before, of each standing calls first.
        self._ready: dict[tuple[Standing, PushType], OrderedDict[Errand, None]] = {
            (standing, each): OrderedDict() for standing in Standing for each in (PushType.CALL, PushType.MESSAGE)
        }
        self._under_way: dict[asyncio.Task[None], Errand] = {}
        self._busy = dict.fromkeys(Standing, 0)
        self._paused_until = float("-inf")
        self._pause_backoff = Backoff(*_PAUSE_BACKOFF, random)
        self._resuming: asyncio.TimerHandle | None = None
        self._seldom = Seldom(self._clock)
        self._closing = False
        self._abandoned = 0
        metrics.watch(self)

    # --- Figures -----------------------------------------------------------------------------------------------------

    def waiting(self, kind: PushType) -> int:
        """How many pushes wait."""
        return len(self._waiting[kind])

    @property
    def queued(self) -> int:
        """How many pushes of all kinds wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def in_flight(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    @property
    def paused(self) -> bool:
        """Whether the push service asked us to wait, and we do."""
        return self._clock() < self._paused_until

    @property
    def devices(self) -> int:
        """How many devices are remembered."""
        return len(self._devices)

    # --- What comes in -----------------------------------------------------------------------------------------------

    def check_token(self, token: bytes) -> None:
        """Check a token before it is kept.

        Raises:
            ValueError: nothing can ever be sent to it.
        """
        self._channel.check_token(token)

    def wake(self, registered: Registered, kind: PushType) -> None:
        """Push to a device, now, later or never, as the rules have it."""
        if self._closing:
            self._skip(kind, "abandoned")
            return
        now = self._clock()
        device = self._devices.woken(registered)
        joined = device.joined.get(kind)
        if joined is not None:
            # What came last is as good a reason to go on trying as what came first.
            joined.expires = max(joined.expires, now + self._life(kind))
            self._skip(kind, "coalesced")
        elif kind is PushType.CALL:
            if device.may_ring(now, self._limits.calls_per_minute):
                self._begin(device, kind, now, now)
            else:
                self._skip(kind, "capped")
        elif now < device.covered_until:
            self._skip(kind, "coalesced")
        else:
            self._begin(device, kind, now, max(now, device.held_until))

    def drop(self, token_hash: bytes) -> None:
        """Forget what waits for a device: it was unregistered. What is under way goes on."""
        device = self._devices.pop(token_hash)
        if device is not None:
            for errand in list(device.joined.values()):
                self._give_up(errand)

    def renewed(self, token_hash: bytes) -> None:
        """Take note that a token was registered again: an answer to what is under way does not count against it."""
        self._devices.renewed(token_hash)

    def sweep(self) -> None:
        """Forget devices for which nothing is remembered that matters; for a timer, once a minute or so."""
        self._devices.sweep(self._clock())

    def _life(self, kind: PushType) -> float:
        return self._limits.call_ttl if kind is PushType.CALL else self._limits.retry_for

    def _begin(self, device: Device, kind: PushType, now: float, due: float) -> None:
        backoff = Backoff(*(_CALL_BACKOFF if kind is PushType.CALL else _MESSAGE_BACKOFF), self._random)
        errand = Errand(device, kind, now, due + self._life(kind), backoff)
        device.errands += 1
        device.joined[kind] = errand
        if self._make_room(kind):
            self._queue(errand, due)
        else:
            self._skip(kind, "dropped")
            errand.end()

    def _make_room(self, kind: PushType) -> bool:
        if self.queued < self._limits.queue:
            return True
        messages, calls = self._waiting[PushType.MESSAGE], self._waiting[PushType.CALL]
        if messages:
            oldest = next(iter(messages))
        elif kind is PushType.CALL:
            oldest = next(iter(calls))
        else:
            return False
        self._skip(oldest.type, "dropped")
        self._give_up(oldest)
        return True

    def _skip(self, kind: PushType, reason: str) -> None:
        self._metrics.skipped(self.name, kind, reason)

    # --- The queue ---------------------------------------------------------------------------------------------------

    def _queue(self, errand: Errand, due: float, *, again: bool = False) -> None:
        now = self._clock()
        if due >= errand.expires:
            self._expire(errand)
            return
        waiting = self._waiting[errand.type]
        waiting[errand] = None
        if again:
            waiting.move_to_end(errand, last=False)  # it came before those that wait
        if errand.type is PushType.CALL:
            errand.device.joined.setdefault(PushType.CALL, errand)
        if due > now:
            errand.timer = self._loop.call_later(due - now, self._due, errand)
        else:
            self._ready[errand.standing, errand.type][errand] = None
            self._pump()

    def _due(self, errand: Errand) -> None:
        errand.timer = None
        self._ready[errand.standing, errand.type][errand] = None
        self._pump()

    def _take(self, errand: Errand) -> None:
        """Let an errand wait no longer."""
        self._waiting[errand.type].pop(errand, None)
        for ready in self._ready.values():
            ready.pop(errand, None)
        if errand.timer is not None:
            errand.timer.cancel()
            errand.timer = None

    def _give_up(self, errand: Errand) -> None:
        """Give an errand up that waits; one that is under way is left alone."""
        if errand in self._waiting[errand.type]:
            self._take(errand)
            errand.end()

    def _abandon(self, errand: Errand) -> None:
        self._abandoned += 1
        self._skip(errand.type, "abandoned")
        errand.end()

    def _expire(self, errand: Errand) -> None:
        self._skip(errand.type, "expired")
        errand.end()
        self._hold(errand)
        if errand.tried:
            self._ledger.failed(errand.device.registered)

    def _hold(self, errand: Errand) -> None:
        """Keep the next message push for the device back, if this one was one: whether it was taken or not."""
        if errand.type is PushType.MESSAGE:
            errand.device.held_until = self._clock() + self._limits.message_window

    # --- Pushing -----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while not self.paused and len(self._under_way) < self._workers and (taken := self._next()) is not None:
            errand, standing = taken
            errand.begin()
            self._busy[standing] += 1
            task = self._loop.create_task(self._attempt(errand, standing), name=f"push {self.name}")
            self._under_way[task] = errand
            task.add_done_callback(self._attempted)

    def _attempted(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._pump()

    def _next(self) -> tuple[Errand, Standing] | None:
        """Take the next errand that can be done now."""
        now = self._clock()
        for (standing, _), ready in self._ready.items():
            while ready and self._busy[standing] < self._most[standing]:
                errand, _nothing = ready.popitem(last=False)
                del self._waiting[errand.type][errand]
                if now < errand.expires:
                    return errand, standing
                self._expire(errand)
        return None

    async def _attempt(self, errand: Errand, standing: Standing) -> None:
        try:
            outcome = await self._push(errand, standing)
        except asyncio.CancelledError:
            self._abandon(errand)
            raise
        finally:
            self._busy[standing] -= 1
        self._metrics.pushed(self.name, errand.type, outcome.result)
        self._settle(errand, outcome)

    async def _push(self, errand: Errand, standing: Standing) -> Outcome:
        now = self._clock()
        if errand.type is PushType.CALL:
            ttl = max(1, int(errand.expires - now))
        else:
            ttl = max(0, int(self._limits.message_ttl - (now - errand.since)))
        try:
            async with asyncio.timeout(self._limits.attempt):
                push = Push(errand.type, ttl, known=standing is Standing.PROVEN)
                return await self._channel.push(errand.device.registered.token, push)
        except TimeoutError:
            return Outcome(Result.RETRY, detail="no answer in time")
        except Exception as error:  # noqa: BLE001 - a fault of a channel must not end the others' pushes
            if self._seldom.may_say("internal_error"):
                # Not its text, nor its variables: a token may be in them.
                structlog.get_logger().error(
                    "internal_error", channel=self.name, error=type(error).__name__, where=where(error)
                )
            return Outcome(Result.RETRY, detail="a fault of the channel")

    def _settle(self, errand: Errand, outcome: Outcome) -> None:
        device = errand.device
        match outcome.result:
            case Result.SENT:
                self._sent(errand)
            case Result.GONE | Result.UNUSABLE if not self._devices.knows(device):
                # Unregistered meanwhile. Should it be registered anew, this is not about that.
                errand.end()
            case Result.GONE | Result.UNUSABLE if errand.began < device.renewals:
                self._again(errand, self._clock() + errand.backoff.next())
            case Result.GONE | Result.UNUSABLE:
                errand.end()
                self.drop(device.registered.token_hash)
                self._ledger.forget(device.registered)
            case Result.BUSY:
                self._pause(outcome.retry_after)
                self._again(errand, self._paused_until)
            case Result.RETRY:
                errand.tried = True
                self._again(errand, self._clock() + errand.backoff.next(outcome.retry_after))
            case Result.HELD:
                self._again(errand, self._clock() + errand.backoff.next(floor=outcome.retry_after or 0.0))
            case Result.STRANGE:
                errand.end()
                self._hold(errand)
                self._ledger.failed(device.registered)
            case Result.REFUSED:
                if self._seldom.may_say("push_refused"):
                    structlog.get_logger().error("push_refused", channel=self.name, detail=outcome.detail)
                if outcome.retry_after is not None:
                    self._again(errand, self._clock() + errand.backoff.next(outcome.retry_after))
                else:
                    errand.end()
                    self._hold(errand)

    def _sent(self, errand: Errand) -> None:
        now = self._clock()
        device = errand.device
        errand.end()
        self._hold(errand)
        if not self.paused:  # else it began before the pause
            self._pause_backoff.reset()
        if errand.type is PushType.MESSAGE:
            device.covered_until = now + self._limits.covered_for
        self._metrics.sent(self.name, errand.type, now - errand.since)
        self._ledger.worked(device.registered)

    def _again(self, errand: Errand, due: float) -> None:
        device = errand.device
        if self._closing or not self._devices.knows(device):
            # We go, or it was unregistered meanwhile.
            self._abandon(errand)
        elif errand.type is PushType.CALL and PushType.CALL in device.joined:
            # A younger call waits already.
            self._skip(errand.type, "coalesced")
            errand.end()
        else:
            self._queue(errand, due, again=True)

    def _pause(self, asked: float | None) -> None:
        """Let the push service rest, for as long as it asked, but for 10 minutes or so at most."""
        now = self._clock()
        if not self.paused:
            if self._seldom.may_say("push_service_busy"):
                structlog.get_logger().warning("push_service_busy", channel=self.name)
            self._paused_until = now + self._pause_backoff.next(asked)
        elif asked is not None:
            # Many pushes under way are told the same: one of them counts, unless another is told more.
            self._paused_until = max(self._paused_until, now + min(asked, ASKED_MOST))
        if self._resuming is not None:
            self._resuming.cancel()
        self._resuming = self._loop.call_later(self._paused_until - now, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        left = self._paused_until - self._clock()
        if left > 0:  # timers are coarser than the clock
            self._resuming = self._loop.call_later(left + 0.001, self._resume)
        else:
            self._pump()

    # --- The end -----------------------------------------------------------------------------------------------------

    async def finish(self, until: float) -> int:
        """Send what could be sent now, give the rest up, and return how much that was.

        Args:
            until: when to give up what is still under way then, by the loop's clock.
        """
        self._closing = True
        for waiting in self._waiting.values():
            for errand in [errand for errand in waiting if errand.timer is not None]:
                self._take(errand)
                self._abandon(errand)
        while self._under_way and (left := until - self._clock()) > 0:
            await asyncio.wait(self._under_way, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for waiting in self._waiting.values():
            for errand in list(waiting):
                self._take(errand)
                self._abandon(errand)
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._resuming is not None:
            self._resuming.cancel()
        return self._abandoned
