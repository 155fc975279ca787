"""The mailbox as a peer of a relay: packets in, answers back to whoever sent them.

The relay's socket has one reader, which opens packets and starts what they ask for. Of one client as much may be under
way as `session_in_progress` says, and it is told when that is too much; of all together as much as the allowance has,
and then the socket is not read any more: the relay holds what is sent to us, and refuses it to its senders in the end.

What is under way is begun in the order in which it came, and the store keeps that order for each recipient.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any, Final

from keys.errors import OpenError
from keys.identity import Identity
from peers.client import (
    Connected,
    Disconnected,
    Event,
    IdInUse,
    Introduction,
    NotConnected,
    PeerPacket,
    PeersOffline,
    RelayClient,
    Undelivered,
)
from peers.mailbox.allowance import Allowance
from peers.mailbox.app import AppSession, AppSessions
from peers.mailbox.clock import Moment
from peers.mailbox.core import Caller, Mailbox
from peers.mailbox.introducing import Introducer
from peers.mailbox.meter import Metrics
from peers.mailbox.settings_limits import LimitSettings
from peers.mailbox.strangers import Client, Strangers
from peers.mailbox.tending import read_clocks
from peers.mailbox.trouble import Trouble
from peers.service.relay_session import RelaySession
from wire.commands import Unknown
from wire.errors import BadBody, WireError
from wire.inner import Inner, parse_inner
from wire.mailbox_answers import Delivery, FromMailbox, Lease, Refused
from wire.mailbox_codes import ITEM_MAX, MailboxCommand, Reason, Word
from wire.mailbox_commands import ForMailbox, parse_for_mailbox, request_of

FACE: Final = "relay"
_NONCE: Final = 24
_OURS: Final = range(MailboxCommand.DEPOSIT, MailboxCommand.KEPT)
_HANDED_OUT: Final = (MailboxCommand.FETCH, MailboxCommand.FETCH_NEXT)
_WATCHED: Final = 500
"""Clients of the web app whose coming and going the relay is asked to tell; a relay watches 1,024 keys for one."""
_SENT_LEASES: Final = 2048
"""LEASEs of which it is remembered in which packet they went, so that one that was not delivered ends at once."""


class RelayFace:
    """Serves the clients of one relay.

    Args:
        identity: the mailbox's keys.
        moment: the time.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        identity: Identity,
        limits: LimitSettings,
        metrics: Metrics,
        trouble: Trouble,
        moment: Callable[[Mailbox], Moment] = read_clocks,
    ) -> None:
        self._mailbox = mailbox
        self._limits = limits
        self._metrics = metrics
        self._trouble = trouble
        self._moment = moment
        self._clients = Strangers(identity, limits.known)
        self._app = AppSessions(mailbox)
        self._allowance = Allowance(limits.in_progress, limits.in_progress_bytes)
        self._introducer = Introducer()
        self._watched: OrderedDict[bytes, None] = OrderedDict()
        self._leases: OrderedDict[bytes, tuple[bytes, tuple[int, ...], float]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._session = RelaySession("mailbox", metrics)
        metrics.watch(FACE, lambda: self._allowance.taken)

    @property
    def connected(self) -> bool:
        """Whether there is a session with the relay."""
        return self._session.connected

    # --- Events ------------------------------------------------------------------------------------------------------

    async def run(self, relay: RelayClient, events: AsyncIterable[Event] | None = None) -> None:
        """Serve until the events end.

        Raises:
            RelayRefused: the relay refused for good.
        """
        introducing = asyncio.create_task(self._introducer.run(relay, self._clients))
        try:
            async for event in events or relay:
                await self._take(relay, event)
        finally:
            self._session.connected = False
            introducing.cancel()
            await asyncio.wait([introducing])

    async def finish(self, within: float) -> int:
        """Begin nothing more, and return how many requests are left under way after so many seconds at most."""
        self._stopping = True
        try:
            async with asyncio.timeout(within):
                await self._allowance.idle()
        except TimeoutError:
            pass  # told by what is returned
        return self._allowance.taken

    async def _take(self, relay: RelayClient, event: Event) -> None:
        match event:
            case PeerPacket(sender_id, packet):
                await self._packet(relay, sender_id, packet)
            case Introduction(public, _):
                if (found := self._clients.introduced(public)) is not None:
                    self._introducer.met(found)
            case Undelivered(target_id, nonce):
                self._begin(self._undelivered(target_id, nonce))
            case PeersOffline(x_pubs):
                self._begin(self._closed(x_pubs))
            case Connected() | Disconnected() | IdInUse():
                self._session.take(event)
                if isinstance(event, Disconnected):
                    self._begin(self._closed(tuple(self._watched)))
            case _:
                pass  # notices, and what is told to ordinary clients

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - what one client causes must not end the service
            self._trouble.tell(error)

    # --- Requests ----------------------------------------------------------------------------------------------------

    async def _packet(self, relay: RelayClient, sender_id: bytes, packet: bytes) -> None:
        if self._stopping:
            return
        client = self._clients.heard(sender_id)
        if client is None:
            self._metrics.unreadable("unknown_sender")
            return
        try:
            inner = parse_inner(client.contact.open(packet))
        except (OpenError, WireError):
            self._metrics.unreadable("unopened")
            return
        try:
            body = parse_for_mailbox(inner.command, inner.body)
        except BadBody:
            await self._malformed(relay, client, inner)
            return
        if isinstance(body, Unknown):
            self._metrics.unreadable("not_asked")
            return
        client.speaks_ours |= body.command in _OURS
        if client.under_way >= self._limits.session_in_progress:
            await self._refuse(relay, client, inner, Reason.TOO_FAST)
            return
        # What is handed out is larger than what asks for it, and stays in memory until the relay has taken it.
        size = len(packet) + (ITEM_MAX if body.command in _HANDED_OUT else 0)
        await self._allowance.take(size)
        client.under_way += 1
        self._begin(self._serve(relay, client, body, packet[:_NONCE], size))

    async def _malformed(self, relay: RelayClient, client: Client, inner: Inner) -> None:
        self._metrics.unreadable("malformed")
        await self._refuse(relay, client, inner, Reason.BAD_REQUEST)

    async def _refuse(self, relay: RelayClient, client: Client, inner: Inner, reason: Reason) -> None:
        self._mailbox.tallies.refused[reason] += 1
        request = request_of(inner.body) if inner.command in _OURS else None
        # The web app's codes have no answer that would say it; it asks again after its patience.
        if request is not None:
            bits = self._mailbox.bits(self._moment(self._mailbox))
            await self._send(relay, client, Refused(request, reason, bits))

    async def _serve(self, relay: RelayClient, client: Client, body: ForMailbox, nonce: bytes, size: int) -> None:
        begun = time.perf_counter()
        try:
            if body.command in _OURS:
                await self._serve_ours(relay, client, body)
            else:
                await self._serve_app(relay, client, body, nonce)
        finally:
            self._metrics.served(FACE, body.command, time.perf_counter() - begun)
            client.under_way -= 1
            self._allowance.give_back(size)

    async def _serve_ours(self, relay: RelayClient, client: Client, body: ForMailbox) -> None:
        at = self._moment(self._mailbox)
        answer = await self._mailbox.serve(client.x_pub, body, Caller(depositor=client.x_pub), at)
        if answer is None:
            return
        packet = self._seal(client, answer)
        if isinstance(answer, Lease) and answer.items:
            # The numbers alone: a LEASE is as large as a frame.
            numbers = tuple(item.number for item in answer.items)
            self._leases[packet[:_NONCE]] = client.x_pub, numbers, at.tick + self._mailbox.limits.lease
            if len(self._leases) > _SENT_LEASES:
                self._leases.popitem(last=False)
        if not await self._send_packet(relay, client, packet) and isinstance(answer, Lease):
            await self._unlease(packet[:_NONCE])

    async def _serve_app(self, relay: RelayClient, client: Client, body: ForMailbox, nonce: bytes) -> None:
        await self._watch(relay, client.x_pub)
        session = await self._app.of(client.x_pub)
        answer = await session.serve(body, nonce, self._moment(self._mailbox))
        if answer is None:
            return
        packet = self._seal(client, answer)
        if isinstance(answer, Delivery):
            session.sent(packet[:_NONCE])
        if not await self._send_packet(relay, client, packet) and isinstance(answer, Delivery):
            await session.undelivered(packet[:_NONCE])

    async def _watch(self, relay: RelayClient, x_pub: bytes) -> None:
        """Be told when a client of the app goes, for what it was handed and did not ask beyond is then not its own."""
        new = x_pub not in self._watched
        self._watched[x_pub] = None
        self._watched.move_to_end(x_pub)
        if new:
            await relay.watch([x_pub])
        if len(self._watched) > _WATCHED:
            oldest, _ = self._watched.popitem(last=False)
            await relay.unwatch([oldest])

    # --- Answers -----------------------------------------------------------------------------------------------------

    def _seal(self, client: Client, answer: FromMailbox | Word) -> bytes:
        return client.contact.seal(Inner(client.next_message_id(), answer.command, _encoded(answer)).encode())

    async def _send(self, relay: RelayClient, client: Client, answer: FromMailbox) -> None:
        await self._send_packet(relay, client, self._seal(client, answer))

    async def _send_packet(self, relay: RelayClient, client: Client, packet: bytes) -> bool:
        try:
            await relay.send(client.contact.id, packet)
        except NotConnected:
            self._metrics.unsent()
            return False
        return True

    async def _undelivered(self, target_id: bytes, nonce: bytes) -> None:
        self._metrics.unsent()
        client = self._clients.find(target_id)
        session = None if client is None else self._app.known(client.x_pub)
        if session is None or not await session.undelivered(nonce):
            await self._unlease(nonce)

    async def _unlease(self, nonce: bytes) -> None:
        """End a LEASE that did not reach its client: it would wait for what it never saw."""
        sent = self._leases.pop(nonce, None)
        if sent is not None:
            x_pub, numbers, end = sent
            await asyncio.gather(*(self._mailbox.store.release(x_pub, number, end) for number in numbers))

    async def _closed(self, x_pubs: tuple[bytes, ...]) -> None:
        sessions: list[AppSession] = [found for x_pub in x_pubs if (found := self._app.known(x_pub)) is not None]
        for session in sessions:
            await session.closed()


def _encoded(answer: FromMailbox | Word) -> bytes:
    if isinstance(answer, Unknown):
        raise TypeError("a mailbox answers nothing that it does not know")
    return answer.encode()
