"""The opening handshake: the quick reading of ordinary requests answers as `websockets` does and takes nothing else."""

import re
from http import HTTPStatus
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.opening import Answer, Opening, Welcome, open_any, open_ordinary
from relay.replies import Reply
from tests.relay.harness import KEY, upgrade

PATHS: Final = frozenset(("/ws", "/api0"))

CHROMIUM: Final = upgrade(
    "/ws?v=2",
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0",
    "Origin: https://relay.example",
    "Accept-Encoding: gzip, deflate, br",
    "Accept-Language: en-US,en;q=0.9",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)
FIREFOX: Final = upgrade("/ws").replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade")


class Door:
    """Lets everybody in, or answers with a reply, and remembers who asked."""

    def __init__(self, verdict: Welcome | Reply | None = None) -> None:
        self.verdict = Welcome() if verdict is None else verdict
        self.asked: list[Opening] = []

    def __call__(self, opening: Opening) -> Welcome | Reply:
        self.asked.append(opening)
        return self.verdict


def quick(request: bytes, door: Door | None = None) -> Answer | None:
    return open_ordinary(request, PATHS, door or Door())


def long(request: bytes, door: Door | None = None) -> Answer:
    return open_any(request, PATHS, door or Door(), lambda _: Reply(HTTPStatus.NOT_FOUND, "no\n"))


def accept(answer: Answer) -> str | None:
    found = re.search(r"\r\nSec-WebSocket-Accept: (\S+)\r\n", answer.data.decode())
    return found and found[1]


def test_what_every_client_sends_is_ordinary() -> None:
    for request in (upgrade(), CHROMIUM, FIREFOX, upgrade("/api0"), upgrade("/ws", "X-Forwarded-For: 203.0.113.9")):
        answer = quick(request)
        assert answer is not None
        assert answer.upgraded
        assert accept(answer) == accept(long(request)) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "request_",
    [
        upgrade("/"),
        upgrade("/healthz"),
        upgrade("/ws/"),
        upgrade("/ws", "Upgrade: websocket"),
        upgrade("/ws", "X: y", "x: z"),
        upgrade("/ws", "Content-Length: 0"),
        upgrade("/ws", "Transfer-Encoding: chunked"),
        upgrade("/ws", "X: \xff"),
        upgrade("/ws", "X: \x00"),
        upgrade("/ws", "no colon"),
        upgrade("/ws", " folded: line"),
        upgrade("/ws", "X : y"),
        upgrade("/ws", *(f"X-{i}: y" for i in range(64))),
        upgrade("/ws", "X: " + "y" * 4096),
        upgrade().replace(b"GET", b"POST"),
        upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"),
        upgrade().replace(b"GET /ws", b"GET ws"),
        upgrade().replace(b"GET /ws", b"GET  /ws"),
        upgrade().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        upgrade().replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        upgrade().replace(b"Connection: Upgrade", b"Connection: close"),
        upgrade().replace(b"Version: 13", b"Version: 8"),
        upgrade().replace(KEY.encode(), b"short"),
        upgrade().replace(KEY.encode(), KEY[:-3].encode() + b"R=="),
        upgrade().replace(KEY.encode(), KEY.encode() + b"AAAA"),
        upgrade().replace(b"\r\nUpgrade", b"\nUpgrade"),
        b"\r\n" + upgrade(),
        upgrade()[:-2] + b"\r\n\r\n",
        b"",
    ],
)
def test_anything_else_goes_the_long_way(request_: bytes) -> None:
    door = Door()
    assert quick(request_, door) is None
    assert not door.asked


LINES: Final = (
    "Host: relay.example",
    "host:relay.example",
    "Upgrade: websocket",
    "upgrade:WebSocket \t",
    "Upgrade: websocket, websocket",
    "Connection: Upgrade",
    "Connection: keep-alive, Upgrade",
    "Connection: close",
    f"Sec-WebSocket-Key: {KEY}",
    f"sec-websocket-key:\t{KEY} ",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAB==",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Version: 013",
    "Sec-WebSocket-Protocol: chat, token.x",
    "X-Forwarded-For: 1.1.1.1, 203.0.113.9",
    "X-Forwarded-For: 2.2.2.2",
    "Content-Length: 0",
    "Empty:",
    "Tab\tbed: x",
    "Cookie: a=\x7f",
)


@given(
    st.sampled_from(("/ws", "/ws?token=a%20b", "/api0", "/ws#x", "/", "/\x01ws")),
    st.lists(st.sampled_from(LINES), max_size=12) | st.permutations(upgrade().decode().split("\r\n")[1:-2]),
    st.sampled_from(("GET {} HTTP/1.1", "GET {} HTTP/1.0", "HEAD {} HTTP/1.1", "get {} HTTP/1.1")),
)
@settings(deadline=None, max_examples=400)
def test_both_ways_answer_alike(target: str, lines: list[str], first: str) -> None:
    request = "\r\n".join((first.format(target), *lines, "", "")).encode()
    quick_door, long_door = Door(), Door()
    answer = quick(request, quick_door)
    if answer is None:
        return
    expected = long(request, long_door)
    assert (answer.upgraded, accept(answer)) == (expected.upgraded, accept(expected))
    assert [each._replace(headers=dict(each.headers)) for each in quick_door.asked] == long_door.asked


@pytest.mark.parametrize("request_", [upgrade("/ws"), upgrade("/ws", "A: b", "A: c")], ids=["quick", "long"])
def test_whoever_is_refused_gets_the_reply(request_: bytes) -> None:
    full = Reply(HTTPStatus.SERVICE_UNAVAILABLE, "full\n", headers={"Retry-After": "7"})
    answer = quick(request_, Door(full)) or long(request_, Door(full))
    assert not answer.upgraded
    assert answer.data.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 7\r\n" in answer.data
    assert answer.data.endswith(b"\r\n\r\nfull\n")


@pytest.mark.parametrize("request_", [upgrade("/ws"), upgrade("/ws", "A: b", "A: c")], ids=["quick", "long"])
def test_a_subprotocol_that_the_door_takes_is_agreed_to(request_: bytes) -> None:
    door = Door(Welcome("token"))
    answer = quick(request_, door) or long(request_, door)
    assert answer.upgraded
    assert b"\r\nSec-WebSocket-Protocol: token\r\n" in answer.data


def test_the_door_sees_path_query_and_headers() -> None:
    lines = ("X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2, 203.0.113.9")
    door = Door()
    assert long(upgrade("/ws?token=x&y", *lines), door).upgraded
    (opening,) = door.asked
    assert (opening.path, opening.query) == ("/ws", "token=x&y")
    assert opening.headers["x-forwarded-for"] == "1.1.1.1, 2.2.2.2, 203.0.113.9"
