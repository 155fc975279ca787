"""The mailbox over HTTP, without any relay (docs/mailbox.md, "Over HTTP"; :mod:`wire.mailbox_http`).

Web pages of any origin may ask: nothing here goes by cookies or by where a request comes from, so a page that asks in
somebody's browser can do what it could from anywhere. What is picked up bears a proof by the recipient's key.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from keys.errors import OpenError
from keys.invite import MailboxCard
from keys.primitives import KEY_SIZE
from keys.stamp import STAMP_SIZE
from peers.mailbox.clock import Moment
from peers.mailbox.core import Caller, Mailbox
from peers.mailbox.forwarded import Proxies
from peers.mailbox.meter import Metrics
from peers.mailbox.rules import Refused
from peers.mailbox.settings_limits import LimitSettings
from peers.mailbox.tending import read_clocks
from peers.mailbox.trouble import Trouble
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire import mailbox_http as framing
from wire.errors import BadBody
from wire.mailbox_codes import ACK_MAX, ITEM_MAX, NUMBER_SIZE, TOKEN_MAX, Reason

FACE: Final = "http"
_DROP_HEAD: Final = 1 + KEY_SIZE + 4 + 16 + STAMP_SIZE + 1 + TOKEN_MAX
BODY_MAX: Final = {
    "/drop": _DROP_HEAD + ITEM_MAX,
    "/pickup": framing.PROOF_SIZE + 1 + 64,
    "/ack": framing.PROOF_SIZE + 1 + 4 + ACK_MAX * NUMBER_SIZE,
    framing.CHALLENGE_PATH: KEY_SIZE,
}
"""Most bytes of a request's body, by its path: what its largest command has, so that nothing larger is ever held."""
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-type", framing.CONTENT_TYPE.encode()),
)
_FORWARDED: Final = b"x-forwarded-for"
_NO_REQUEST: Final = 0
_PART: Final = 64 * 1024


class _Turned(Exception):
    """A request that is refused before the mailbox sees it.

    Attributes:
        refusal: the body of the answer.
        status: its status.
        why: the label of its metric.
    """

    def __init__(self, reason: Reason, status: int, why: str) -> None:
        self.refusal = answers.Refused(_NO_REQUEST, reason)
        self.status = status
        self.why = why


