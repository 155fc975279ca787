"""What a cluster costs: `python -m bench.cluster`. One NATS server and three relays: one alone, two that are one.

The same load goes over each in turn, in rounds: pairs at the relay that is alone, pairs at one node of the cluster, and
pairs whose ends are at different nodes. A frame's cost is the processor time of the relays it goes through, for time
alone says little on a machine that others use. `--ids N` tells what N ids cost a node in memory and time, without
sockets. `--workers N` compares a relay of N workers with one of one, each client in a worker by chance.
"""

import argparse
import asyncio
import os
import secrets
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bench.load.flows import Load, Measured
from bench.load.framing import take_messages
from bench.load.opening import Link, open_links
from bench.load.packets import Edge, seal_ring
from bench.machine import cpu_time, resident_kib
from bench.targets import Target, started
from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity
from relay.backplane.joining import find_others
from relay.backplane.nats_bus import NatsBus
from relay.backplane.node import Backplane
from relay.backplane.options import ClusterOptions
from relay.core import Core
from relay.limits import Limits

_LOADS: Final = ((256, 8, 16), (256, 1, 16), (4096, 8, 16), (256, 8, 128), (256, 1, 128))
"""Bytes of a frame, frames in flight of each pair, pairs. With few pairs few frames share a message between nodes."""
_SPREAD: Final = 128
"""Pairs of which each end is in a worker by chance: with two workers half of them cross, give or take 4 %."""
_TRIES: Final = 5
"""How often a load is repeated in whose time none of its frames arrived, as on a machine that others keep busy."""
_FREE: Final = {"frames-per-second": 0, "bytes-per-second": 0}


