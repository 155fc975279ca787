"""One connection to a relay, from the handshake to its end. It is not opened again: the client makes another."""

import asyncio
from typing import Final, Self

from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State as SocketState

from keys.identity import SERVER_ID, Identity
from keys.invite import RelayCard
from peers.client.backoff import Random
from peers.client.errors import NotAdmitted, NotConnected, WrongRelayKeys, WrongVersion
from peers.client.events import Reason
from peers.client.lost import Lost
from peers.client.opening import CLOSE_TIMEOUT, Socket, open_socket
from peers.client.options import ClientOptions
from peers.client.texts import plain, shown_url
from wire import commands as c
from wire import frames, mask
from wire.errors import BadBody, WireError
from wire.session import ClientSession, PeerFrame

_LOOKS: Final = 8
"""How often the life of a connection is looked at within its liveness: late by an eighth at most."""


class Link:
    """An open session. Made by :meth:`open`."""

    def __init__(self, socket: Socket, session: ClientSession, card: RelayCard, options: ClientOptions) -> None:
        self.restarting: float | None = None
        """Seconds after which the relay asked us to come back, if it said that it goes away."""
        self.bad_frames = 0
        """Frames that did not open, or that were not as the protocol has it."""
        self._socket = socket
        self._session = session
        self._card = card
        self._liveness = options.liveness
        self._turn = asyncio.Lock()
        self._reading = False
        self._silent = False
        self._over = False
        self._unsent = 0
        self._moved = 0.0
        self._look: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, identity: Identity, card: RelayCard, options: ClientOptions, random: Random) -> Self:
        """Connect and shake hands.

        Raises:
            Lost: not now.
            RelayRefused: not at all.
        """
        session = ClientSession(identity, card.public, random)
        try:
            async with asyncio.timeout(options.open_timeout):
                socket = await open_socket(card.url, options)
                link = cls(socket, session, card, options)
                try:
                    await link._shake_hands(identity)
                except BaseException:
                    await link.drop()
                    raise
        except TimeoutError:
            raise Lost(
                Reason.UNREACHABLE, f"{shown_url(card.url)} does not answer within {options.open_timeout:g} s"
            ) from None
        socket.heard = link._moved = socket.loop.time()
        link._look_later()
        return link

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return not self._over and self._socket.state is SocketState.OPEN

    # --- Handshake ---------------------------------------------------------------------------------------------------

    async def _shake_hands(self, identity: Identity) -> None:
        try:
            await self._socket.send(self._session.hello())
            answer = await self._socket.recv()
            while isinstance(answer, str):  # the first *binary* message is the answer (PROTOCOL.md §7.2)
                answer = await self._socket.recv()
        except ConnectionClosed as closed:
            raise self._unanswered(closed) from None
        try:
            body = self._session.receive(answer)
        except WireError:
            raise self._not_an_answer(answer, identity) from None
        match body:
            case c.HandshakeOk():
                return
            case c.IdInUse():
                raise Lost(Reason.ID_IN_USE, "another session has our id: this identity runs elsewhere too")
            case c.BadVersion(supported):
                raise WrongVersion(supported)
            case c.NotAdmitted(text):
                raise NotAdmitted(plain(text))
            case _:
                raise Lost(Reason.VIOLATION, "the relay refused the handshake by an error that this version lacks")

    def _not_an_answer(self, answer: bytes, identity: Identity) -> Exception:
        """Say what a first frame means that is none of the answers: other keys, or the right keys and a wrong tale."""
        shared = identity.shared_with(self._card.public.x_pub)
        inner = None
        try:
            sender_id, packet = frames.parse_frame(mask.server_to_client(shared), answer)
            if sender_id == SERVER_ID:
                inner = frames.open_server_packet(packet, self._card.public.ed_pub, shared)
        except WireError:
            return WrongRelayKeys(shown_url(self._card.url))
        if inner is None:
            return WrongRelayKeys(shown_url(self._card.url))
        if inner.command == c.Command.HANDSHAKE_OK and inner.body:
            return WrongVersion(inner.body[0])
        return Lost(Reason.VIOLATION, "the relay's answer to the handshake is not as the protocol has it")

    def _unanswered(self, closed: ConnectionClosed) -> Lost:
        lost = self._lost(closed)
        if lost.reason is not Reason.CLOSED:
            return lost
        refused = closed.rcvd is not None and closed.rcvd.code == CloseCode.POLICY_VIOLATION
        return Lost(Reason.UNANSWERED, f"{lost.text}, before it answered the handshake", unanswered=refused)

    # --- Receiving ---------------------------------------------------------------------------------------------------

    async def receive(self) -> c.ServerBody | PeerFrame:
        """Return what comes next. All that came before the end of the connection comes first.

        Raises:
            Lost: the connection is over.
        """
        while True:
            # While we were busy elsewhere the socket may not have been read: that silence was ours.
            self._socket.heard = self._socket.loop.time()
            self._reading = True
            try:
                message = await self._socket.recv()
            except ConnectionClosed as closed:
                raise self._lost(closed) from None
            finally:
                self._reading = False
            if isinstance(message, str):
                continue
            try:
                return self._session.receive(message)
            except BadBody:
                # The relay's own, for it verified: newer than we are, or with a fault. Another session would get the
                # same again, so this one goes on without it.
                self.bad_frames += 1
            except WireError:
                self.bad_frames += 1
                raise Lost(Reason.VIOLATION, "a frame came that is not from the relay, or out of place") from None

    def _lost(self, closed: ConnectionClosed) -> Lost:
        self._over = True
        if self._silent:
            lost = Lost(Reason.SILENT, f"nothing came from the relay, or went to it, for {self._liveness:g} s")
        elif closed.rcvd is not None and closed.rcvd.code == CloseCode.TRY_AGAIN_LATER:
            lost = Lost(Reason.BUSY, f"the relay asks to come back later{_said(closed.rcvd.reason)}")
        elif closed.rcvd is not None:
            lost = Lost(
                Reason.CLOSED, f"the relay closed the connection (code {closed.rcvd.code}){_said(closed.rcvd.reason)}"
            )
        elif closed.sent is not None:
            lost = Lost(
                Reason.VIOLATION, f"what came breaks the rules of WebSockets (we closed with {closed.sent.code})"
            )
        else:
            lost = Lost(Reason.LOST, "the connection broke")
        if self.restarting is not None and lost.reason is not Reason.SILENT:
            return Lost(Reason.RESTARTING, "the relay went away, as it said it would", self.restarting)
        return lost

    # --- Sending -----------------------------------------------------------------------------------------------------

    async def send(self, recipient_id: bytes, packet: bytes) -> None:
        """Send a packet to a peer; waits while the socket is full.

        Raises:
            NotConnected: the connection ended; the packet may have reached the relay or not.
            LocalError: an id or packet of the wrong size.
        """
        self._check()
        await self._write(self._session.send(recipient_id, packet))

    async def command(self, body: c.ClientBody) -> None:
        """Say something to the relay; otherwise as :meth:`send`."""
        self._check()
        await self._write(self._session.command(body))

    def command_now(self, body: c.ClientBody) -> None:
        """Say something to the relay without waiting: what is read must not depend on what can be written."""
        if self.is_open:
            broadcast((self._socket,), self._session.command(body))

    async def ping(self) -> None:
        """Return when the relay has answered a ping that stands behind all that was sent so far.

        Raises:
            NotConnected: the connection ended.
        """
        try:
            async with self._turn:
                self._check()
                pong = await self._socket.ping()
            await pong
        except ConnectionClosed:
            raise _ended() from None

    async def _write(self, frame: bytes) -> None:
        try:
            # One at a time, so that many who wait for room fill the buffer by one frame and not by one each.
            async with self._turn:
                self._check()
                await self._socket.send(frame)
        except ConnectionClosed:
            raise _ended() from None
        self._check()  # waiting for room ends with the connection too, and then says nothing

    def _check(self) -> None:
        if not self.is_open:
            raise _ended()

    # --- Life and end ------------------------------------------------------------------------------------------------

    def _look_later(self) -> None:
        self._look = self._socket.loop.call_later(self._liveness / _LOOKS, self._look_now)

    def _look_now(self) -> None:
        """Cut the connection if it is dead: nothing is heard although we read, or nothing goes although we write.

        The latter is for those who wait in :meth:`send` while events are not taken, so that we do not read.
        """
        now = self._socket.loop.time()
        unsent = self._socket.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._moved = unsent, now
        deaf = self._reading and now - self._socket.heard > self._liveness
        if deaf or now - self._moved > self._liveness:
            self._silent = True
            self._socket.transport.abort()
        else:
            self._look_later()

    async def close(self) -> None:
        """Close the session as one should (1000), within a bounded time."""
        self._end()
        # Not `asyncio.timeout`, for we may be here because we were cancelled. websockets bounds the closing handshake
        # by itself, but not the wait for room to write the Close frame.
        closing = asyncio.ensure_future(self._socket.close())
        await asyncio.wait([closing], timeout=CLOSE_TIMEOUT)
        await self._cut()
        await asyncio.wait([closing])

    async def drop(self) -> None:
        """Cut the connection."""
        self._end()
        await self._cut()

    def _end(self) -> None:
        self._over = True
        if self._look is not None:
            self._look.cancel()
        self._session.close()

    async def _cut(self) -> None:
        self._socket.transport.abort()
        await self._socket.wait_closed()


def _ended() -> NotConnected:
    return NotConnected("the connection to the relay ended: what was being sent may not have reached it")


def _said(reason: str) -> str:
    reason = plain(reason)
    return f": {reason}" if reason else ""
