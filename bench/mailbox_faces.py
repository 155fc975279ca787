"""The mailbox's program under load through its two ways in: deposits, and fetch + acknowledge, of 1 KiB, synced.

The mailbox has a core of its own; its clients, and the relay, have another, and what they cost is not the mailbox's:
reported are what came through, and the CPU of the mailbox's process for each. Requests are made and sealed before the
clock starts, but for the proofs of pick-ups over HTTP, which need what the mailbox answered.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from bench.machine import pin
from keys.contact import Contact
from keys.files import ServerKeys, read_server_keys, write_server_keys
from keys.identity import Identity
from keys.invite import RelayCard
from keys.pickup import CHALLENGE_SIZE, answer_challenge
from peers.client import ClientOptions, PeerPacket, RelayClient
from peers.mailbox.keyfile import mint, read_mailbox_identity
from wire import mailbox_http as framing
from wire.inner import Inner, parse_inner
from wire.mailbox_answers import Lease, parse_from_mailbox
from wire.mailbox_commands import Ack, Deposit, Fetch

_SIZE: Final = 1024
_LANES: Final = 32
_URL: Final = "http://mailbox.bench"
_STARTS: Final = 60.0
_UNBOUND: Final = ("depositor_items", "address_items", "asking", "price_most", "disk_reserve")
_RELAY_UNBOUND: Final = (
    "commands_per_second",
    "frames_per_second",
    "bytes_per_second",
    "introductions_per_second",
    "introductions_pair_per_second",
    "introductions_target_per_second",
    "handshakes_per_second",
)

Faces = dict[str, dict[str, float]]


@contextmanager
def _process(arguments: list[str], environment: dict[str, str], core: int, listens: str) -> Iterator[tuple[Any, str]]:
    """Run a program on a core; yields it and what it says it listens on."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={**os.environ, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            pin(process.pid, core)
            end = time.monotonic() + _STARTS
            while True:
                out.seek(0)
                text = out.read()
                if (found := re.search(listens, text)) is not None:
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{arguments[0]} does not start:\n{text}")
                time.sleep(0.02)
            yield psutil.Process(process.pid), found[1]
        finally:
            process.terminate()
            process.wait(30)


def _deposit(number: int, to: Identity) -> Deposit:
    return Deposit(number, to.public.x_pub, 0, os.urandom(16), os.urandom(_SIZE))


class _HttpLane:
    """One connection that is kept; no library, for that would be measured."""

    def __init__(self, port: int, owner: Identity, box: Identity) -> None:
        self._port = port
        self._owner = owner
        self._box = box.public
        self._ready: list[bytes] = []

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def prepare(self, count: int) -> None:
        self._ready = [framing.encode_request(_deposit(0, self._owner)) for _ in range(count)]

    async def _post(self, path: str, body: bytes) -> bytes:
        self._writer.write(b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head)
        if found is None or not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"refused: {head!r}")
        return await self._reader.readexactly(int(found[1]))

    async def deposit(self) -> int:
        if not self._ready:
            return 0
        await self._post("/drop", self._ready.pop())
        return 1

    async def _proven(self, request: Fetch | Ack) -> Any:
        challenge = await self._post(framing.CHALLENGE_PATH, self._owner.public.x_pub)
        if len(challenge) != CHALLENGE_SIZE:
            raise RuntimeError("no challenge")
        arguments = framing.arguments_of(request)
        proof = answer_challenge(self._owner, self._box, _URL, request.command, arguments, challenge)
        body = framing.encode_request(request, self._owner.public.x_pub, proof)
        return framing.parse_answer(await self._post(framing.path_of(request), body))

    async def pick_up(self, limit: int) -> int:
        lease = await self._proven(Fetch(0, limit))
        if not lease.items:
            return 0
        return int((await self._proven(Ack(0, tuple(item.number for item in lease.items)))).count)


class _RelayLane:
    """One session at the relay, with one request under way at a time."""

    def __init__(self, relay: RelayClient, owner: Identity, box: Identity) -> None:
        self._relay = relay
        self._owner = owner
        self._box = Contact(owner, box.public)
        self._ready: list[bytes] = []

    async def open(self) -> None:
        await self._relay.connected(_STARTS)
        await self._relay.introduce(self._box.id, "")

    def prepare(self, count: int) -> None:
        self._ready = [self._sealed(_deposit(number, self._owner)) for number in range(count)]

    def _sealed(self, request: Deposit | Fetch | Ack) -> bytes:
        return self._box.seal(Inner(1, request.command, request.encode()).encode())

    async def _asks(self, packet: bytes) -> bytes:
        await self._relay.send(self._box.id, packet)
        async for event in self._relay:
            if isinstance(event, PeerPacket):
                return event.packet
        raise RuntimeError("the relay ended")

    def _read(self, packet: bytes) -> Any:
        inner = parse_inner(self._box.open(packet))
        return parse_from_mailbox(inner.command, inner.body)

    async def deposit(self) -> int:
        if not self._ready:
            return 0
        await self._asks(self._ready.pop())
        return 1

    async def pick_up(self, limit: int) -> int:
        lease = self._read(await self._asks(self._sealed(Fetch(1, limit))))
        if not isinstance(lease, Lease) or not lease.items:
            return 0
        acked = self._read(await self._asks(self._sealed(Ack(2, tuple(item.number for item in lease.items)))))
        return int(acked.count)


