"""Mailboxes that a test runs: the rules of ``peers.mailbox`` behind HTTP, or as a peer of a relay.

Faces of the test's own, written from docs/mailbox.md: what a client relies on is what stands there.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from keys.contact import Contact
from keys.errors import OpenError
from keys.identity import Identity
from keys.invite import MailboxCard, RelayCard
from peers.client import ClientOptions, Introduction, NotConnected, PeerPacket, RelayClient
from peers.mailbox.core import Caller, Mailbox
from peers.mailbox.rules import AccessRule, Limits, Refused
from peers.mailbox.sqlite_store import SqliteStore
from tests.peers.mailbox.lab import limits
from wire import mailbox_answers as answers
from wire import mailbox_http as http
from wire.errors import BadBody, WireError
from wire.inner import parse_inner
from wire.mailbox_codes import Reason
from wire.mailbox_commands import Deposit, Drop, Info, encode_for_mailbox, parse_for_mailbox

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from peers.mailbox.clock import Moment
    from tests.support.cutting import CuttingProxy
    from tests.support.relay_process import RelayProcess


class Box:
    """A mailbox's rules, on the machine's clock.

    Attributes:
        asked: the codes of what was asked, in order.
        fail: while set, every request is refused with this reason.
    """

    def __init__(self, path: Path, bounds: Limits | None = None, access: AccessRule | None = None) -> None:
        self.path = path
        self.identity = Identity.generate()
        self.limits = bounds or limits()
        self.access = access or AccessRule()
        self.asked: list[int] = []
        self.fail: Reason | None = None
        self.clock_off = 0
        self._served = asyncio.Event()
        self.mailbox: Mailbox
        self._store: SqliteStore

    async def open(self) -> None:
        self._store = await SqliteStore.open(self.path, self.limits, lambda: 1 << 50)
        self.mailbox = await Mailbox.open(
            self._store, self.identity.public, self.limits, self.access, int(self._wall()), time.monotonic()
        )

    async def close(self) -> None:
        await self._store.close()

    def lose_disk(self) -> None:
        """Lose all that is held; not while it is open."""
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()

    def at(self) -> Moment:
        return self.mailbox.moment(self._wall(), time.monotonic())

    def _wall(self) -> float:
        return time.time() * 1000 + self.clock_off

    async def held(self, who: Identity) -> int:
        return (await self._store.counts(who.public.x_pub, time.monotonic())).items

    async def serve(self, x_pub: bytes | None, body: Any, caller: Caller) -> answers.FromMailbox:
        self.asked.append(body.command)
        if self.fail is not None:
            return answers.Refused(body.request, self.fail)
        answer = await self.mailbox.serve(x_pub, body, caller, self.at())
        assert answer is not None
        self._served.set()
        self._served = asyncio.Event()
        return answer

    async def until_held(self, who: Identity, count: int) -> None:
        """Wait until so many items are held for somebody."""
        async with asyncio.timeout(60):
            while await self.held(who) != count:
                await self._served.wait()


class HttpBox(Box):
    """One with an address of its own."""

    def __init__(self, path: Path, bounds: Limits | None = None, access: AccessRule | None = None) -> None:
        super().__init__(path, bounds, access)
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self.runner: web.AppRunner | None = None

    @property
    def card(self) -> MailboxCard:
        scheme = "http" if self.tls is None else "https"
        return MailboxCard(self.identity.public, f"{scheme}://127.0.0.1:{self.port}")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        await self.open()
        app = web.Application(client_max_size=http.REQUEST_MAX)
        app.router.add_get(http.INFO_PATH, self._info)
        app.router.add_post(http.CHALLENGE_PATH, self._challenge)
        for path in http.PATHS:
            app.router.add_post(path, self._post)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None
            await self.close()

    async def _info(self, _: web.Request) -> web.Response:
        about = self.mailbox.about(Info(0), self.at())
        return web.Response(body=http.about_to_json(about, software="test"), content_type="application/json")

    async def _challenge(self, request: web.Request) -> web.Response:
        try:
            challenge = self.mailbox.challenge(await request.read(), Caller(address="127.0.0.1"), self.at())
        except Refused as refusal:
            return _response(answers.Refused(0, refusal.reason))
        return web.Response(body=challenge, content_type=http.CONTENT_TYPE)

    async def _post(self, request: web.Request) -> web.Response:
        path, raw, x_pub = request.path, await request.read(), None
        try:
            if path == "/drop":
                command, arguments = raw[0], raw[1:]
            else:
                proven = http.split_proven(raw)
                command, arguments, x_pub = proven.command, proven.arguments, proven.x_pub
                self.mailbox.prove(self.card.url, x_pub, command, arguments, proven.answer, self.at())
            body = http.parse_request(path, command, arguments)
        except (OpenError, BadBody):
            return _response(answers.Refused(0, Reason.BAD_REQUEST))
        return _response(await self.serve(x_pub, body, Caller(address="127.0.0.1")))


def _response(answer: answers.FromMailbox) -> web.Response:
    return web.Response(body=http.encode_answer(answer), status=http.status_of(answer), content_type=http.CONTENT_TYPE)


class RelayBox(Box):
    """One that is a peer of a relay.

    Attributes:
        depositors: the keys of all who introduced themselves.
        left: by whom something was left or dropped, and for whom.
    """

    def __init__(self, path: Path, relay: RelayProcess | CuttingProxy, url: str | None = None) -> None:
        super().__init__(path)
        self._relay_card = RelayCard(relay.public, relay.url)
        self._url = url or relay.url
        self._known: dict[bytes, Contact] = {}
        self.left: list[tuple[bytes, bytes]] = []
        self._task: asyncio.Task[None]

    @property
    def card(self) -> MailboxCard:
        return MailboxCard(self.identity.public, self._url)

    @property
    def callers(self) -> set[bytes]:
        return {contact.public.x_pub for contact in self._known.values()}

    async def __aenter__(self) -> Self:
        await self.open()
        options = ClientOptions(backoff_min=0.02, backoff_max=0.2)
        self._relay = RelayClient(self.identity, self._relay_card, options)
        await self._relay.__aenter__()
        await self._relay.connected(60)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._relay.__aexit__(None, None, None)
        await self.close()

    async def _run(self) -> None:
        async for event in self._relay:
            if isinstance(event, Introduction):
                self._known[event.public.id] = Contact(self.identity, event.public)
            elif isinstance(event, PeerPacket) and event.sender_id in self._known:
                contact = self._known[event.sender_id]
                with suppress(OpenError, WireError, NotConnected):
                    inner = parse_inner(contact.open(event.packet))
                    body = parse_for_mailbox(inner.command, inner.body)
                    if isinstance(body, Deposit | Drop):
                        self.left.append((contact.public.x_pub, body.recipient))
                    answer = await self.serve(contact.public.x_pub, body, Caller(depositor=contact.public.x_pub))
                    await self._relay.send(contact.id, contact.seal(encode_for_mailbox(answer)))
