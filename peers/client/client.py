"""One identity's connection to one relay, kept up."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from keys.identity import Identity
from keys.invite import RelayCard
from keys.primitives import random_bytes
from peers.client import events as e
from peers.client.backoff import Backoff, Random
from peers.client.errors import NotConnected, RelayRefused, WrongRelayKeys
from peers.client.inbox import Inbox
from peers.client.link import Link
from peers.client.lost import Lost
from peers.client.obey import obey
from peers.client.options import ClientOptions
from peers.client.presence import Presence, in_frames
from peers.client.texts import shown_url
from wire import commands as c
from wire.errors import LocalError
from wire.session import ClientSession, PeerFrame

UNANSWERED_MOST: Final = 3
"""Handshakes in a row that are closed with 1008 instead of an answer, until we take the relay's keys for other than the
card's. One may have come too late for the relay's opening deadline, which closes in the same way."""
ID_IN_USE_WAIT: Final = 2.0
"""Seconds in which a relay notices that a dead session of ours still has our id (PROTOCOL.md §8.3)."""
LASTED: Final = 30.0
"""Seconds after which a session counts as good, so that the next attempt comes soon. Less, without any packet of a
peer, is what a relay looks like that accepts and closes: coming back at once would be a loop."""


class RelayClient:
    """One identity's connection to one relay, kept up.

    An asynchronous context manager, entered once. It connects in the background, again whenever the connection ends,
    and tells what happens as events: iterate over it, in one place. The events have to be taken: when `options.queue`
    of them wait, the socket is not read and connecting goes no further.

    Args:
        identity: who we are.
        relay: the relay's address and keys; whoever has other keys is not talked to.
        options: see there.
        random: gives nonces and jitter.

    Raises:
        BadKey: the relay's keys are our own.
    """

    def __init__(
        self,
        identity: Identity,
        relay: RelayCard,
        options: ClientOptions = ClientOptions(),  # noqa: B008 - frozen
        *,
        random: Random = random_bytes,
    ) -> None:
        ClientSession(identity, relay.public)  # raises what it would raise at each attempt
        self._identity = identity
        self._card = relay
        self._options = options
        self._random = random
        self._inbox = Inbox(options.queue)
        self._presence = Presence()
        self._backoff = Backoff(options.backoff_min, options.backoff_max, random)
        self._unanswered = 0
        self._bad_frames = 0
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._changed = asyncio.Event()

    # --- Beginning and end -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start connecting in the background.

        Raises:
            LocalError: it was entered before.
        """
        if self._task is not None:
            raise LocalError("a relay client is entered once: make another")
        self._task = asyncio.create_task(self._run(), name="relay client")
        self._task.add_done_callback(self._done)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session and end the events, in some seconds at most. Those that came can still be taken."""
        task = self._entered()
        task.cancel()
        await asyncio.wait([task])
        if exc is None and not task.cancelled() and not isinstance(task.exception(), RelayRefused):
            task.result()  # a fault of ours, which nobody may have seen

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # told to whoever takes events or waits for a session
        self._inbox.end()
        self._tell_change()

    def _entered(self) -> asyncio.Task[None]:
        if self._task is None:
            raise LocalError("a relay client is used inside of `async with`")
        return self._task

    # --- Events ------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[e.Event]:
        """Iterate over what happens, until the client is closed.

        Raises:
            RelayRefused: after the last event, if the relay refused for good.
            LocalError: somebody else iterates.
        """
        return self

    async def __anext__(self) -> e.Event:
        task = self._entered()
        event = await self._inbox.take()
        if event is None:
            self._raise_end(task)
            raise StopAsyncIteration
        return event

    def _raise_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error.with_traceback(None)

    async def connected(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - part of the interface
        """Return once a session is open.

        Args:
            timeout: seconds; None to wait for as long as it takes.

        Raises:
            TimeoutError: none was open within that time; the text says what went wrong last.
            RelayRefused: the relay refused for good.
            NotConnected: the client was closed.
        """
        task = self._entered()
        try:
            async with asyncio.timeout(timeout):
                while not self.is_connected:
                    if task.done():
                        self._raise_end(task)
                        raise NotConnected("this relay client was closed")
                    await self._changed.wait()
        except TimeoutError:
            why = f": {self._trouble}" if self._trouble else ""
            raise TimeoutError(f"no session with {shown_url(self._card.url)} within {timeout:g} s{why}") from None

    @property
    def is_connected(self) -> bool:
        """Whether a session is open."""
        return self._link is not None and self._link.is_open

    @property
    def bad_frames(self) -> int:
        """Frames since the beginning that did not verify or were not as the protocol has it: 0, or somebody meddles."""
        return self._bad_frames + (0 if self._link is None else self._link.bad_frames)

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed.clear()

    # --- Sending -----------------------------------------------------------------------------------------------------

    async def send(self, recipient_id: bytes, packet: bytes) -> None:
        """Send a sealed packet to the peer with that id. Waits while the socket is full; any number may wait.

        Returning means that it was written, no more: `Undelivered` tells of those that the relay could not pass on, and
        only the peer can tell that one arrived.

        Raises:
            NotConnected: there is no session, or it ended meanwhile; nothing is queued.
            LocalError: an id that is not 8 bytes or the server's, or a packet of a wrong size.
        """
        await self._open_link().send(recipient_id, packet)

    async def barrier(self, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - part of the interface
        """Return when the relay has read all that was sent before.

        So nothing of it dies with our socket any more. An `Undelivered` may still come later, for the relay answers a
        ping at once and seals its refusals when it has time; they keep their order among themselves. Not for the task
        that takes the events: the answer lies behind those that it does not take meanwhile.

        Raises:
            NotConnected: there is no session, or it ended meanwhile.
            TimeoutError: no answer within so many seconds.
        """
        link = self._open_link()
        try:
            async with asyncio.timeout(timeout):
                await link.ping()
        except TimeoutError:
            raise TimeoutError(f"the relay did not answer within {timeout:g} s") from None

    async def introduce(self, target_id: bytes, nickname: str) -> None:
        """Have the relay give our keys and this nickname to the target; nobody is told whether they arrive.

        Raises:
            NotConnected: as :meth:`send`.
            LocalError: an id that is not 8 bytes, or a nickname above 256 bytes of UTF-8.
        """
        await self._open_link().command(c.Introduce(target_id, nickname))

    async def wake(self, target_id: bytes, type: c.WakeType) -> None:  # noqa: A002 - part of the interface
        """Have the target pushed by the relay's notifier, if it has one.

        Raises:
            NotConnected, LocalError: as :meth:`introduce`.
        """
        await self._open_link().command(c.Wake(target_id, type))

    async def push_register(self, kind: int, token: bytes) -> None:
        """Tell the relay's notifier where we can be pushed (`wire.commands.PushKind`; at most 4,096 bytes).

        Raises:
            NotConnected: as :meth:`send`.
            LocalError: a kind or token out of range.
        """
        await self._open_link().command(c.PushRegister(kind, token))

    def _open_link(self) -> Link:
        if self._link is None or not self._link.is_open:
            why = f": {self._trouble}" if self._trouble else ""
            raise NotConnected(f"there is no session with the relay{why}")
        return self._link

    # --- Presence ----------------------------------------------------------------------------------------------------

    async def watch(self, x_pubs: Iterable[bytes]) -> None:
        """Ask to be told when the owners of these keys come and go, now if there is a session and at each later one.

        Raises:
            LocalError: one that is no key, or more than 65,536 in all.
        """
        await self._tell_presence(self._presence.watch(x_pubs), wanted=True)

    async def unwatch(self, x_pubs: Iterable[bytes]) -> None:
        """Ask to be told no longer; keys that are not watched are ignored.

        Raises:
            LocalError: one that is no key.
        """
        await self._tell_presence(self._presence.unwatch(x_pubs), wanted=False)

    def is_online(self, x_pub: bytes) -> bool:
        """Whether the owner of a watched key is online, as the relay last told; nobody is while there is no session."""
        return self.is_connected and self._presence.is_online(x_pub)

    async def _tell_presence(self, x_pubs: list[bytes], *, wanted: bool) -> None:
        link = self._link
        if link is None:
            return
        command = c.Subscribe if wanted else c.Unsubscribe
        # The next session asks for all that is wanted then.
        with suppress(NotConnected):
            for part in in_frames(x_pubs):
                # Looked at again: while this one waited to be sent, another call may have changed what is wanted.
                still = [x_pub for x_pub in part if self._presence.wants(x_pub) is wanted]
                if still:
                    await link.command(command.of(still))

    # --- Keeping it up -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._counted_session()
            except Lost as lost:
                self._trouble = lost.text
                in_use = lost.reason is e.Reason.ID_IN_USE
                delay = self._backoff.next(lost.asked, floor=ID_IN_USE_WAIT if in_use else 0.0)
                if in_use:
                    await self._inbox.put(e.IdInUse())
                await self._inbox.put(e.Disconnected(lost.reason, lost.text, delay))
                await asyncio.sleep(delay)
            except RelayRefused as refused:
                self._trouble = str(refused)
                raise

    async def _counted_session(self) -> None:
        """Have one session, as :meth:`_session`, and count how many in a row were closed without an answer."""
        try:
            await self._session()
        except Lost as lost:
            if lost.unanswered:
                self._unanswered += 1
                if self._unanswered >= UNANSWERED_MOST:
                    raise WrongRelayKeys(shown_url(self._card.url)) from None
            elif lost.reason is e.Reason.ID_IN_USE:
                self._unanswered = 0  # that was an answer, which verified
            raise

    async def _session(self) -> None:
        """Have one session, until it ends.

        Raises:
            Lost: it ended, or there was none.
            RelayRefused: there will be none.
        """
        link = await Link.open(self._identity, self._card, self._options, self._random)
        loop = asyncio.get_running_loop()
        since = loop.time()
        self._unanswered = 0
        self._trouble = ""
        self._link = link
        try:
            # At once, so that what is sent from now on stands behind it; whoever watches more later waits for room.
            for part in in_frames(self._presence.wanted):
                link.command_now(c.Subscribe.of(part))
            self._tell_change()
            await self._inbox.put(e.Connected())
            while True:
                body = await link.receive()
                if isinstance(body, PeerFrame):
                    since = float("-inf")
                    await self._inbox.put(e.PeerPacket(body.sender_id, body.packet))
                else:
                    event = obey(body, link, self._presence, self._identity.public)
                    if event is not None:
                        await self._inbox.put(event)
        except Lost as lost:
            if loop.time() - since > LASTED and lost.reason is not e.Reason.VIOLATION:
                self._backoff.reset()
            raise
        except asyncio.CancelledError:
            await link.close()
            raise
        finally:
            self._bad_frames, self._link = self.bad_frames, None
            self._presence.forget()
            await link.drop()
            self._tell_change()
