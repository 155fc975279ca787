"""What Google runs for FCM, on 127.0.0.1: the token endpoint, which checks assertions, and FCM's HTTP v1."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from peers.notifier.google import ServiceAccount

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

PROJECT = "my-project-1a2b3"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_KEY = rsa.generate_private_key(65537, 2048)
_PEM = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass(frozen=True)
class Answered:
    """An answer of FCM."""

    status: int
    body: bytes
    headers: dict[str, str]


def fcm_error(
    status: int,
    name: str,
    code: str | None = None,
    *,
    field: str | None = None,
    retry_after: str | None = None,
    text: str = "some secret text",
) -> Answered:
    """An error as FCM's reference has it: google.rpc.Status with FcmError and BadRequest in its details."""
    details: list[dict[str, Any]] = []
    if code is not None:
        details.append({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
    if field is not None:
        violation = {"field": field, "description": "Invalid registration token secret"}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    error: dict[str, Any] = {"code": status, "message": text, "status": name}
    if details:
        error["details"] = details
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Answered(status, json.dumps({"error": error}).encode(), headers)


class Google:
    """The stand-in. It refuses what Google would refuse, and counts."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[dict[str, Any]] = []
        """Bodies of messages:send with a good token."""
        self.assertions: list[dict[str, Any]] = []
        self.clock: Callable[[], float] = time
        self.life = 3599
        self.answers: list[Answered] = []
        """Of FCM, taken from the front; then 200."""
        self.grants: list[Answered] = []
        """Of the token endpoint, taken from the front; then tokens."""
        self.gate: asyncio.Event | None = None
        """Token requests wait for it."""
        self.good: set[str] = set()
        """Tokens that FCM takes."""

    def account(self, **changes: str) -> ServiceAccount:
        fields = {
            "client_email": "notifier@my-project-1a2b3.iam.gserviceaccount.com",
            "private_key": _PEM,
            "private_key_id": "0123456789abcdef",
            "project_id": PROJECT,
            "token_uri": f"{self.url}/token",
        }
        return ServiceAccount(**(fields | changes))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_post("/v1/projects/{project}/messages:send", self._send)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if self.gate is not None:
            await self.gate.wait()
        if self.grants:
            answered = self.grants.pop(0)
            return web.Response(status=answered.status, body=answered.body, headers=answered.headers)
        assertion = str(form["assertion"])
        # The library checks RS256, the signature and aud; times go by the clock of the test.
        claims = jwt.decode(
            assertion,
            _KEY.public_key(),
            ["RS256"],
            audience=f"{self.url}/token",
            options={"require": ["iss", "scope", "aud", "iat", "exp"], "verify_iat": False, "verify_exp": False},
        )
        header = jwt.get_unverified_header(assertion)
        good = (
            form["grant_type"] == GRANT
            and claims["iss"] == "notifier@my-project-1a2b3.iam.gserviceaccount.com"
            and claims["scope"] == SCOPE
            and claims["exp"] - claims["iat"] <= 3600
            and abs(claims["iat"] - self.clock()) < 300
            and header["kid"] == "0123456789abcdef"
        )
        self.assertions.append(claims)
        if not good:
            return web.json_response({"error": "invalid_grant"}, status=400)
        token = f"ya29.{len(self.assertions)}"
        self.good.add(token)
        return web.json_response({"access_token": token, "expires_in": self.life, "token_type": "Bearer"})

    async def _send(self, request: web.Request) -> web.Response:
        told = await request.json()
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.good:
            answered = fcm_error(401, "UNAUTHENTICATED")
        elif request.match_info["project"] != PROJECT:
            answered = fcm_error(403, "PERMISSION_DENIED")
        else:
            self.sent.append(told)
            name = json.dumps({"name": f"projects/{PROJECT}/messages/0:1%2"}).encode()
            answered = self.answers.pop(0) if self.answers else Answered(200, name, {})
        return web.Response(status=answered.status, body=answered.body, headers=answered.headers)
