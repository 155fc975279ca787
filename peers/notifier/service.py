"""The service: what the relay passes on becomes registrations and pushes.

Registrations go to the database in the order in which they come, many in one commit; a wake that comes behind the
registration of its target finds it, for it waits for that commit. Wakes are looked up in batches and handed to the
lanes, which have a queue and workers each. When the database or the lanes do not keep up, events are not taken, the
relay's socket is not read, and the relay drops what is too much: nothing here grows without a bound.
"""

import asyncio
import functools
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import Final

import structlog

from peers.client import Connected, Disconnected, Event, IdInUse, PushRegistered, WakeRequested, WakeType
from peers.database import DatabaseError
from peers.notifier.channel import PushType
from peers.notifier.lane import Lane
from peers.notifier.metrics import Metrics
from peers.notifier.registry import Added, Registered, Registry
from peers.service.log import Seldom, where
from peers.service.relay_session import RelaySession
from wire.commands import PushKind

_WAKES: Final = 4096
"""Wakes that wait to be looked up; behind them come the client's queue and the relay's."""
_BATCH: Final = 256
"""Wakes that are looked up in one go."""
_WRITES: Final = 1024
"""Registrations that wait for their commit."""
_FIND_AGAIN: Final = (0.2, 1.0, 5.0)
"""Seconds until the registry is asked again that could not be read."""
_SWEEP: Final = 60.0
_PRUNE: Final = 86400.0


