"""`python -m bench.scale`: how a cluster of millions finds its clients; a simulation without a socket.

What is simulated is one node, exactly, out of many that are alike: its clients write to contacts all over the cluster,
the contacts come, go and move meanwhile, and the node looks up where they are and remembers it as the router of the
backplane does, in two halves of which the older goes. Nothing is kept for each id: where one is at some moment, how
many contacts it has and who they are is computed from its number. So ten million take no more memory than one, and
what takes memory are the frames of that node.

What is not simulated, and stands in `Costs`, was measured with a real server (docs/scaling.md).
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.machine import describe
from bench.report import format_value

Ids = npt.NDArray[np.uint64]
Times = npt.NDArray[np.float64]

OFFLINE: Final = -1
CONTACTS_MOST: Final = 1024
"""As `limits.subscriptions` has it."""
_STEP: Final = 1 << 20
_FRAMES_MOST: Final = 20_000_000
"""Of one node: at some 200 bytes each, 4 GB."""
_PRESENCE_RECORD: Final = 37
"""Bytes with which a node tells another that a client came or went, before sealing."""


@dataclass(frozen=True, slots=True)
class World:
    """What is assumed of people. Times in seconds.

    Raises:
        ValueError: it cannot be simulated.
    """

    ids: int = 10_000_000
    nodes: int = 16
    nats: int = 3
    """NATS servers, each of which knows all subscriptions."""
    online: float = 0.5
    """The share of ids that are connected."""
    session: float = 1800.0
    """How long a connection lasts, in the mean: phones change networks."""
    contacts: float = 40.0
    """In the mean; the numbers follow a power law, P(more than d) falling as d to the minus three."""
    frames_a_day: float = 120.0
    """Sent by each who is online, acknowledgements among them."""
    peak: float = 3.0
    """The busiest hour, over the mean of the day."""
    burst: float = 8.0
    """Frames from one side of one conversation, in the mean."""
    gap: float = 12.0
    """Between two of those."""
    favourites: float = 1.1
    """Exponent of Zipf's law: how much more one writes to the first contact than to the tenth."""
    regions: int = 1
    """Parts of the world with as many nodes each; clients connect in their own."""
    at_home: float = 0.9
    """The share of contacts in one's own region, where there are several."""
    seed: int = 1

    def __post_init__(self) -> None:
        """Check it."""
        if self.ids < 1000 or self.nodes < 2 or self.nats < 1 or self.regions < 1 or self.nodes % self.regions:
            raise ValueError("1,000 ids, 2 nodes and a NATS server at least, and as many nodes in each region")
        if not 0 < self.online <= 1 or not 0 <= self.at_home <= 1:
            raise ValueError("shares are from 0 to 1, and somebody is online")
        if min(self.session, self.contacts, self.frames_a_day, self.peak, self.burst, self.gap, self.favourites) <= 0:
            raise ValueError("times and means are more than 0")
        if self.burst < 1 or self.contacts > CONTACTS_MOST / 4:
            raise ValueError(
                f"a burst has a frame at least, and people {CONTACTS_MOST // 4} contacts in the mean at most"
            )


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured on the machine of docs/scaling.md, of nats-server 2.15."""

    subscription_here: float = 1450.0
    """Bytes of a subscription at the server of the cluster that its relay is connected to."""
    subscription_there: float = 780.0
    """Bytes of it at every other server."""
    change_here: float = 14.0
    """µs of processor time for one that goes and one that comes, at that server."""
    change_there: float = 7.0
    """µs of that at every other."""
    handshakes: float = 4700.0
    """Clients that one core lets in per second (bench/RESULTS.md)."""


# --- The world, computed from numbers --------------------------------------------------------------------------------


def mixed(*parts: Ids | int) -> Ids:
    """Return 64 well mixed bits for each combination (the finalizer of SplitMix64, one round for each part)."""
    state: Ids = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = state + np.asarray(part, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(bits: Ids) -> Times:
    """Return numbers from 0 to less than 1."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


