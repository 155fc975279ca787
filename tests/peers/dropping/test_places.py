"""Where an address leads that somebody else has chosen."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from peers.dropping.errors import NotAMailbox, Unreachable
from peers.dropping.places import is_near
from peers.dropping.web import FarResolver, Web
from tests.support.clients import run_async


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost.", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::]",  # noqa: S104
     "[::ffff:127.0.0.1]", "169.254.169.254", "169.254.169.254.", "169.16689662", "0xa9fea9fe", "[fe80::1]",
     "[::ffff:a9fe:a9fe]", "224.0.0.1", "[ff02::1]"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "wss"])
def test_near(scheme: str, host: str) -> None:
    assert is_near(f"{scheme}://{host}:8090/x")


@pytest.mark.parametrize(
    "host", ["mailbox.example", "192.0.2.1", "192.168.1.5", "[2001:db8::1]", "ä.example", "1.2.3.4.5"]
)
def test_not_near(host: str) -> None:
    assert not is_near(f"https://{host}/x")


@run_async
async def test_a_name_that_leads_here_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns a name may have it lead anywhere."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        real = asyncio.get_running_loop().getaddrinfo

        async def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
            return await real("127.0.0.1" if host == "trap.example" else host, *rest, **more)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        async with Web(f"http://trap.example:{port}", 10.0) as web:
            with pytest.raises((Unreachable, NotAMailbox)):
                await web.get("/info", 100)
        assert asked
        asked.clear()
        async with Web(f"http://trap.example:{port}", 10.0, far=True) as web:
            with pytest.raises(Unreachable):
                await web.get("/info", 100)
        assert not asked
        with pytest.raises(OSError, match="no other machine"):
            await FarResolver().resolve("trap.example", port, socket.AF_INET)
