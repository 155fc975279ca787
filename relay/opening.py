"""The opening handshake of a WebSocket (RFC 6455 §4.2): the request's head in, the answer out.

Nearly every client sends the same few well-formed header lines. Those are read here, by one regular expression and
only when nothing about them is in doubt; any other request goes to `websockets`' sans-I/O `ServerProtocol`, which
costs ten times as much and knows every corner. Tests hold the two to the same answers. Nothing of either is kept for
the life of the connection.
"""

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from relay.replies import Reply
from relay.requests import joined
from relay.websocket import silent


class Opening(NamedTuple):
    """What a request asks for. Nothing in it is checked but its form: all of it is the client's claim."""

    path: str
    query: str
    headers: Mapping[str, str]
    """By lower-case name; the values of a repeated one are joined by ", " (RFC 9110 §5.3)."""


class Welcome(NamedTuple):
    """The client is let in, to speak this subprotocol if it asked for it."""

    subprotocol: str | None = None


Admit = Callable[[Opening], Welcome | Reply]
"""Decides about a well-formed opening: let in, or the reply that refuses it."""

# A line ends at the first CR LF, and a value holds neither: there is one way to match, so it takes linear time.
_HEAD: Final = re.compile(r"GET (/[!-~]*) HTTP/1\.1\r\n((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e]*\r\n){3,64})\r\n")
_ORDINARY_SIZE: Final = 4096
# 16 bytes in canonical base64: the last of the 22 digits carries two bits.
_KEY: Final = re.compile("[A-Za-z0-9+/]{21}[AQgw]==")
_UPGRADES: Final = frozenset(("upgrade", "keep-alive, upgrade"))
_BODY: Final = frozenset(("content-length", "transfer-encoding"))


class Answer(NamedTuple):
    """What to send for a request, and whether the connection is a WebSocket now."""

    data: bytes
    upgraded: bool


def open_ordinary(head: bytes, paths: frozenset[str], admit: Admit) -> Answer | None:
    """Answer an ordinary opening, or None for anything else; `head` ends with the request's empty line."""
    if len(head) > _ORDINARY_SIZE:
        return None
    try:
        found = _HEAD.fullmatch(head.decode("ascii"))
    except UnicodeDecodeError:
        return None
    if found is None:
        return None
    target, lines = found.groups()
    path, _, query = target.partition("?")
    if path not in paths:
        return None
    headers = {}
    split = lines.split("\r\n")
    for line in split[:-1]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip(" \t")
    key = headers.get("sec-websocket-key", "")
    if (
        len(headers) != len(split) - 1  # a header twice
        or headers.get("upgrade", "").lower() != "websocket"
        or headers.get("connection", "").lower() not in _UPGRADES
        or headers.get("sec-websocket-version") != "13"
        or not _KEY.fullmatch(key)
        or not _BODY.isdisjoint(headers)
    ):
        return None
    verdict = admit(Opening(path, query, headers))
    if isinstance(verdict, Reply):
        return Answer(verdict.encode(), False)
    protocol = "" if verdict.subprotocol is None else f"Sec-WebSocket-Protocol: {verdict.subprotocol}\r\n"
    return Answer(
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_key(key)}\r\n{protocol}\r\n"
        ).encode("ascii"),
        True,
    )


def open_any(head: bytes, paths: frozenset[str], admit: Admit, page: Callable[[Opening], Reply]) -> Answer:
    """Answer any request: an opening, a page, or an explanation of why it is neither."""
    protocol = ServerProtocol(logger=silent)
    protocol.receive_data(head)
    upgraded = False
    for event in protocol.events_received():
        if not isinstance(event, Request):
            continue
        opening = _opening(event)
        if opening.path not in paths:
            return Answer(page(opening).encode(), False)
        response = protocol.accept(event)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            verdict = admit(opening)
            if isinstance(verdict, Reply):
                return Answer(verdict.encode(), False)
            if verdict.subprotocol is not None:
                response.headers["Sec-WebSocket-Protocol"] = verdict.subprotocol
            upgraded = True
        protocol.send_response(response)
    data = b"".join(protocol.data_to_send())
    if not data:
        reply = Reply(HTTPStatus.BAD_REQUEST, "This is no HTTP request that a relay understands.\n")
        return Answer(reply.encode(), False)
    return Answer(data, upgraded)


def _opening(request: Request) -> Opening:
    path, _, query = request.path.partition("?")
    return Opening(path, query, joined(request.headers.raw_items()))
