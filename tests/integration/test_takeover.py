"""A restart under load: a second relay takes over the port while the first one drains, and no message is lost."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from keys.identity import Identity
from tests.support.bulk import BulkClient
from tests.support.clients import run_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from keys.identity import PublicIdentity
    from tests.support.relay_process import RelayProcess

PEOPLE: Final = 200
MESSAGES: Final = 30
WAIT: Final = 120.0
AGAIN: Final = 0.25
"""Seconds after which a client sends again what was not acknowledged, as any does."""


class Person:
    """Sends numbered messages to a friend, again until each is acknowledged, and comes back whenever it is cut off."""

    def __init__(self) -> None:
        self.identity = Identity.generate()
        self.friend = self
        self.written: dict[int, None] = {}
        """What has no acknowledgement yet, by number."""
        self.acknowledged = 0
        self.came: list[int] = []
        """The friend's messages, each once, in the order in which they came first."""
        self.connections = 0
        self._known: set[int] = set()

    @property
    def done(self) -> bool:
        return self.acknowledged == MESSAGES and len(self.came) == MESSAGES

    async def live(self, port: int, relay: PublicIdentity, all_done: asyncio.Event) -> None:
        while not all_done.is_set():
            try:
                client = await BulkClient.open(port, self.identity, relay)
            except OSError:
                # Between two relays, or in the backlog of the one that closes it.
                await asyncio.sleep(AGAIN / 5)
                continue
            self.connections += 1
            taken = 0
            while not client.lost and not all_done.is_set():
                if len(self.written) < 4 and self.acknowledged + len(self.written) < MESSAGES:
                    self.written[self.acknowledged + len(self.written)] = None
                # Even numbers are messages, odd ones the acknowledgements of those before them.
                await self._write(client, [2 * number for number in self.written])
                await self._arrival(client)
                numbers = client.delivered.get(self.friend.identity.id, [])
                await self._take(client, numbers[taken:])
                taken = len(numbers)
            client.transport.abort()

    async def _take(self, client: BulkClient, numbers: list[int]) -> None:
        for number in numbers:
            message = number // 2
            if number % 2:
                if message in self.written:
                    del self.written[message]
                    self.acknowledged += 1
            elif message not in self._known:
                self._known.add(message)
                self.came.append(message)
        await self._write(client, [number + 1 for number in numbers if number % 2 == 0])

    async def _arrival(self, client: BulkClient) -> None:
        try:
            async with asyncio.timeout(AGAIN):
                await client.came.wait()
        except TimeoutError:
            return
        client.came.clear()

    async def _write(self, client: BulkClient, numbers: list[int]) -> None:
        for number in numbers:
            if not client.lost:
                await client.write(client.frames(self.friend.identity.id, number, 1))


@run_async
async def test_a_second_relay_takes_over_and_every_message_arrives_once(
    start_relay: Callable[..., RelayProcess],
) -> None:
    # All of them come from one address, which is nobody's in particular here; what they write is far below any rate.
    first = start_relay(arguments=["--reuse-port"], drain=3)
    people = [Person() for _ in range(PEOPLE)]
    for one, other in zip(people[::2], people[1::2], strict=True):
        one.friend, other.friend = other, one
    all_done = asyncio.Event()
    living = [asyncio.create_task(each.live(first.port, first.public, all_done)) for each in people]
    async with asyncio.timeout(WAIT):
        while sum(len(each.came) for each in people) < PEOPLE * MESSAGES // 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        second = await asyncio.to_thread(start_relay, arguments=["--reuse-port", "--port", str(first.port)], drain=0)
        first.signal(signal.SIGTERM)
        while not all(each.done for each in people):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await asyncio.to_thread(first.wait) == 0
        all_done.set()
        await asyncio.gather(*living)
    assert second.port == first.port
    for each in people:
        assert sorted(each.came) == list(range(MESSAGES))
        assert each.connections >= 2, "it was never cut off"
    # All were closed by the drain, one after another, and none by the deadline at its end.
    assert first.stopped["endings"]["shutdown"] == PEOPLE
