"""WAKE and PUSH_REGISTER: what reaches the notifier, which is an ordinary client with an id that the relay knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from tests.support.clients import Clients, run_async
from tests.support.relay_process import RelayProcess
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTIFIER = Identity.generate()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    running = RelayProcess(tmp_path_factory.mktemp("relay"), notifier_id=NOTIFIER.id)
    yield running
    running.check()


@run_async
async def test_wakes_for_the_absent_are_forwarded_as_they_came(relay: RelayProcess) -> None:
    absent = Identity.generate().id
    async with Clients(relay) as clients:
        notifier, alice = await clients.open(NOTIFIER), await clients.open()
        for wake in (c.Wake(absent), c.Wake(absent, 0), c.Wake(absent, 1), c.Wake(absent, 7)):
            await alice.command(wake)
            assert await notifier.expect(c.Wake) == wake
        await alice.command(c.Unknown(c.Command.WAKE, absent + b"\x01 and more"))
        assert await notifier.expect(c.Wake) == c.Wake(absent, 1), "nine bytes at most"


@run_async
async def test_message_does_not_wake_the_active_but_a_call_does(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        notifier, alice, bob = await clients.open(NOTIFIER), await clients.open(), await clients.open()
        await alice.command(c.Wake(bob.id))
        await alice.command(c.Wake(bob.id, c.WakeType.MESSAGE))
        await alice.command(c.Wake(bob.id, c.WakeType.CALL))
        assert await notifier.expect(c.Wake) == c.Wake(bob.id, c.WakeType.CALL)
        await alice.round_trip()
        await bob.round_trip()


@run_async
async def test_message_wakes_whoever_is_connected_and_silent(start_relay: Callable[..., RelayProcess]) -> None:
    """A phone that sleeps keeps its socket for a while: connected is not awake."""
    relay = start_relay(
        notifier_id=NOTIFIER.id, limits={"awake_for": 0.3, "wakes_pair_per_second": 0, "wakes_per_second": 0}
    )
    async with Clients(relay) as clients:
        notifier, alice, bob = await clients.open(NOTIFIER), await clients.open(), await clients.open()
        # Bob says nothing from here on, so at some time one of these gets through.
        asked = woken = 0
        while not woken:
            asked += 1
            await alice.command(c.Wake(bob.id, c.WakeType.MESSAGE))
            await alice.command(c.Wake(Identity.generate().id, c.WakeType.CALL))
            woken += (await notifier.expect(c.Wake)).target_id == bob.id
            assert asked < 10_000


@run_async
async def test_push_registration_carries_the_id_of_the_session(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        notifier, alice = await clients.open(NOTIFIER), await clients.open()
        for kind, token in ((c.PushKind.FCM, b"token"), (c.PushKind.WEB_PUSH, b"x" * 4096), (c.PushKind.NONE, b"")):
            await alice.command(c.PushRegister(kind, token))
            assert await notifier.expect(c.PushForward) == c.PushForward(alice.id, kind, token)


@run_async
async def test_without_a_notifier_nothing_happens(relay: RelayProcess) -> None:
    async with Clients(relay) as clients:
        alice = await clients.open()
        await alice.command(c.Wake(Identity.generate().id, c.WakeType.CALL))
        await alice.command(c.PushRegister(c.PushKind.FCM, b"token"))
        await alice.round_trip()


@run_async
async def test_wakes_are_limited_per_pair(relay: RelayProcess) -> None:
    absent, other = Identity.generate().id, Identity.generate().id
    async with Clients(relay) as clients:
        notifier, alice = await clients.open(NOTIFIER), await clients.open()
        for _ in range(40):
            await alice.command(c.Wake(absent, c.WakeType.CALL))
        await alice.command(c.Wake(other, c.WakeType.CALL))
        count = 0
        while (await notifier.expect(c.Wake)).target_id == absent:
            count += 1
        # Ten at once and one in five seconds after that.
        assert 10 <= count < 40
