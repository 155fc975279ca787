"""The way to a mailbox that is a peer of a relay, over a connection that somebody else has."""

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import Any, Final, Protocol

from keys.contact import Contact
from keys.errors import OpenError
from keys.identity import Identity
from keys.invite import MailboxCard
from keys.primitives import NONCE_SIZE, random_bytes
from peers.client import NotConnected
from peers.dropping.client import Request
from peers.dropping.errors import Unreachable
from peers.dropping.options import DroppingOptions
from wire.errors import WireError
from wire.inner import parse_inner
from wire.mailbox_answers import FromMailbox, parse_from_mailbox
from wire.mailbox_commands import encode_for_mailbox

_AGAIN: Final = 5.0
"""Seconds after which a request that was not answered is sent again, with our keys: the mailbox may have forgotten
them, or not have had them when the first came."""
_NONCES: Final = 64


class Link(Protocol):
    """What is needed of a :class:`peers.client.RelayClient`."""

    async def send(self, recipient_id: bytes, packet: bytes) -> None:
        """Send a packet; raises NotConnected."""

    async def introduce(self, target_id: bytes, nickname: str) -> None:
        """Give our keys to the target; raises NotConnected."""


class PacketWay:
    """Requests by packets. Whoever has the connection hands over what comes: :meth:`take`, :meth:`undelivered`.

    Args:
        link: the connection.
        ours: whose it is.
        card: the mailbox's.
    """

    def __init__(self, link: Link, ours: Identity, card: MailboxCard, options: DroppingOptions) -> None:
        self._link = link
        self._contact = Contact(ours, card.public)
        self._timeout = options.timeout
        self._introduced = False
        # From anywhere: a relay that kept answers to an earlier run of ours must not find them asked for again.
        self._count = int.from_bytes(random_bytes(4), "little")
        self._waiting: dict[int, asyncio.Future[FromMailbox]] = {}
        self._sent: OrderedDict[bytes, int] = OrderedDict()

    @property
    def id(self) -> bytes:
        """The mailbox's client id at the relay (8 bytes)."""
        return self._contact.id

    async def ask(self, request: Request) -> FromMailbox:
        """See :class:`peers.dropping.client.Way`."""
        self._count = number = (self._count + 1) % (1 << 32)
        answer: asyncio.Future[FromMailbox] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    await self._send(replace(request, request=number), number)
                    await asyncio.wait([answer], timeout=_AGAIN)
                    if answer.done():
                        return answer.result()
                    self._introduced = False
        except NotConnected:
            raise Unreachable("there is no connection to the mailbox's relay") from None
        except TimeoutError:
            raise Unreachable(f"the mailbox did not answer within {self._timeout:g} s") from None
        finally:
            del self._waiting[number]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # of a refusal that came when nobody waited any more nobody need be told

    async def rest(self) -> None:
        """See :class:`peers.dropping.client.Way`. The connection is not ours to end."""

    def take(self, packet: bytes) -> bool:
        """Take a packet that came from the mailbox's id; False if it is no answer of it."""
        try:
            inner = parse_inner(self._contact.open(packet))
            answer = parse_from_mailbox(inner.command, inner.body)
        except (OpenError, WireError):
            return False
        # An answer that is handed over again finds nobody waiting: numbers are not used twice.
        waiting = self._waiting.get(getattr(answer, "request", -1))
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)
        return True

    def undelivered(self, nonce: bytes) -> bool:
        """The relay could not pass a packet on; False if it was none of ours."""
        number = self._sent.pop(nonce, None)
        if number is None:
            return False
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_exception(Unreachable("the mailbox is not at its relay"))
        return True

    def reconnected(self) -> None:
        """There is another session: the mailbox is given our keys again, and what was asked is not answered there."""
        self._introduced = False
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unreachable("the connection to the mailbox's relay was lost"))

    async def _send(self, request: Any, number: int) -> None:
        if not self._introduced:
            self._introduced = True
            await self._link.introduce(self._contact.id, "")
        packet = self._contact.seal(encode_for_mailbox(request))
        self._sent[packet[:NONCE_SIZE]] = number
        while len(self._sent) > _NONCES:
            self._sent.popitem(last=False)
        await self._link.send(self._contact.id, packet)