class HttpFace:
    """What answers HTTP for a mailbox.

    Args:
        card: the card that clients have for this way; its address is what they bind in their proofs.
        proxies: whose X-Forwarded-For is believed.
        moment: the time.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        card: MailboxCard,
        proxies: Proxies,
        limits: LimitSettings,
        metrics: Metrics,
        trouble: Trouble,
        moment: Callable[[Mailbox], Moment] = read_clocks,
    ) -> None:
        self._mailbox = mailbox
        self._card = card
        self._proxies = proxies
        self._limits = limits
        self._metrics = metrics
        self._trouble = trouble
        self._moment = moment
        self._under_way = 0
        self._bytes = 0
        self._version = metadata.version("blindrelay")
        metrics.watch(FACE, lambda: self._under_way)
        self.app = Starlette(
            routes=[
                *(Route(path, _Commands(self, path), methods=["POST"]) for path in BODY_MAX),
                Route(framing.INFO_PATH, self._info, methods=["GET"]),
            ],
            middleware=[
                Middleware(
                    CORSMiddleware,
                    allow_origins=["*"],
                    allow_methods=["GET", "POST"],
                    allow_headers=["content-type"],
                    max_age=86400,
                )
            ],
        )
        # A redirect to the same without its slash would name the host that the request names, which is anybody's.
        self.app.router.redirect_slashes = False

    async def _info(self, _request: Request) -> Response:
        about = self._mailbox.about(asks.Info(_NO_REQUEST), self._moment(self._mailbox))
        told = framing.about_to_json(about, name="blindrelay-mailbox", version=self._version, card=self._card.text)
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(told, media_type="application/json", headers=headers)

    # --- Requests ----------------------------------------------------------------------------------------------------

    async def respond(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; what the answer has in memory is counted until its client has taken it."""
        answer = await self._answer(path, scope, receive)
        if answer is None:
            return
        status, body, keep = answer
        headers: Iterable[tuple[bytes, bytes]] = (*_HEADERS, (b"content-length", str(len(body)).encode()))
        if status in (429, 503):
            headers = (*headers, (b"retry-after", b"10"))
        if not keep:
            # What is left of the request is not read.
            headers = (*headers, (b"connection", b"close"))
        self._bytes += len(body)
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            # In parts: each waits until the socket has room, where all at once would lie in its buffer.
            for at in range(0, len(body), _PART):
                part = body[at : at + _PART]
                await send({"type": "http.response.body", "body": part, "more_body": at + _PART < len(body)})
        finally:
            self._bytes -= len(body)

    async def _answer(self, path: str, scope: Scope, receive: Receive) -> tuple[int, bytes, bool] | None:
        """Return status and body of the answer, and whether the connection can go on; None if the client went."""
        held = bytearray()
        begun = time.perf_counter()
        ahead = 0
        try:
            if not await self._read(path, scope, receive, held):
                return None
            if path == "/pickup":
                # What is handed out is larger than what asks for it. Only once all of that is here: who connects and
                # says nothing must not take room that they do not fill.
                self._check_room(ITEM_MAX)
                ahead = ITEM_MAX
                self._bytes += ahead
            self._under_way += 1
            try:
                status, body, command = await self._serve(path, bytes(held), self._address(scope))
            finally:
                self._under_way -= 1
        except _Turned as turned:
            self._metrics.turned_away(turned.why)
            return turned.status, framing.encode_answer(turned.refusal), False
        except Exception as error:  # noqa: BLE001 - what one request causes must not end the service
            self._trouble.tell(error)
            return 503, framing.encode_answer(answers.Refused(_NO_REQUEST, Reason.FAILED)), False
        finally:
            self._bytes -= len(held) + ahead
        if command is not None:
            self._metrics.served(FACE, command, time.perf_counter() - begun)
        return status, body, True

    async def _read(self, path: str, scope: Scope, receive: Receive, held: bytearray) -> bool:
        """Read the body into `held`, whose bytes are counted as it grows; tell whether the client is still there.

        Counted is what came, and not what was announced: who announces much and sends little takes little.
        """
        most = BODY_MAX[path]
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > most:
                raise _Turned(Reason.TOO_BIG, 413, "too_large")
        try:
            async with asyncio.timeout(self._limits.request):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(held) + len(chunk) > most:
                        raise _Turned(Reason.TOO_BIG, 413, "too_large")
                    self._check_room(len(chunk))
                    held += chunk
                    self._bytes += len(chunk)
        except TimeoutError:
            raise _Turned(Reason.FAILED, 408, "too_slow") from None
        if self._under_way >= self._limits.in_progress:
            raise _Turned(Reason.FAILED, 503, "in_progress")
        return True

    def _check_room(self, size: int) -> None:
        if self._bytes + size > self._limits.in_progress_bytes:
            raise _Turned(Reason.FAILED, 503, "in_progress")

    def _address(self, scope: Scope) -> str:
        client = scope.get("client")
        forwarded = b",".join(value for name, value in scope["headers"] if name == _FORWARDED)
        return self._proxies.client(None if client is None else client[0], forwarded.decode("latin-1"))

    async def _serve(self, path: str, body: bytes, address: str) -> tuple[int, bytes, int | None]:
        """Return status and body of the answer, and the command that was asked for, if it was one."""
        caller = Caller(address=address)
        at = self._moment(self._mailbox)
        if path == framing.CHALLENGE_PATH:
            return self._challenge(body, caller, at)
        x_pub: bytes | None = None
        try:
            if path == "/drop":
                command, arguments = _split(body)
                request = framing.parse_request(path, command, arguments)
            else:
                x_pub, proof, command, arguments = framing.split_proven(body)
                request = framing.parse_request(path, command, arguments)
                self._mailbox.prove(self._card.url, x_pub, command, arguments, proof, at)
        except (BadBody, OpenError):
            self._mailbox.tallies.refused[Reason.BAD_REQUEST] += 1
            return *_encoded(answers.Refused(_NO_REQUEST, Reason.BAD_REQUEST)), None
        answer = await self._mailbox.serve(x_pub, request, caller, at)
        if answer is None:
            raise TypeError("the mailbox has no answer to a request of ours")
        return *_encoded(answer), command

    def _challenge(self, body: bytes, caller: Caller, at: Moment) -> tuple[int, bytes, None]:
        if len(body) != KEY_SIZE:
            return *_encoded(answers.Refused(_NO_REQUEST, Reason.BAD_REQUEST)), None
        try:
            return 200, self._mailbox.challenge(body, caller, at), None
        except Refused as refusal:
            return *_encoded(answers.Refused(_NO_REQUEST, refusal.reason)), None


def _split(body: bytes) -> tuple[int, bytes]:
    if not body:
        raise BadBody("the request is empty")
    return body[0], body[1:]


def _encoded(answer: answers.FromMailbox) -> tuple[int, bytes]:
    return framing.status_of(answer), framing.encode_answer(answer)


class _Commands:
    """The endpoint of one path, as a bare ASGI application: Starlette's own request and response cost as much again."""

    def __init__(self, face: HttpFace, path: str) -> None:
        self._face = face
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._face.respond(self._path, scope, receive, send)
