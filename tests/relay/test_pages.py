"""The HTTP side: upgrades, pages, and requests that are none."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import pages
from relay.opening import Answer, Welcome
from tests.relay.harness import KEY, upgrade

ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What RFC 6455 §1.3 answers to the key of our requests."""


def answer(request: bytes) -> Answer:
    return pages.answer(request, lambda _: Welcome())


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: relay.example", *headers, "", "")).encode()


def status(reply: Answer) -> bytes:
    return reply.data.partition(b"\r\n")[0]


# --- Upgrades --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws", "/api0", "/ws?", "/ws?v=2&x=/healthz", "/api0?token=%2F"])
def test_an_upgrade(path: str) -> None:
    reply = answer(upgrade(path))
    assert reply.upgraded
    assert status(reply) == b"HTTP/1.1 101 Switching Protocols"
    assert b"\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n" in reply.data
    assert reply.data.endswith(b"\r\n\r\n")


def test_no_extension_and_no_protocol_is_agreed_to() -> None:
    reply = answer(
        upgrade("/ws", "Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: chat, binary")
    )
    assert reply.upgraded
    assert b"Extensions" not in reply.data
    assert b"Protocol:" not in reply.data


@pytest.mark.parametrize("path", ["/", "/ws/", "/WS", "/ws2", "/api0/ws", "//ws", "/healthz"])
def test_no_upgrade_elsewhere(path: str) -> None:
    assert not answer(upgrade(path)).upgraded


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("Upgrade: websocket", "Upgrade: h2c"), b"426"),
        (("Connection: Upgrade", "Connection: close"), b"426"),
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), b"400"),
        ((KEY, "short"), b"400"),
        ((f"Sec-WebSocket-Key: {KEY}\r\n", ""), b"400"),
    ],
)
def test_an_upgrade_that_is_wrong(change: tuple[str, str], code: bytes) -> None:
    old, new = (each.encode() for each in change)
    reply = answer(upgrade().replace(old, new))
    assert not reply.upgraded
    assert status(reply).split()[1] == code


# --- Pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/healthz?x=1"])
def test_the_health_page(path: str) -> None:
    reply = answer(get(path))
    assert not reply.upgraded
    assert status(reply) == b"HTTP/1.1 200 OK"
    assert reply.data.endswith(b"\r\n\r\nok\n")
    assert b"\r\nConnection: close\r\n" in reply.data


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/../etc/passwd", "/metrics"])
def test_everything_else_is_not_found(path: str) -> None:
    reply = answer(get(path))
    assert status(reply) == b"HTTP/1.1 404 Not Found"
    assert b"/ws" in reply.data
    assert path == "/" or path.encode() not in reply.data


@pytest.mark.parametrize("path", ["/ws", "/api0"])
def test_a_browser_that_just_looks_is_told_to_upgrade(path: str) -> None:
    assert status(answer(get(path))).split()[1] == b"426"


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /ws HTTP/2\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ws HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET /ws HTTP/1.1\r\nX: " + b"y" * 10_000 + b"\r\n\r\n",
        get("/ws", "Content-Length: 5"),
        get("/ws", "Transfer-Encoding: chunked"),
        get("/ws").replace(b"GET", b"POST"),
    ],
)
def test_a_request_that_is_none_is_answered_and_refused(request_: bytes) -> None:
    reply = answer(request_)
    assert not reply.upgraded
    assert status(reply).startswith(b"HTTP/1.1 4") or status(reply).startswith(b"HTTP/1.1 505")


@given(st.binary(max_size=200).filter(lambda data: b"\r\n\r\n" not in data))
@settings(deadline=None)
def test_any_bytes_get_an_answer(data: bytes) -> None:
    reply = answer(data + b"\r\n\r\n")
    assert status(reply).startswith(b"HTTP/1.1 ")
    assert not reply.upgraded


def test_a_request_beyond_the_limit() -> None:
    assert pages.TOO_LARGE.encode().startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
