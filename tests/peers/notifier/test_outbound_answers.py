"""What push servers answer, and what they do instead: nothing of it takes long, or much memory."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from peers.notifier import outbound as outbound_module
from peers.notifier.outbound import BODY_MAX, Timeouts, Unreachable
from tests.support.clients import run_async
from tests.support.push_services import PushService, allow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def speaking(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> AsyncIterator[str]:
    """A server that says what `handle` writes, whatever HTTP thinks of it. Gives its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            result = handle(reader, writer)
            if asyncio.iscoroutine(result):
                await result
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class TestTheAnswer:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @run_async
    async def test_redirects_are_not_followed(self, status: int) -> None:
        async with (
            PushService().running() as inner,
            PushService().answer(status, Location=f"{inner.url}/x").running() as outer,
        ):
            outbound = allow(outer.url, inner.url)
            assert (await outbound.post(outbound.check(outer.url), {}, b"")).status == status
            await outbound.close()
            assert (outer.count, inner.count) == (1, 0)

    @run_async
    async def test_cookies_are_not_kept(self) -> None:
        async with PushService().answer(201, Set_Cookie="who=you; Path=/").running() as service:
            outbound = allow(service.url)
            for _ in range(2):
                await outbound.post(outbound.check(service.url), {}, b"")
                assert "Cookie" not in (await service.next()).headers
            await outbound.close()

    @run_async
    async def test_bodies_are_bounded(self) -> None:
        async with PushService().answer(400, b"x" * (4 * BODY_MAX)).running() as service:
            outbound = allow(service.url)
            reply = await outbound.post(outbound.check(service.url), {}, b"")
            await outbound.close()
        assert (reply.status, len(reply.body)) == (400, BODY_MAX)

    @run_async
    async def test_an_endless_body_ends(self) -> None:
        async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()

        async with speaking(flood) as url:
            outbound = allow(url)
            reply = await outbound.post(outbound.check(url), {}, b"")
            await outbound.close()
        assert (reply.status, len(reply.body)) == (201, BODY_MAX)

    @run_async
    async def test_compressed_bodies_are_left_as_they_are(self) -> None:
        bomb = gzip.compress(bytes(10_000_000))
        async with PushService().answer(400, bomb, Content_Encoding="gzip").running() as service:
            outbound = allow(service.url)
            reply = await outbound.post(outbound.check(service.url), {}, b"")
            await outbound.close()
        assert reply.body == bomb[:BODY_MAX]

    @run_async
    async def test_a_body_that_dribbles_does_not_take_the_status_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbound_module, "_BODY_WAIT", 0.1)

        async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 1000\r\n\r\nabc")
            await reader.read()

        async with speaking(dribble) as url:
            outbound = allow(url)
            reply = await outbound.post(outbound.check(url), {}, b"")
            await outbound.close()
        assert (reply.status, reply.body) == (410, b"abc")

    @run_async
    async def test_silence_ends(self) -> None:
        async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        async with speaking(say_nothing) as url:
            outbound = allow(url, timeouts=Timeouts(answer=0.1))
            with pytest.raises(Unreachable, match="no answer in time"):
                await outbound.post(outbound.check(url), {}, b"")
            await outbound.close()

    @run_async
    async def test_headers_that_dribble_end(self) -> None:
        async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 201 Created\r\n")
            while True:
                writer.write(b"X: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)  # well within `answer`, so that only the total ends it

        async with speaking(dribble) as url:
            outbound = allow(url, timeouts=Timeouts(total=0.3))
            with pytest.raises(Unreachable):
                await outbound.post(outbound.check(url), {}, b"")
            await outbound.close()

    @pytest.mark.parametrize(
        "said",
        [
            b"", b"\x00\xff\xfe garbage", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 201 Created\r\nX: " + b"y" * 20_000,
            b"HTTP/1.1 201 Created\r\nContent-Length: -5\r\n\r\n",
            b"HTTP/1.1 201 Created\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        ],
    )  # fmt: skip
    @run_async
    async def test_garbage_is_no_answer(self, said: bytes) -> None:
        async with speaking(lambda _, writer: writer.write(said)) as url:
            outbound = allow(url)
            with pytest.raises(Unreachable) as caught:
                await outbound.post(outbound.check(f"{url}/secret"), {}, b"")
            await outbound.close()
        for word in ("secret", "127.0.0.1", "SSH", "abc"):
            assert word not in str(caught.value), "neither the endpoint nor what the other side said"

    @run_async
    async def test_a_closed_port_is_unreachable(self) -> None:
        with socket.socket() as taken:  # bound and not listening: refused, and nobody else gets the port
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            outbound = allow(url)
            with pytest.raises(Unreachable, match=r"^no connection$"):
                await outbound.post(outbound.check(url), {}, b"")
            await outbound.close()

    @run_async
    async def test_connections_are_used_again(self) -> None:
        peers: set[object] = set()

        async def note(request: web.Request) -> web.Response:
            assert request.transport is not None
            peers.add(request.transport.get_extra_info("peername"))
            return web.Response(status=201)

        async with PushService().running() as service:
            service.answers = [note]
            outbound = allow(service.url)
            for _ in range(5):
                await outbound.post(outbound.check(service.url), {}, b"")
            await outbound.close()
        assert len(peers) == 1

    @run_async
    async def test_closing_twice_and_using_it_again(self) -> None:
        async with PushService().running() as service:
            outbound = allow(service.url)
            await outbound.close()
            assert (await outbound.post(outbound.check(service.url), {}, b"")).status == 201
            await outbound.close()
            await outbound.close()


class TestInterimAnswers:
    @run_async
    async def test_few_are_passed_over(self) -> None:
        async def hint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 8)
                writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")  # the next one, by the same connection

        async with speaking(hint) as url:
            outbound = allow(url)
            for _ in range(2):
                assert (await outbound.post(outbound.check(url), {}, b"")).status == 201
            await outbound.close()

    @run_async
    async def test_endless_ones_end_the_attempt(self) -> None:
        """Without a bound the loop would parse them until the time is out, and push for nobody."""
        ended = asyncio.Event()

        async def hint(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
                    await writer.drain()
                    await asyncio.sleep(0)
            finally:
                ended.set()

        async with speaking(hint) as url:
            outbound = allow(url, timeouts=Timeouts(answer=3600, total=3600))
            with pytest.raises(Unreachable, match="the answer is not HTTP"):
                await outbound.post(outbound.check(url), {}, b"")
            await ended.wait()  # the connection was closed
            await outbound.close()