_POWER: Final = 1.5
"""Degrees fall as rank to the minus third: their distribution has the exponent three."""


def degrees(world: World, ids: Ids) -> npt.NDArray[np.int64]:
    """Return how many contacts these have: the lower the number of an id, the more."""
    rank = (ids.astype(np.float64) + 0.5) / world.ids
    mean = world.contacts / _POWER * rank ** (1 / _POWER - 1)
    return np.clip(np.rint(mean), 1, CONTACTS_MOST).astype(np.int64)


def contacts(world: World, ids: Ids, ranks: Ids) -> Ids:
    """Return the contact of each id that stands at each place of its list: whoever has many is in many lists."""
    drawn = uniform(mixed(world.seed, 1, ids, ranks)) ** _POWER
    found = np.minimum((drawn * world.ids).astype(np.uint64), np.uint64(world.ids - 1))
    if world.regions > 1:
        regions = np.uint64(world.regions)
        home = uniform(mixed(world.seed, 2, ids, ranks)) < world.at_home
        # The neighbour in number that lives in the same region.
        same = np.minimum(found - found % regions + ids % regions, np.uint64(world.ids - 1))
        found = np.where(home, same, found)
    return found


def places(world: World, ids: Ids, times: Times) -> npt.NDArray[np.int64]:
    """Return the node at which each id is at its time, or `OFFLINE`."""
    own = uniform(mixed(world.seed, 3, ids))
    # From person to person by a factor of three. Those of short ones begin more often: ln 3 makes the mean right.
    length = world.session * math.log(3) * (0.5 + own)
    begun = np.floor(times / length + uniform(mixed(world.seed, 4, ids)) + 1e6).astype(np.uint64)
    bits = mixed(world.seed, 5, ids, begun)
    each = world.nodes // world.regions
    nodes = (ids % np.uint64(world.regions)) * np.uint64(each) + (bits >> np.uint64(3)) % np.uint64(each)
    return np.where(uniform(mixed(bits, 6)) < world.online, nodes.astype(np.int64), OFFLINE)


@dataclass(slots=True)
class Frames:
    """What the clients of node 0 send, in the order of time: to whom, where that one is, and when."""

    targets: Ids
    nodes: npt.NDArray[np.int64]
    times: Times
    first: npt.NDArray[np.bool_]
    """Whether it is the first of a conversation: who is told "offline" sends no more of it."""