@contextmanager
def nats_server() -> Iterator[tuple[str, int]]:
    """Run a NATS server on loopback, on one core, as the private one of `--workers`; gives its URL and process."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    program = Path(sys.executable).with_name("nats-server")
    process = subprocess.Popen(
        [str(program), "-a", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "GOMAXPROCS": "1"},
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield f"nats://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.wait()


def _command(directory: Path, *more: str) -> list[str]:
    limits = [part for name, value in _FREE.items() for part in (f"--limits.{name}", str(value))]
    data = ["--data-dir", str(directory)]
    return [sys.executable, "-m", "relay", "--port", "0", "--admin", "off", "--drain", "0", *data, *limits, *more]


def _edges(sending: Target, receiving: Target, pairs: int) -> list[Edge]:
    # Clients of an earlier load stay connected, as clients do.
    senders = open_links(sending, [Identity.generate() for _ in range(pairs)])
    recipients = open_links(receiving, [Identity.generate() for _ in range(pairs)])
    return [Edge(sender, recipient) for sender, recipient in zip(senders, recipients, strict=True)]


def _hang_up(edges: Iterable[Edge]) -> None:
    # A relay that is told to stop waits for seconds for those who do not answer its goodbye.
    for edge in edges:
        edge.sender.socket.close()
        edge.recipient.socket.close()


def _load(edges: list[Edge], size: int, window: int, seconds: float, pids: list[int]) -> tuple[Measured, list[float]]:
    for edge in edges:
        edge.load(seal_ring(edge.sender.identity, edge.recipient.identity, size, 64))
    load = Load(edges, window, None)
    try:
        load.run(0.1)  # ids are looked up, and remembered
        for edge in edges:
            edge.sent = edge.delivered = 0
        for _ in range(_TRIES):
            before = [cpu_time(pid).on_cpu for pid in pids]
            measured = load.run(seconds, ramp=0.0)
            if measured.frames:
                return measured, [cpu_time(pid).on_cpu - spent for pid, spent in zip(pids, before, strict=True)]
        raise SystemExit(f"bench.cluster: no frame arrived within {seconds:g} s; give it more by --seconds")
    finally:
        load.close()


def _latency(edge: Edge, count: int) -> float:
    """Return the median seconds from one end to the other, one frame at a time."""
    times = []
    recipient: Link = edge.recipient
    edge.load(seal_ring(edge.sender.identity, recipient.identity, 256, 64))
    for _ in range(count):
        begun = time.perf_counter()
        edge.sender.socket.send(edge.next_frames(1))
        while True:
            select.select([recipient.socket], [], [])
            recipient.buffer += recipient.socket.recv(1 << 16)
            if any(len(message.payload) == 256 for message in take_messages(recipient.buffer)):
                break
        times.append(time.perf_counter() - begun)
    edge.delivered = edge.sent
    return statistics.median(times)


def measure(rounds: int, seconds: float) -> None:
    """Run the loads and print what they cost."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, nats_pid = stack.enter_context(nats_server())
        secret = directory / "cluster.secret"
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        keys = ServerKeys(Identity.generate(), None)
        targets = []
        for name in ("alone", "node 1", "node 2"):
            place = directory / name.replace(" ", "-")
            place.mkdir()
            write_server_keys(place / "relay.keys", keys)
            more = [] if name == "alone" else ["--nats", url, "--cluster-secret-file", str(secret)]
            targets.append(stack.enter_context(started(name, _command(place, *more), 0, place / "log")))
        alone, one, two = targets
        ways = {"alone": (alone, alone), "local": (one, one), "remote": (one, two)}
        pids = {
            "alone": [alone.pid or 0],
            "local": [one.pid or 0, two.pid or 0, nats_pid],
            "remote": [one.pid or 0, two.pid or 0, nats_pid],
        }
        edges: dict[str, list[Edge]] = {name: [] for name in ways}
        stack.callback(_hang_up, chain.from_iterable(edges.values()))
        for size, window, pairs in _LOADS:
            for name, way in ways.items():
                # Not before: who is connected and does not read answers no ping.
                edges[name] += _edges(*way, pairs - len(edges[name]))
            costs: dict[str, list[float]] = {name: [] for name in ways}
            rates: dict[str, list[float]] = {name: [] for name in ways}
            parts: list[list[float]] = []
            for _ in range(rounds):
                for name in ways:
                    measured, spent = _load(edges[name][:pairs], size, window, seconds, pids[name])
                    relays = sum(spent if name == "alone" else spent[:2])
                    costs[name].append(relays / measured.frames * 1e6)
                    rates[name].append(measured.frames / measured.seconds)
                    if name == "remote":
                        parts.append([each / measured.frames * 1e6 for each in spent])
            print(f"\n{size} B, {window} in flight, {pairs} pairs; median of {rounds} rounds of {seconds:g} s")
            base = statistics.median(costs["alone"])
            for name in ways:
                cost = statistics.median(costs[name])
                print(
                    f"  {name:7} {statistics.median(rates[name]):9,.0f} frames/s   {cost:6.2f} µs of relay CPU a frame"
                    f"   ×{base / cost:.2f} frames for the same CPU"
                )
            names = ("sender's node", "recipient's node", "NATS")
            middle = [statistics.median(column) for column in zip(*parts, strict=True)]
            shares = ", ".join(f"{name} {cost:.2f} µs" for name, cost in zip(names, middle, strict=True))
            print(f"  remote: {shares}; ×{base / sum(middle):.2f} frames for the same CPU with that of NATS")
        latencies = {name: _latency(edges[name][0], 500) * 1e6 for name in ways}
        print("\nmedian latency, one frame at a time: " + ", ".join(f"{k} {v:.0f} µs" for k, v in latencies.items()))


def _descendants(pid: int) -> dict[int, str]:
    """Return the processes below one, each with its command line."""
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ").strip()
            found |= _descendants(child)
    return found


