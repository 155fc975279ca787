"""The HTTP side: upgrades, pages, and requests that are none."""

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.invite import RelayCard
from relay import __version__, pages
from relay.about import About
from relay.limits import Limits
from relay.opening import Answer, Welcome
from relay.ready import Condition
from tests.relay.harness import KEY, Lab, upgrade
from tests.wire.pair import SERVER
from wire.limits import MAX_FRAME

ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What RFC 6455 §1.3 answers to the key of our requests."""


def answer(request: bytes, lab: Lab | None = None) -> Answer:
    return (lab or Lab()).core.pages.answer(request, lambda _: Welcome())


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


def body(reply: Answer) -> bytes:
    return reply.data.partition(b"\r\n\r\n")[2]


def headers(reply: Answer) -> dict[str, str]:
    head = reply.data.partition(b"\r\n\r\n")[0].decode()
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])


PAGES: Final = ["/", "/info", "/status", "/healthz", "/readyz"]


def test_readiness() -> None:
    lab = Lab()
    assert body(answer(get("/readyz"), lab)) == b"started: the relay is starting\n"
    lab.core.ready.met(Condition.STARTED)
    assert status(answer(get("/readyz"), lab)) == b"HTTP/1.1 200 OK"
    lab.core.ready.lost(Condition.NOT_DRAINING, "the relay was told to stop")
    reply = answer(get("/readyz"), lab)
    assert status(reply) == b"HTTP/1.1 503 Service Unavailable"
    assert body(reply) == b"not_draining: the relay was told to stop\n"
    assert status(answer(get("/healthz"), lab)) == b"HTTP/1.1 200 OK"


def test_status_has_the_names_that_telefon_has() -> None:
    lab = Lab()
    lab.core.ready.met(Condition.STARTED)
    lab.connect(1, 2)
    lab.peer(3)
    lab.advance(61.5)
    told = json.loads(body(answer(get("/status"), lab)))
    assert list(told) == ["started_at", "uptime_sec", "connections", "version", "status"]
    started = datetime.fromisoformat(told["started_at"])
    assert abs((datetime.now(UTC) - started).total_seconds()) < 60
    assert told["uptime_sec"] == 61
    assert told["connections"] == 2
    assert told["version"] == __version__
    assert told["status"] == "ok"
    lab.core.ready.lost(Condition.NOT_DRAINING, "because")
    assert json.loads(body(answer(get("/status"), lab)))["status"] == "not ready"


def test_info_lets_a_client_pin_the_relay() -> None:
    lab = Lab()
    lab.core.listens_at("wss://relay.example/ws", is_set=True)
    reply = answer(get("/info"), lab)
    assert headers(reply)["Access-Control-Allow-Origin"] == "*"
    told = json.loads(body(reply))
    card = RelayCard.parse(told["relay_card"])
    assert (card.url, card.public) == ("wss://relay.example/ws", SERVER.public)
    assert told["x25519_public"] == SERVER.public.x_pub.hex()
    assert told["ed25519_public"] == SERVER.public.ed_pub.hex()
    assert (told["name"], told["version"], told["protocol_versions"]) == ("blindrelay", __version__, [2])
    assert [told[name] for name in ("operator", "contact", "notice")] == [None, None, None]
    assert told["push"] == {"offered": False, "kinds": None, "vapid_public_key": None}
    assert told["mailbox"] == {"offered": False}


def test_info_tells_what_is_in_force() -> None:
    limits = Limits(subscriptions=7, frames_per_second=0)
    lab = Lab(limits, notifier=SERVER)
    lab.core.about = About("n", "o", "c", "é", "https://docs.example", ("webpush", "fcm"), "B" * 87)
    told = json.loads(body(answer(get("/info"), lab)))
    assert (told["name"], told["operator"], told["contact"], told["notice"]) == ("n", "o", "c", "é")
    assert told["push"] == {"offered": True, "kinds": ["webpush", "fcm"], "vapid_public_key": "B" * 87}
    for name, value in told["limits"].items():
        assert value == getattr(limits, name, {"max_frame": MAX_FRAME}.get(name, value))
    assert (told["limits"]["subscriptions"], told["limits"]["frames_per_second"]) == (7, 0)
    assert told["limits"]["max_frame"] == MAX_FRAME
    # All that bounds how often a client may ask for something.
    asking = ("commands", "introductions", "wakes", "registrations")
    rates = {field.name for field in fields(Limits) if field.name.startswith(asking)}
    assert rates <= set(told["limits"])
    assert len(rates) >= 16


def test_a_relay_that_is_being_closed_down_says_so_first() -> None:
    lab = Lab()
    lab.core.about = About(notice="Back on Monday.")
    assert json.loads(body(answer(get("/info"), lab)))["notice"] == "Back on Monday."
    lab.core.entry.decommission("We close in May.")
    assert json.loads(body(answer(get("/info"), lab)))["notice"] == "We close in May. Back on Monday."
    assert b"We close in May. Back on Monday." in body(answer(get("/"), lab))


def test_pages_are_made_anew_when_what_they_say_changed_and_only_then() -> None:
    lab = Lab()
    for path in ("/", "/info"):
        lab.core.about = About("First")
        first = body(answer(get(path), lab))
        assert b"First" in first
        assert body(answer(get(path), lab)) == first
        lab.core.about = About("Second")
        assert b"Second" in body(answer(get(path), lab))
    lab.core.limits = Limits(subscriptions=9)
    assert json.loads(body(answer(get("/info"), lab)))["limits"]["subscriptions"] == 9


def test_what_is_true_now_is_not_kept_and_the_rest_not_for_long() -> None:
    for path in PAGES:
        caching = headers(answer(get(path)))["Cache-Control"]
        assert caching == ("public, max-age=300" if path in ("/", "/info") else "no-store")


def test_the_page_for_people_has_a_policy() -> None:
    reply = answer(get("/"))
    assert headers(reply)["Content-Type"] == "text/html; charset=utf-8"
    assert headers(reply)["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert b"<h1>blindrelay</h1>" in body(reply)


@pytest.mark.parametrize("path", PAGES)
def test_head_is_get_without_the_body(path: str) -> None:
    lab = Lab()
    full, head = (answer(get(path).replace(b"GET", method), lab) for method in (b"GET", b"HEAD"))
    assert body(head) == b""
    assert status(head) == status(full)
    assert headers(head)["Content-Length"] == str(len(body(full)))


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"BREW"])
def test_other_methods_are_refused_with_those_that_there_are(method: bytes) -> None:
    for path in PAGES:
        reply = answer(get(path).replace(b"GET", method))
        assert status(reply) == b"HTTP/1.1 405 Method Not Allowed"
        assert headers(reply)["Allow"] == "GET, HEAD"
    for path in ("/ws", "/api0"):
        reply = answer(upgrade(path).replace(b"GET", method, 1))
        assert status(reply) == b"HTTP/1.1 405 Method Not Allowed"
        assert headers(reply)["Allow"] == "GET"
    assert status(answer(get("/nowhere").replace(b"GET", method))) == b"HTTP/1.1 404 Not Found"


def test_balancers_that_speak_http_1_0_get_pages() -> None:
    assert status(answer(get("/healthz").replace(b"HTTP/1.1", b"HTTP/1.0"))) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("path", ["/favicon.ico", "/../etc/passwd", "/metrics"])
def test_everything_else_is_not_found(path: str) -> None:
    reply = answer(get(path))
    assert status(reply) == b"HTTP/1.1 404 Not Found"
    assert b"/ws" in reply.data
    assert path.encode() not in reply.data


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
