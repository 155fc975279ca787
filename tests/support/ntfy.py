"""The part of an ntfy server that UnifiedPush uses, after its documentation (publishing, UnifiedPush, rate limits).

- ``POST /TOPIC?up=1``: ``up`` (or a Content-Encoding of aes128gcm) makes it a UnifiedPush message: a body that is not
  UTF-8 reaches the subscriber in base64 with ``"encoding": "base64"`` and is not made an attachment.
- Priority is read of the header as a number or name; Title and Tags too.
- A UnifiedPush topic that nobody subscribed to lately answers 507, too many requests 429, both with ntfy's JSON.
- The longest message has 4,096 bytes.
"""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PRIORITIES = {"": 3, "min": 1, "low": 2, "default": 3, "high": 4, "urgent": 5, "max": 5} | {
    str(n): n for n in range(1, 6)
}
_TOPIC = re.compile(r"[-_A-Za-z0-9]{1,64}")
_MESSAGE_MAX = 4096


@dataclass(frozen=True)
class Message:
    """What a subscriber gets."""

    message: str
    encoding: str = ""
    priority: int = 3
    title: str = ""
    tags: list[str] = field(default_factory=list)


class Ntfy:
    """The server. `burst`: requests that it takes before it answers 429."""

    def __init__(self, burst: int = 60) -> None:
        self.url = ""
        self.requests: list[web.Request] = []
        self._left = burst
        self._topics: dict[str, asyncio.Queue[Message]] = {}

    def subscribe(self, topic: str) -> asyncio.Queue[Message]:
        """Be the ntfy app on a phone, which listens to this topic for an app of another name."""
        return self._topics.setdefault(topic, asyncio.Queue())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        app = web.Application(client_max_size=2**20)
        app.router.add_route("POST", "/{topic}", self._publish)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _publish(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        body = await request.read()
        topic = request.match_info["topic"]
        if not _TOPIC.fullmatch(topic):
            return _error(404, 40401, "page not found")
        if not self._left:
            return _error(429, 42901, "limit reached: too many requests")
        self._left -= 1
        header = request.headers.get
        unifiedpush = request.query.get("up") == "1" or header("Content-Encoding") == "aes128gcm"
        priority = _PRIORITIES.get((header("X-Priority") or header("Priority") or "").lower())
        if priority is None:
            return _error(400, 40007, "invalid priority parameter")
        if len(body) > _MESSAGE_MAX:
            return _error(413, 41301, "attachment too large, or bandwidth limit reached")
        if unifiedpush and topic not in self._topics:
            return _error(507, 50701, "cannot publish to UnifiedPush topic without previously active subscriber")
        try:
            text, encoding = body.decode(), ""
        except UnicodeDecodeError:
            if not unifiedpush:
                return _error(400, 40014, "attachments are not allowed here")
            text, encoding = base64.b64encode(body).decode(), "base64"
        tags = [tag for tag in (header("Tags") or "").split(",") if tag]
        self.subscribe(topic).put_nowait(Message(text, encoding, priority, header("Title") or "", tags))
        return web.json_response({"id": "x", "event": "message", "topic": topic})


def _error(status: int, code: int, text: str) -> web.Response:
    return web.json_response({"code": code, "http": status, "error": text}, status=status)
