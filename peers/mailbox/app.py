"""The web app's mailbox codes, on the same items (docs/mailbox.md).

The app stores an envelope, ``sender_x_pub(32) packet``, which names its sender: so this mailbox learns more of the
app's messages than of sealed deposits. What the app fetches are envelopes alone, for a sealed deposit is nothing that
it can read; what other clients fetch are both.

The app acknowledges nothing. Its next FETCH_NEXT, if it comes in time and the relay did not say that the DELIVERY
failed, means that it had an answer to the one before, and so the envelope. That is a guess, so what it acknowledges is
set aside for a while and can be restored. A relay could make the guess wrong by repeating a FETCH_NEXT that it saw: so
each packet counts once, as far as the memory of this process goes.

The app's STORE bears no stamp and no token. It is taken as long as neither is asked for.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from keys.primitives import derive_key
from peers.mailbox import rules
from peers.mailbox.clock import Moment
from peers.mailbox.core import Caller, Mailbox
from peers.mailbox.rules import HOUR, Refused
from peers.mailbox.store import NewItem, StoreError
from wire.mailbox_answers import Delivery
from wire.mailbox_codes import ITEM_HEAD, LEASE_ROOM, ItemKind, MailboxCommand, Reason, Word
from wire.mailbox_commands import Delete, ForMailbox, Store

_DIGEST_CONTEXT: Final = "blindrelay mailbox envelope 1"
_DIGEST_SIZE: Final = 16
_ENVELOPES: Final = frozenset({ItemKind.ENVELOPE})
_NONCES: Final = 1024
"""Packets of one session that are remembered: an app that fetches a full mailbox sends as many."""


@dataclass(slots=True)
class _Delivered:
    number: int
    tick: float
    end: float
    nonce: bytes | None = None


class AppSession:
    """What one client of the app has open. One for each key (:class:`AppSessions`); it serves one request at a time.

    Args:
        x_pub: the session's X25519 key, which its packets prove.
    """

    def __init__(self, mailbox: Mailbox, x_pub: bytes) -> None:
        self._mailbox = mailbox
        self._x_pub = x_pub
        self._open: _Delivered | None = None
        self._nonces: OrderedDict[bytes, None] = OrderedDict()
        self._turn = asyncio.Lock()

    async def serve(self, body: ForMailbox, nonce: bytes, at: Moment) -> Delivery | Word | None:
        """Answer a request of the app; None if it is none of the app's, or its packet came before.

        Args:
            nonce: of the packet that brought it (24 bytes).
        """
        if not (isinstance(body, Store | Delete) or body == Word(MailboxCommand.FETCH_NEXT)):
            return None
        async with self._turn:
            if not self._first_time(nonce):
                return None
            match body:
                case Store():
                    return Word(await self._store(body, at))
                case Delete():
                    # What the app sends is sealed anew, so it is never what is held: see docs/mailbox.md.
                    return Word(MailboxCommand.NOT_FOUND)
                case _:
                    return await self._fetch_next(at)

    def sent(self, nonce: bytes) -> None:
        """Tell which packet the last DELIVERY went in, so that :meth:`undelivered` knows it."""
        if self._open is not None:
            self._open.nonce = nonce

    async def undelivered(self, nonce: bytes) -> bool:
        """The relay says that a packet failed (0x03); tell whether it was an open DELIVERY, which is then as if it had
        not been."""
        async with self._turn:
            if self._open is None or self._open.nonce != nonce:
                return False
            await self._release()
            return True

    async def closed(self) -> None:
        """The session is over: an open DELIVERY is not acknowledged any more."""
        async with self._turn:
            await self._release()

    async def _fetch_next(self, at: Moment) -> Delivery | Word:
        mailbox, limits = self._mailbox, self._mailbox.limits
        try:
            if self._open is not None:
                if at.tick - self._open.tick <= limits.app_patience:
                    until = -(-(at.now + limits.app_grace) // HOUR) * HOUR
                    acknowledged = await mailbox.store.set_aside(self._x_pub, self._open.number, until)
                    mailbox.tallies.acknowledged += acknowledged
                    self._open = None
                else:
                    await self._release()
            handed = await mailbox.store.lease(self._x_pub, _ENVELOPES, 1, LEASE_ROOM, ITEM_HEAD, at.now, at.tick)
        except StoreError:
            # The app knows no answer for this: that nothing is there now is the one after which it asks again.
            mailbox.tallies.refused[Reason.FAILED] += 1
            return Word(MailboxCommand.EMPTY)
        if not handed.items:
            return Word(MailboxCommand.EMPTY)
        (item,) = handed.items
        self._open = _Delivered(item.number, at.tick, at.tick + limits.lease)
        mailbox.tallies.handed += 1
        return Delivery(item.content)

    async def _store(self, body: Store, at: Moment) -> MailboxCommand:
        mailbox = self._mailbox
        try:
            self._check_store(body, at)
            expires = rules.expiry(at.now, 0, mailbox.limits)
            # No secret has it: what the app stores is deleted by its recipient alone. A repeated one is known by it.
            digest = derive_key(_DIGEST_CONTEXT, body.env)[:_DIGEST_SIZE]
            await mailbox.hold(NewItem(body.recipient, ItemKind.ENVELOPE, expires, digest, body.env), at)
        except Refused as refusal:
            mailbox.tallies.refused[refusal.reason] += 1
            return MailboxCommand.TOO_BIG if refusal.reason is Reason.TOO_BIG else MailboxCommand.FULL
        return MailboxCommand.STORED

    def _check_store(self, body: Store, at: Moment) -> None:
        mailbox = self._mailbox
        # Whoever could store in another's name could make somebody's post come from anybody.
        if body.sender != self._x_pub:
            raise Refused(Reason.BAD_DEPOSIT)
        rules.check_recipient(body.recipient)
        rules.check_size(ItemKind.ENVELOPE, len(body.env), mailbox.limits)
        mailbox.access.check(body.recipient, b"")
        mailbox.spend(Caller(self._x_pub), len(body.env), at)
        if mailbox.bits(at):
            raise Refused(Reason.STAMP_CHEAP)

    async def _release(self) -> None:
        delivered, self._open = self._open, None
        if delivered is not None:
            await self._mailbox.store.release(self._x_pub, delivered.number, delivered.end)

    def _first_time(self, nonce: bytes) -> bool:
        if nonce in self._nonces:
            return False
        self._nonces[nonce] = None
        if len(self._nonces) > _NONCES:
            self._nonces.popitem(last=False)
        return True


class AppSessions:
    """The clients of the app that were heard lately, by key.

    Not only those that are there: a relay that says falsely that a client went and came must not make its packets new.

    Args:
        size: how many are remembered; those heard least lately go first.
    """

    def __init__(self, mailbox: Mailbox, size: int = 1000) -> None:
        self._mailbox = mailbox
        self._size = size
        self._sessions: OrderedDict[bytes, AppSession] = OrderedDict()

    async def of(self, x_pub: bytes) -> AppSession:
        """Return the one of a key."""
        session = self._sessions.get(x_pub)
        if session is None:
            session = self._sessions[x_pub] = AppSession(self._mailbox, x_pub)
        self._sessions.move_to_end(x_pub)
        if len(self._sessions) > self._size:
            _, oldest = self._sessions.popitem(last=False)
            await oldest.closed()
        return session

    def known(self, x_pub: bytes) -> AppSession | None:
        """Return the one of a key if it is remembered: for what the relay says of it (0x03, PEER_OFFLINE)."""
        return self._sessions.get(x_pub)

    def __len__(self) -> int:
        return len(self._sessions)
