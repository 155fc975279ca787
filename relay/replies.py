"""Plain HTTP replies: complete, small, and the last thing said on the connection."""

import email.utils
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"

NO_STORE: Final[Mapping[str, str]] = {"Cache-Control": "no-store"}
"""For what is true only now."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP response; the connection closes after it."""

    status: HTTPStatus
    body: str | bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, with_body: bool = True) -> bytes:
        """Return the bytes for the wire (RFC 9112 §6); for HEAD without the body, whose length is told all the same."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Date: {email.utils.formatdate(usegmt=True)}",
            "Connection: close",
            f"Content-Length: {len(body)}",
            f"Content-Type: {self.content_type}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
        return head + body if with_body else head


def json_reply(value: object, headers: Mapping[str, str]) -> Reply:
    """Return a reply that holds a value as JSON."""
    return Reply(HTTPStatus.OK, json.dumps(value, indent=2, ensure_ascii=False) + "\n", JSON, headers)