def measure_workers(count: int, rounds: int, seconds: float) -> None:
    """Run the same load over a relay of one process and over one of `count` workers, and print what both cost."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = {"alone": directory / "alone", "workers": directory / "workers"}
        more = {"alone": (), "workers": ("--workers", str(count))}
        pids: dict[str, list[int]] = {}
        edges: dict[str, list[Edge]] = {}
        for name, place in places.items():
            place.mkdir()
            write_server_keys(place / "relay.keys", ServerKeys(Identity.generate(), None))
            target = stack.enter_context(started(name, _command(place, *more[name]), 0, place / "log"))
            pid = target.pid or 0
            below = _descendants(pid)
            workers = [child for child, command in below.items() if command.endswith("relay.worker")]
            # The private NATS server, and the shell that watches over it.
            pids[name] = [*workers, pid, *(child for child in below if child not in workers)]
            edges[name] = _edges(target, target, _SPREAD)
            stack.callback(_hang_up, edges[name])
        for size, window in ((256, 8), (256, 1)):
            costs: dict[str, list[list[float]]] = {name: [] for name in places}
            for _ in range(rounds):
                for name in places:
                    measured, spent = _load(edges[name], size, window, seconds, pids[name])
                    costs[name].append([each / measured.frames * 1e6 for each in spent])
            print(f"\n{size} B, {window} in flight, {_SPREAD} pairs; median of {rounds} rounds of {seconds:g} s")
            alone = statistics.median(each[0] for each in costs["alone"])
            *each, parent = [statistics.median(column) for column in zip(*costs["workers"], strict=True)][: count + 1]
            together = statistics.median(sum(spent[:count]) for spent in costs["workers"])
            bus = statistics.median(sum(spent[count + 1 :]) for spent in costs["workers"])
            print(f"  one process: {alone:.2f} µs of CPU a frame")
            print(
                f"  {count} workers: {together:.2f} µs together ({' + '.join(f'{cost:.2f}' for cost in each)}),",
                end=" ",
            )
            print(f"parent {parent:.2f} µs, NATS {bus:.2f} µs")
            print(f"  with a core for each worker: ×{alone / max(each):.2f} frames")


class _Held:
    """As much of a session as the claims of a node look at."""

    def __init__(self, client_id: bytes) -> None:
        self.id = client_id
        self.last_in = 0.0


async def _ids(count: int, url: str) -> None:
    loop = asyncio.get_running_loop()
    options = ClusterOptions((url,), bytes(range(32)))
    bus = NatsBus(options)
    await bus.connect()
    core = Core(loop, Identity.generate(), Limits())
    node = Backplane(core, options, bus)
    await find_others(node)
    other = NatsBus(options)
    await other.connect()
    sessions: list[Any] = [_Held(os.urandom(8)) for _ in range(count)]
    pid = os.getpid()
    before, begun, cpu = resident_kib(pid), time.perf_counter(), cpu_time().on_cpu
    for start in range(0, count, 1000):
        for session in sessions[start : start + 1000]:
            node.holdings.admitted(session)
        await asyncio.sleep(0)
    # An id is known when somebody else finds it.
    subject = node.seals.id_subject(sessions[-1].id)
    while True:
        answer = loop.create_future()
        other.request(subject, b"?", 0.2, lambda outcome, _, answer=answer: bool(answer.set_result(outcome)))  # type: ignore[misc]
        if (await answer).name != "NO_RESPONDERS":
            break
    took, used = time.perf_counter() - begun, cpu_time().on_cpu - cpu
    grown = resident_kib(pid) - before
    print(f"{count:,} ids: {took:.2f} s until NATS knows the last ({used:.2f} s of our CPU),", end=" ")
    print(f"{grown * 1024 / count:.0f} bytes each in this process")
    node.stop()
    await bus.close()
    await other.close()


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load")
    parser.add_argument("--ids", type=int, default=0, help="measure these many ids at a node, and nothing else")
    parser.add_argument("--workers", type=int, default=0, help="compare these many workers with one process")
    arguments = parser.parse_args()
    if arguments.workers:
        measure_workers(arguments.workers, arguments.rounds, arguments.seconds)
    elif arguments.ids:
        with nats_server() as (url, pid):
            before = resident_kib(pid)
            asyncio.run(_ids(arguments.ids, url))
            print(f"NATS: {(resident_kib(pid) - before) * 1024 / arguments.ids:.0f} bytes each")
    else:
        measure(arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
