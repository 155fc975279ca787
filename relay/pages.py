"""The HTTP side of the WebSocket port: the opening handshake, and the page that says the process lives.

`websockets`' sans-I/O `ServerProtocol` reads the request and writes the answer. It lives for one call: nothing of it
is kept for the life of the connection.
"""

from http import HTTPStatus
from typing import Final, NamedTuple

from websockets.http11 import Request
from websockets.server import ServerProtocol

from relay.websocket import silent

WEBSOCKET_PATHS: Final = frozenset(("/ws", "/api0"))
"""`/api0` is where older telefon clients look."""
HEALTH_PATH: Final = "/healthz"


class Answer(NamedTuple):
    """What to send for a request, and whether the connection is a WebSocket now."""

    data: bytes
    upgraded: bool
    forwarded_for: str | None


def answer(request: bytes) -> Answer:
    """Answer a complete HTTP request head, up to and with its empty line."""
    protocol = ServerProtocol(logger=silent)
    protocol.receive_data(request)
    forwarded_for = None
    upgraded = False
    for event in protocol.events_received():
        if not isinstance(event, Request):
            continue
        path = event.path.partition("?")[0]
        if path in WEBSOCKET_PATHS:
            response = protocol.accept(event)
            upgraded = response.status_code == HTTPStatus.SWITCHING_PROTOCOLS
            hops = event.headers.get_all("X-Forwarded-For")
            # The nearest proxy appends what it saw itself; what stands before it is the client's claim.
            forwarded_for = hops[-1].rpartition(",")[2].strip() if hops else None
        elif path == HEALTH_PATH:
            response = protocol.reject(HTTPStatus.OK, "ok\n")
        else:
            response = protocol.reject(HTTPStatus.NOT_FOUND, "A blindrelay relay. WebSocket clients connect to /ws.\n")
        protocol.send_response(response)
    data = b"".join(protocol.data_to_send())
    if not data:
        response = protocol.reject(HTTPStatus.BAD_REQUEST, "This is no HTTP request that a relay understands.\n")
        data = response.serialize()
    return Answer(data, upgraded, forwarded_for)


def too_large() -> bytes:
    """Return the answer to a request head beyond the limit."""
    protocol = ServerProtocol(logger=silent)
    return protocol.reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too long.\n").serialize()
