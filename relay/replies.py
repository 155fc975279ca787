"""Plain HTTP replies on the WebSocket port: complete, small, and the last thing said on the connection."""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP response; the connection closes after it."""

    status: HTTPStatus
    body: str
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the bytes for the wire (RFC 9112 §6)."""
        body = self.body.encode()
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Date: {email.utils.formatdate(usegmt=True)}",
            "Connection: close",
            f"Content-Length: {len(body)}",
            f"Content-Type: {self.content_type}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body
