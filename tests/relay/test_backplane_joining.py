"""A relay listens once it knows what the others remember, or once it has waited for that long enough."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog

from relay.backplane import nonces
from relay.backplane.joining import PATIENCE, find_others
from relay.backplane.node import Backplane
from relay.backplane.options import ClusterError
from relay.core import Core
from relay.limits import Limits
from tests.relay.cluster import OPTIONS, Medium, MemoryBus
from tests.relay.harness import identity
from tests.relay.test_backplane_nonces import fill
from tests.support.virtual_time import in_virtual_time
from tests.wire.pair import SERVER, Counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keys.identity import Identity


class Site:
    """Where relays join each other, in virtual time."""

    def __init__(self) -> None:
        self.medium = Medium(cast("Any", asyncio.get_running_loop()))
        self.medium.delay = 0.02
        self.nodes: list[Backplane] = []

    def node(self, server: Identity = SERVER) -> Backplane:
        loop = asyncio.get_running_loop()
        core = Core(loop, server, Limits(), random=Counted(f"relay {len(self.nodes)}"))
        self.nodes.append(Backplane(core, OPTIONS, MemoryBus(self.medium)))
        return self.nodes[-1]

    async def joined(self, keys: int = 0) -> Backplane:
        """Return a relay that has joined, and then saw so many nonces."""
        node = self.node()
        await find_others(node)
        fill(node.core.handshakes_seen, keys, 1)
        return node


def whole(node: Backplane) -> bool:
    return node.shares.nonces.whole


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@in_virtual_time
async def test_who_is_first_waits_for_nobody() -> None:
    site, loop = Site(), asyncio.get_running_loop()
    before = loop.time()
    await site.joined()
    assert loop.time() - before < 1.0


@in_virtual_time
async def test_who_comes_later_has_all_before_it_listens() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nonces, "SLICE", 256)
        site = Site()
        first = await site.joined(500)
        for _ in range(2):
            node = await site.joined()
            assert len(node.core.handshakes_seen) == 500
            assert node.core.handshakes_seen.latest() == first.core.handshakes_seen.latest()
        # The one that was given it gives it on, once the other is gone.
        first.stop()
        site.medium.buses[0].die()
        site.nodes[2].stop()
        site.medium.buses[2].die()
        last = await site.joined()
        assert len(last.core.handshakes_seen) == 500


@in_virtual_time
async def _late(lines: list[Any]) -> None:
    site, loop = Site(), asyncio.get_running_loop()
    first = await site.joined(5)
    give, asked = first.shares.nonces.past_asked, []
    first.shares.nonces.past_asked = lambda *how: asked.append(how)  # type: ignore[method-assign]
    before = loop.time()
    node = await site.joined()
    assert PATIENCE <= loop.time() - before <= PATIENCE + 4.0
    assert not len(node.core.handshakes_seen)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["cluster_memory_late"]
    # Until it has all it is not the one to ask; and what comes later counts.
    assert not whole(node)
    for how in asked:
        give(*how)
    await asyncio.sleep(1.0)
    assert whole(node)
    assert len(node.core.handshakes_seen) == 5


def test_who_waited_long_enough_listens_all_the_same(logged: list[Any]) -> None:
    _late(logged)


@in_virtual_time
async def test_a_stranger_is_refused_without_waiting() -> None:
    site, loop = Site(), asyncio.get_running_loop()
    await site.joined(5)
    before = loop.time()
    other = site.node(identity(77))
    with pytest.raises(ClusterError, match="the same key file"):
        await find_others(other)
    assert loop.time() - before < PATIENCE
