"""Requests for pages: heads, methods, and what is none."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.replies import Reply
from relay.requests import Request, answer, parse

PAGES = {"/page": lambda request: Reply(HTTPStatus.OK, f"you asked {request.query}")}
MISSING = Reply(HTTPStatus.NOT_FOUND, "nothing")


def test_a_head_is_taken_apart() -> None:
    request = parse(
        b"GET /page?a=1&b=? HTTP/1.1\r\nHost: x\r\nAccept:\t text/plain \r\nX-A: 1\r\nx-a: 2\r\nEmpty:\r\n\r\n"
    )
    assert request == Request(
        "GET", "/page", "a=1&b=?", {"host": "x", "accept": "text/plain", "x-a": "1, 2", "empty": ""}
    )


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.0\r\n\r\n", b"OPTIONS /a HTTP/1.1\r\n\r\n", b"HEAD / HTTP/1.1\r\n\r\n"]
)
def test_balancers_that_speak_http_1_0_and_other_methods_are_understood(head: bytes) -> None:
    assert parse(head) is not None


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET * HTTP/1.1\r\n\r\n",
        b"GET /\x80 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: x\ny\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n",
    ],
)
def test_what_is_no_request(head: bytes) -> None:
    assert parse(head) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_none(data: bytes) -> None:
    request = parse(data + b"\r\n\r\n")
    if request is not None:
        assert request.path.startswith("/")
        assert all("\r" not in value and "\n" not in value for value in request.headers.values())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/page", 200),
        ("HEAD", "/page", 200),
        ("POST", "/page", 405),
        ("OPTIONS", "/page", 405),
        ("GET", "/pages", 404),
        ("DELETE", "/", 404),
    ],
)
def test_what_is_answered(method: str, path: str, status: int) -> None:
    reply = answer(Request(method, path, "q", {}), PAGES, MISSING)
    assert reply.status == status
    assert (reply.headers.get("Allow") == "GET, HEAD") is (status == 405)
    assert status != 200 or reply.body == "you asked q"


def test_head_tells_the_length_of_the_body_and_sends_none() -> None:
    reply = Reply(HTTPStatus.OK, "é", headers={"X": "y"})
    full, head = reply.encode(), reply.encode(with_body=False)
    assert full.endswith(b"\r\n\r\n\xc3\xa9")
    assert head.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 2\r\n" in head
    assert [line for line in head.splitlines() if not line.startswith(b"Date")] == [
        line for line in full.splitlines()[:-1] if not line.startswith(b"Date")
    ]