def frames(world: World, seconds: float) -> Frames:
    """Draw what the clients of one node send in that time."""
    random = np.random.default_rng(world.seed)
    here = world.ids * world.online / world.nodes
    rate = here * world.frames_a_day * world.peak / 86400 / world.burst
    if rate * world.burst * seconds > _FRAMES_MOST:
        raise ValueError(f"more than {_FRAMES_MOST:,} frames: simulate fewer --seconds, or more --nodes")
    count = int(random.poisson(rate * seconds))
    own = random.integers(0, world.ids // world.regions, count, dtype=np.uint64) * np.uint64(world.regions)
    # Zipf's law over one's own list, by the inverse of its distribution function for real numbers.
    most = degrees(world, own).astype(np.float64) + 1
    drawn = random.random(count)
    power = 1 - world.favourites
    ranks = (
        np.exp(drawn * np.log(most)) if abs(power) < 1e-9 else ((most**power - 1) * drawn + 1) ** (1 / power)
    ).astype(np.uint64)
    targets = contacts(world, own, ranks)
    sizes = random.geometric(1 / world.burst, count)
    starts = random.random(count) * seconds
    of = np.repeat(np.arange(count), sizes)
    gaps = random.exponential(world.gap, len(of))
    ends = np.cumsum(sizes)
    begins = ends - sizes
    gaps[begins] = 0.0
    passed = np.cumsum(gaps)
    times = starts[of] + passed - passed[begins][of]
    first = np.zeros(len(of), np.bool_)
    first[begins] = True
    order = np.argsort(times, kind="stable")
    order = order[times[order] < seconds]
    targets, times, first = targets[of[order]], times[order], first[order]
    return Frames(targets, places(world, targets, times), times, first)


# --- The router's memory ---------------------------------------------------------------------------------------------


class Memory:
    """Where ids are, as the router remembers it: two halves, and what was not used for longest goes with the older.

    Args:
        size: ids in each half.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._recent: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self.hits = self.stale = self.misses = 0

    def __len__(self) -> int:
        return len(self._recent) + len(self._older)

    def sent(self, targets: Iterable[int], nodes: Iterable[int]) -> None:
        """Send a frame to each target, which is at that node now: known, known wrongly, or to be looked up."""
        recent, older, size = self._recent, self._older, self._size
        hits = stale = misses = 0
        for target, node in zip(targets, nodes, strict=True):
            known = recent.get(target)
            if known is None:
                known = older.pop(target, None)
                if known is not None:
                    if len(recent) >= size:
                        older, recent = recent, {}
                    recent[target] = known
            if known == node:
                hits += 1
                continue
            if known is None:
                misses += 1
                if len(recent) >= size:
                    older, recent = recent, {}
            else:
                stale += 1
            recent[target] = node
        self._recent, self._older = recent, older
        self.hits += hits
        self.stale += stale
        self.misses += misses


def entry_bytes(size: int) -> float:
    """Return what one remembered id takes: its part of a full dictionary of this size, and the 8 bytes as an object."""
    table = dict.fromkeys(range(size))
    key = 16 * -(-sys.getsizeof(bytes(8)) // 16)
    return sys.getsizeof(table) / size + key


@dataclass(frozen=True, slots=True)
class Found:
    """What one size of memory leads to, at one node."""

    size: int
    hit_rate: float
    lookups: float
    """Per second: for ids that are not remembered, that moved, and that are offline."""
    stale: float
    """Per second: frames that went to a node that had the id no longer, and came back."""
    megabytes: float
    """Of a full memory of this size."""


def remembered(world: World, size: int, warm: float, seconds: float, sent: Frames) -> Found:
    """Send them all; what comes in the first `warm` seconds fills the memory and is not counted."""
    remote = (sent.nodes > 0) if world.nodes > 1 else np.zeros(len(sent.nodes), np.bool_)
    offline = (sent.nodes == OFFLINE) & sent.first & (sent.times >= warm)
    memory = Memory(size)
    for counted in (False, True):
        wanted = remote & ((sent.times >= warm) == counted)
        targets, nodes = sent.targets[wanted], sent.nodes[wanted]
        memory.hits = memory.stale = memory.misses = 0
        for begin in range(0, len(targets), _STEP):
            # A piece at a time: as Python's numbers they take ten times as much room.
            memory.sent(targets[begin : begin + _STEP].tolist(), nodes[begin : begin + _STEP].tolist())
    took = seconds - warm
    all_sent = memory.hits + memory.stale + memory.misses
    return Found(
        size=2 * size,
        hit_rate=memory.hits / all_sent if all_sent else 0.0,
        lookups=(memory.misses + memory.stale + int(offline.sum())) / took,
        stale=memory.stale / took,
        megabytes=2 * size * entry_bytes(size) / 1e6,
    )


# --- What follows by counting ----------------------------------------------------------------------------------------


def cluster_figures(world: World, costs: Costs) -> dict[str, float]:
    """Return what NATS and the nodes have to bear, whatever the memory."""
    online = world.ids * world.online
    sessions_begin = online / world.session
    servers = world.nats
    here, there = 1 / servers, 1 - 1 / servers
    changes = 2 * sessions_begin  # gone, and there again
    return {
        "clients online": online,
        "clients at a node": online / world.nodes,
        "connections that begin, /s": sessions_begin,
        "NATS: subscriptions at each server": online,
        "NATS: SUB and UNSUB, /s": changes,
        "NATS: memory of a server, GB": online
        * (here * costs.subscription_here + there * costs.subscription_there)
        / 1e9,
        "NATS: processor of a server, % of a core": sessions_begin
        * (here * costs.change_here + there * costs.change_there)
        / 1e4,
        "presence: changes told to each node, /s": changes * (1 - 1 / world.nodes),
        "presence: received by each node, kB/s": changes * (1 - 1 / world.nodes) * _PRESENCE_RECORD / 1e3,
        "a node dies: seconds until all are back": online
        / world.nodes
        / (costs.handshakes * (world.nodes / world.regions - 1 or 1)),
        "a region dies: seconds until all are back": 0.0
        if world.regions == 1
        else online / world.regions / (costs.handshakes * world.nodes * (1 - 1 / world.regions)),
    }


def traffic_figures(world: World, warm: float, seconds: float, sent: Frames) -> dict[str, float]:
    """Return where the frames of a node go."""
    counted = sent.times >= warm
    nodes = sent.nodes[counted]
    took = seconds - warm
    reached = nodes != OFFLINE
    each = world.nodes // world.regions
    return {
        "frames sent by a node's clients, /s": float(reached.sum()) / took,
        "of these to another node, %": 100 * float((nodes > 0).sum()) / max(int(reached.sum()), 1),
        "of these to another region, %": 100 * float((nodes >= each).sum()) / max(int(reached.sum()), 1),
        "frames that arrive from other nodes, /s": float((nodes > 0).sum()) / took,
        "conversations begun with somebody offline, /s": float((~reached & sent.first[counted]).sum()) / took,
    }


def simulate(world: World, sizes: Sequence[int], warm: float, seconds: float) -> dict[str, object]:
    """Return everything, as the JSON has it."""
    if not 0 <= warm < seconds:
        raise ValueError("the time has to be longer than what fills the memory")
    sent = frames(world, seconds)
    return {
        "world": asdict(world),
        "costs": asdict(Costs()),
        "cluster": cluster_figures(world, Costs()),
        "traffic": traffic_figures(world, warm, seconds, sent),
        "memory": [asdict(remembered(world, size // 2, warm, seconds, sent)) for size in sizes],
    }


# --- The command -----------------------------------------------------------------------------------------------------


def show(found: dict[str, object]) -> str:
    """Return the table."""
    lines = []
    for part in ("cluster", "traffic"):
        figures = found[part]
        assert isinstance(figures, dict)
        lines += [f"  {name:48} {format_value(value):>12}" for name, value in figures.items()]
        lines.append("")
    memory = found["memory"]
    assert isinstance(memory, list)
    lines.append(f"  {'ids remembered by a node':>26} {'hit rate':>10} {'lookups/s':>10} {'stale/s':>10} {'MB':>8}")
    for row in memory:
        lines.append(
            f"  {row['size']:26,} {row['hit_rate']:10.2%} {row['lookups']:10,.0f} {row['stale']:10,.1f}"
            f" {row['megabytes']:8.1f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate; returns 0, or 2 when that cannot be simulated."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").partition("\n")[0])
    world = World()
    for name, value in asdict(world).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value:,}")
    parser.add_argument(
        "--remember",
        type=int,
        action="append",
        metavar="IDS",
        help="how many ids a node remembers; may be repeated (default 32,768, 131,072 as the router, and 524,288)",
    )
    parser.add_argument("--seconds", type=float, default=2700.0, help="of the world's time (default 2,700)")
    parser.add_argument("--warm", type=float, default=1500.0, help="of these not counted (default 1,500)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    begun = time.perf_counter()
    sizes = options.remember or [32_768, 131_072, 524_288]
    if min(sizes) < 2:
        parser.error("a node remembers two ids at least")
    try:
        world = World(**{name: getattr(options, name) for name in asdict(world)})
        found = simulate(world, sizes, options.warm, options.seconds)
    except ValueError as error:
        print(f"bench.scale: {error}", file=sys.stderr)
        return 2
    print(f"{world.ids:,} ids, {world.nodes} nodes, {world.nats} NATS servers, seed {world.seed}\n")
    print(show(found))
    print(f"\n{time.perf_counter() - begun:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": describe(), **found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