class Service:
    """Turns events into registrations and pushes.

    Args:
        registry: who can be pushed where.
        metrics: counts.
        forget_after_days: how long a token stays that is not registered again.
    """

    def __init__(self, registry: Registry, metrics: Metrics, forget_after_days: int) -> None:
        self._registry = registry
        self._metrics = metrics
        self._forget_after_days = forget_after_days
        self._lanes: Mapping[int, Lane] = {}
        self._wakes: asyncio.Queue[tuple[bytes, PushType]] = asyncio.Queue(_WAKES)
        self._writes = asyncio.Semaphore(_WRITES)
        self._writing: dict[bytes, asyncio.Future[None]] = {}
        self._notes: set[asyncio.Future[object]] = set()
        # Some errors come with every wake, or as often as somebody likes.
        self._seldom = Seldom(lambda: asyncio.get_running_loop().time())
        self._unreadable = 0
        self._session = RelaySession("notifier", metrics)

    @property
    def connected(self) -> bool:
        """Whether there is a session with the relay."""
        return self._session.connected

    # --- What lanes tell (peers.notifier.lane.Ledger) -----------------------------------------------------------------

    def worked(self, registered: Registered) -> None:
        """Note that a push was taken: once a day is enough."""
        if registered.last_ok != self._registry.today or registered.failures:
            self._note(functools.partial(self._registry.worked, registered.token_hash))

    def failed(self, registered: Registered) -> None:
        """Note that one failed."""
        self._note(functools.partial(self._registry.failed, registered.token_hash))

    def forget(self, registered: Registered) -> None:
        """Forget a token to which nothing can be sent any more."""
        self._note(functools.partial(self._registry.forget_token, registered.token_hash))

    def _note(self, write: Callable[[], Awaitable[object]]) -> None:
        try:
            future = asyncio.ensure_future(write())
        except DatabaseError as error:
            self._say_trouble(error)
            return
        self._notes.add(future)
        future.add_done_callback(self._noted)

    def _noted(self, future: "asyncio.Future[object]") -> None:
        self._notes.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            self._say_trouble(error)

    def _say_trouble(self, error: BaseException) -> None:
        if isinstance(error, DatabaseError):
            # Its text names the file and what to do, and nothing of its content.
            self._seldom.error("registry_trouble", reason=str(error))
        else:
            self._seldom.error("internal_error", error=type(error).__name__, where=where(error))

    # --- Events ------------------------------------------------------------------------------------------------------

    async def run(self, events: AsyncIterable[Event], lanes: Mapping[int, Lane]) -> None:
        """Take events until they end, and hand all that came to the lanes.

        Args:
            events: those of a relay client.
            lanes: by the kind of their tokens.

        Raises:
            RelayRefused: the relay refused for good.
        """
        self._lanes = lanes
        try:
            # When one of the two ends by a fault, nothing would be pushed, and nobody would know: then all ends.
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(self._dispatch()), group.create_task(self._keep_house())]
                async for event in events:
                    await self._take(event)
                await self._wakes.join()
                await self._settled(list(self._writing))
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._session.connected = False

    async def _take(self, event: Event) -> None:
        match event:
            case WakeRequested(target_id, kind):
                await self._wakes.put((target_id, PushType.CALL if kind == WakeType.CALL else PushType.MESSAGE))
            case PushRegistered(sender_id, kind, token):
                await self._register(sender_id, kind, token)
            case Connected() | Disconnected() | IdInUse():
                self._session.take(event)
            case _:
                pass  # an ordinary client's, and nobody has reason to send us any

    async def _register(self, client_id: bytes, kind: int, token: bytes) -> None:
        if kind == PushKind.NONE:
            await self._write(client_id, functools.partial(self._removed, client_id, None))
        elif not token:
            await self._write(client_id, functools.partial(self._removed, client_id, kind))
        elif (lane := self._lanes.get(kind)) is None:
            self._metrics.registered("not_offered")
        elif not self._usable(lane, token):
            self._metrics.registered("unusable")
        else:
            await self._write(client_id, functools.partial(self._added, client_id, kind, token))

    def _usable(self, lane: Lane, token: bytes) -> bool:
        try:
            lane.check_token(token)
        except ValueError:
            return False
        except Exception as error:  # noqa: BLE001 - a token that somebody sent must not end the service
            self._say_trouble(error)
            return False
        return True

    async def _write(self, client_id: bytes, write: Callable[[], Awaitable[None]]) -> None:
        """Put a registration in line; later wakes of the id wait for it."""
        await self._writes.acquire()
        # The first step of the task, which puts the write in line, is taken before that of any later one.
        writing = self._writing[client_id] = asyncio.ensure_future(self._guarded(write))

        def written(_: "asyncio.Future[None]") -> None:
            self._writes.release()
            if self._writing.get(client_id) is writing:
                del self._writing[client_id]

        writing.add_done_callback(written)

    async def _guarded(self, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        except Exception as error:  # noqa: BLE001 - told, and the next registration may do better
            self._metrics.registered("failed")
            self._say_trouble(error)

    async def _added(self, client_id: bytes, kind: int, token: bytes) -> None:
        adding = self._registry.add(client_id, kind, token)
        # At once, for it is in line now: a removal for what a push was told before would come behind it.
        self._lanes[kind].renewed(self._registry.token_hash(kind, token))
        added = await adding
        self._metrics.registered(added.value)
        if added is Added.FULL:
            self._seldom.error(
                "registry_full", advice="raise --limits.registrations, or find out who registers so many"
            )

    async def _removed(self, client_id: bytes, kind: int | None) -> None:
        for token_hash in (await self._registry.remove(client_id, kind)).orphaned:
            for lane in self._lanes.values():
                lane.drop(token_hash)
        self._metrics.registered("removed")

    # --- Wakes -------------------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while True:
            batch = [await self._wakes.get()]
            while len(batch) < _BATCH and not self._wakes.empty():
                batch.append(self._wakes.get_nowait())
            await self._wake(batch)
            for _ in batch:
                self._wakes.task_done()

    async def _wake(self, batch: list[tuple[bytes, PushType]]) -> None:
        targets = list(dict.fromkeys(target for target, _ in batch))
        await self._settled(targets)
        found = await self._find(targets)
        if self._registry.unreadable > self._unreadable:
            self._unreadable = self._registry.unreadable
            self._seldom.error(
                "registry_unreadable", rows=self._unreadable, advice="restore a backup, or let clients register"
            )
        for target, kind in batch:
            if found is None:
                self._metrics.woken(kind, "failed")
                continue
            offered = [each for each in found.get(target, ()) if each.kind in self._lanes]
            self._metrics.woken(kind, "registered" if offered else "unknown")
            for registered in offered:
                self._lanes[registered.kind].wake(registered, kind)

    async def _settled(self, client_ids: list[bytes]) -> None:
        writing = {self._writing[each] for each in client_ids if each in self._writing}
        if writing:
            await asyncio.wait(writing)

    async def _find(self, targets: list[bytes]) -> dict[bytes, list[Registered]] | None:
        for delay in (*_FIND_AGAIN, None):
            try:
                return await self._registry.find(targets)
            except DatabaseError as error:
                self._say_trouble(error)
                if delay is not None:
                    await asyncio.sleep(delay)
        return None

    async def count(self) -> None:
        """Bring the figure of registrations up to date, those of kinds that are switched off included."""
        try:
            self._metrics.tokens(await self._registry.totals())
        except DatabaseError as error:
            self._say_trouble(error)

    # --- Housekeeping ------------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        loop = asyncio.get_running_loop()
        prune_at = loop.time()
        while True:
            try:
                if loop.time() >= prune_at:
                    prune_at = loop.time() + _PRUNE
                    pruned = await self._registry.prune(self._forget_after_days)
                    structlog.get_logger().info("pruned", tokens=pruned)
                await self.count()
            except DatabaseError as error:
                self._say_trouble(error)
            for lane in self._lanes.values():
                lane.sweep()
            await asyncio.sleep(_SWEEP)

    async def finish(self, until: float) -> int:
        """Send what can be sent until then, by the loop's clock; returns how many pushes were given up."""
        given_up = await asyncio.gather(*(lane.finish(until) for lane in self._lanes.values()))
        if self._notes:
            await asyncio.wait(self._notes)
        return sum(given_up)