Lane = _HttpLane | _RelayLane


async def _measure(lanes: list[Lane], box: psutil.Process, work: Callable[[Lane], Awaitable[int]]) -> dict[str, float]:
    """Do it over and over in all lanes until nothing is left to do."""
    cpu, ours, begun = sum(box.cpu_times()[:2]), time.process_time(), time.perf_counter()

    async def one(lane: Lane) -> int:
        done = 0
        while count := await work(lane):
            done += count
        return done

    done = sum(await asyncio.gather(*(one(lane) for lane in lanes)))
    seconds = time.perf_counter() - begun
    cpu = sum(box.cpu_times()[:2]) - cpu
    return {
        "per second": done / seconds,
        "mailbox CPU, µs each": cpu / done * 1e6,
        "mailbox busy": cpu / seconds,
        "clients busy": (time.process_time() - ours) / seconds,
    }


async def _face(lanes: list[Lane], box: psutil.Process, each: int) -> Faces:
    for lane in lanes:
        await lane.open()
        lane.prepare(each)
    found = {"deposit": await _measure(lanes, box, lambda lane: lane.deposit())}
    found["fetch 16 + ack"] = await _measure(lanes, box, lambda lane: lane.pick_up(16))
    for lane in lanes:
        lane.prepare(each // 4)
    await _measure(lanes, box, lambda lane: lane.deposit())
    found["fetch 1 + ack"] = await _measure(lanes, box, lambda lane: lane.pick_up(1))
    return found


async def _run(directory: Path, items: int, mailbox_core: int, other_core: int) -> dict[str, Faces]:
    keys = directory / "relay" / "relay.keys"
    write_server_keys(keys, ServerKeys(Identity.generate(), None))
    box_directory = directory / "box"
    mint(box_directory)
    identity = read_mailbox_identity(box_directory)
    relay_arguments = ["relay", "--port", "0", "--admin", "off"]
    for name in _RELAY_UNBOUND:
        relay_arguments += [f"--limits.{name.replace('_', '-')}", "0"]
    each = items // _LANES
    async with AsyncExitStack() as stack:
        _, relay_url = stack.enter_context(
            _process(relay_arguments, {"RELAY_DATA_DIR": str(keys.parent)}, other_core, r"listens on (ws://\S+)")
        )
        card = RelayCard(read_server_keys(keys).identity.public, relay_url)
        environment = {
            "BLINDRELAY_MAILBOX_DATA_DIR": str(box_directory),
            "BLINDRELAY_MAILBOX_ADMIN": "off",
            "BLINDRELAY_MAILBOX_RELAY": card.text,
            "BLINDRELAY_MAILBOX_HTTP": "127.0.0.1:0",
            "BLINDRELAY_MAILBOX_HTTP_URL": _URL,
            "BLINDRELAY_MAILBOX_LIMITS_RECIPIENT_ITEMS": str(items),
            **{f"BLINDRELAY_MAILBOX_LIMITS_{name.upper()}": "0" for name in _UNBOUND},
        }
        box, port = stack.enter_context(
            _process(
                ["peers.mailbox", "run"],
                environment,
                mailbox_core,
                r'(?s)"http": "127\.0\.0\.1:(\d+)".*"event": "connected"',
            )
        )
        pin(0, other_core)
        http: list[Lane] = [_HttpLane(int(port), Identity.generate(), identity) for _ in range(_LANES)]
        by_http = await _face(http, box, each)
        owners = [Identity.generate() for _ in range(_LANES)]
        sessions = [await stack.enter_async_context(RelayClient(who, card, ClientOptions())) for who in owners]
        lanes: list[Lane] = [_RelayLane(relay, who, identity) for relay, who in zip(sessions, owners, strict=True)]
        return {"http": by_http, "relay": await _face(lanes, box, each)}


def measure(directory: Path, items: int) -> dict[str, Faces]:
    """Return the figures of both ways, with `items` deposits each."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        with asyncio.Runner() as runner:
            return runner.run(_run(directory, items, cores[0], cores[-1]))
    finally:
        os.sched_setaffinity(0, cores)


def show(found: dict[str, Faces]) -> None:
    """Print the figures."""
    for face, work in found.items():
        print(f"\nthe program, by {face}")
        for name, figures in work.items():
            rate, cpu = figures["per second"], figures["mailbox CPU, µs each"]
            shares = f"mailbox {figures['mailbox busy']:4.0%} busy, clients {figures['clients busy']:4.0%}"
            print(f"  {name:20} {rate:10,.0f} /s   {cpu:6.0f} µs of CPU each ({1e6 / cpu:,.0f} /s and core)   {shares}")
