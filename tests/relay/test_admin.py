"""The admin listener over real sockets of this machine, in front of a relay in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import wraps

import pytest

from keys.identity import Identity
from relay.admin import MAX_CONNECTIONS, Admin
from relay.core import Core
from relay.limits import Limits
from relay.ready import Condition

WAIT = 30.0
Test = Callable[..., Awaitable[None]]


def run(test: Test) -> Callable[..., None]:
    @wraps(test)
    def inner(*args: object, **kwargs: object) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), WAIT))

    return inner


@asynccontextmanager
async def admin(limits: Limits | None = None) -> AsyncIterator[tuple[Core, int, Admin]]:
    core = Core(asyncio.get_running_loop(), Identity.generate(), limits or Limits())
    listener = Admin(core)
    port = await listener.start("127.0.0.1", 0)
    try:
        yield core, port, listener
    finally:
        listener.close()


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


async def get(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    answer = await ask(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


@run
async def test_metrics() -> None:
    async with admin() as (core, port, _):
        core.counters.wakes = 3
        status, headers, body = await get(port, "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert headers["Cache-Control"] == "no-store"
        assert int(headers["Content-Length"]) == len(body)
        assert b"\nblindrelay_wakes_total 3.0\n" in body


@run
async def test_sessions() -> None:
    async with admin() as (_, port, _listener):
        status, headers, body = await get(port, "/sessions")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert json.loads(body)["sessions"] == 0
        assert (await get(port, "/sessions", "HEAD"))[2] == b""


@run
async def test_health_and_readiness() -> None:
    async with admin() as (core, port, _):
        assert (await get(port, "/healthz"))[2] == b"ok\n"
        status, _, body = await get(port, "/readyz")
        assert (status, body) == (503, b"started: the relay is starting\n")
        core.ready.met(Condition.STARTED)
        assert (await get(port, "/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/ws", 404),
        ("GET", "/info", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/sessions", 405),
        ("HEAD", "/metrics", 200),
        ("GET", "/metrics?x=y", 200),
    ],
)
@run
async def test_what_else_is_asked(method: str, path: str, status: int) -> None:
    async with admin() as (_, port, _listener):
        assert (await get(port, path, method))[0] == status


@pytest.mark.parametrize("request_", [b"nonsense\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /metrics HTTP/2\r\n\r\n"])
@run
async def test_what_is_no_request(request_: bytes) -> None:
    async with admin() as (_, port, _listener):
        assert (await ask(port, request_)).startswith(b"HTTP/1.1 400 ")


@run
async def test_a_request_that_is_too_long() -> None:
    async with admin(replace(Limits(), request_size=1000)) as (_, port, _listener):
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 1000)).startswith(b"HTTP/1.1 431 ")


@run
async def test_a_request_in_pieces_is_one_and_what_follows_it_is_not_read() -> None:
    async with admin() as (_, port, _listener):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (b"GET /heal", b"thz HTTP/1.1\r", b"\n\r", b"\nGET /metrics HTTP/1.1\r\n\r\n"):
            writer.write(piece)
            await asyncio.sleep(0)
        answer = await reader.read()
        writer.close()
        assert answer.count(b"HTTP/1.1 200") == 1
        assert answer.endswith(b"ok\n")


@run
async def test_whoever_asks_nothing_is_cut_off() -> None:
    async with admin(replace(Limits(), opening_deadline=0.05)) as (_, port, listener):
        assert await _ended(port, b"GET /metrics HTTP/1.1\r\n")
        assert not listener.connections


@run
async def test_more_connections_than_a_few_are_closed_and_room_is_made_by_leaving() -> None:
    async with admin() as (_, port, listener):
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        await until(lambda: len(listener.connections) == MAX_CONNECTIONS)
        assert await _ended(port, b"GET /healthz HTTP/1.1\r\n\r\n")
        for _, writer in opened:
            writer.close()
        await until(lambda: not listener.connections)
        assert (await get(port, "/healthz"))[0] == 200


@run
async def test_closing_cuts_what_is_open() -> None:
    async with admin() as (_, port, listener):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: bool(listener.connections))
        listener.close()
        try:
            assert await reader.read() == b""
        except ConnectionError:
            pass
        finally:
            writer.close()
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("127.0.0.1", port)


@run
async def test_an_address_that_is_taken_is_an_error() -> None:
    async with admin() as (core, port, _):
        with pytest.raises(OSError, match=r"."):
            await Admin(core).start("127.0.0.1", port)


async def until(done: Callable[[], bool]) -> None:
    """Let the loop turn until something is so: the whole test has a deadline."""
    while not done():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def _ended(port: int, request: bytes) -> bool:
    """Tell whether a connection ends without an answer."""
    try:
        return await ask(port, request) == b""
    except ConnectionError:
        return True
