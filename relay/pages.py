"""The HTTP side of the WebSocket port: where openings go, and the page that says the process lives."""

from http import HTTPStatus
from typing import Final

from relay.opening import Admit, Answer, Opening, open_any, open_ordinary
from relay.replies import Reply

WEBSOCKET_PATHS: Final = frozenset(("/ws", "/api0"))
"""`/api0` is where older telefon clients look."""
HEALTH_PATH: Final = "/healthz"


def answer(head: bytes, admit: Admit) -> Answer:
    """Answer a complete HTTP request head, up to and with its empty line."""
    return open_ordinary(head, WEBSOCKET_PATHS, admit) or open_any(head, WEBSOCKET_PATHS, admit, _page)


def _page(opening: Opening) -> Reply:
    if opening.path == HEALTH_PATH:
        return Reply(HTTPStatus.OK, "ok\n")
    return Reply(HTTPStatus.NOT_FOUND, "A blindrelay relay. WebSocket clients connect to /ws.\n")


TOO_LARGE: Final = Reply(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too long.\n")
