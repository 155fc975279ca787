"""Two profiles and everything that goes wrong: the network is lost in the middle, the relay is killed and comes back,
and then both programs are killed. Nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import run_async
from tests.support.cutting import CuttingProxy
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.peers.chat.user import Running, User

pytestmark = pytest.mark.timeout(240)


async def hears(ears: Running, texts: set[str]) -> int:
    """Wait until all of these came; returns the cursor behind the last."""
    cursor, waiting = 0, set(texts)
    while waiting:
        record = await asyncio.to_thread(ears.until, "message", direction="in")
        waiting.discard(record["text"])
        cursor = record["cursor"]
    return cursor


async def says(user: User, *texts: str) -> None:
    for text in texts:
        done = await asyncio.to_thread(user.run, "send", "bob", text, "--timeout", "1")
        assert done.status in (0, 4), done  # 4: kept, for there is no connection just now


@run_async
async def test_loss_of_network_relay_and_both_programs(tmp_path: Path, user: Callable[[str], User]) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    relay = RelayProcess(keys)
    alice, bob = user("alice"), user("bob")
    try:
        async with CuttingProxy(relay.port, relay.public) as network:
            await asyncio.to_thread(alice.joins, network, "Alice")
            invite = await asyncio.to_thread(bob.joins, network, "Bob")
            await asyncio.to_thread(alice.does, "add", invite)

            with bob.starts("listen", "--json") as ears, alice.starts("listen", "--json") as hers:
                await says(alice, "one")
                await hears(ears, {"one"})
                # The network dies under each of the next, after more and more bytes.
                for number in range(6):
                    network.cut_after(150 * number + 1)
                    await says(alice, f"cut {number}")
                await hears(ears, {f"cut {number}" for number in range(6)})
                # It is gone for a while.
                network.shut()
                await says(alice, "into the dark", "and more")
                network.open()
                await hears(ears, {"into the dark", "and more"})
                # The relay is killed, and is back on another port with its keys.
                relay.process.kill()
                relay.process.wait()
                await says(alice, "is anybody there?")
                relay = RelayProcess(keys)
                network.target = relay.port
                cursor = await hears(ears, {"is anybody there?"})
                # Both are killed.
                ears.process.kill()
                hers.process.kill()
                ears.process.wait()
                hers.process.wait()
            await says(alice, "before he is back")
            with bob.starts("listen", "--json", "--since", str(cursor)) as ears:
                done = await asyncio.to_thread(
                    alice.does, "send", "bob", "last", "--wait", "delivered", "--timeout", "60"
                )
                assert done.status == 0
                await hears(ears, {"before he is back", "last"})
                await asyncio.to_thread(bob.does, "send", "alice", "I have it all")
                await asyncio.to_thread(alice.does, "listen", "--since", "0", "--count", "1", "--timeout", "45")

        expected = {
            "one",
            *(f"cut {number}" for number in range(6)),
            "into the dark",
            "and more",
            "is anybody there?",
            "before he is back",
            "last",
        }
        heard = [
            record["text"] for record in bob.does("history", "alice", "--json").records if record["direction"] == "in"
        ]
        assert sorted(heard) == sorted(expected)
        said = alice.does("history", "bob", "--json").records
        assert {record["text"] for record in said if record["direction"] == "out"} == expected
        assert {record["state"] for record in said if record["direction"] == "out"} == {"delivered"}
        assert [record["text"] for record in said if record["direction"] == "in"] == ["I have it all"]
    finally:
        relay.process.kill()
        relay.process.wait()
