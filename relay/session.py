"""One connected client: from its opening to its end, and the path of every frame it sends.

The routed path is :meth:`Session.run_received` down to :meth:`Outbox.put`: no task, no lock, no clock, no log call
per frame. What is rare (commands, claims, refusals, stalls) leaves it by a call.
"""

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from websockets.frames import CloseCode

from keys.identity import ID_SIZE, SERVER_ID, PublicIdentity
from keys.primitives import COUNTER_0, NONCE_SIZE, HeaderKeystream
from relay import pages
from relay.guard import Allowance, Place
from relay.hub import Change
from relay.metered import HOLD_REFUSALS, MeteredSocket
from relay.outbox import Correspondent, Outbox, frame_head, from_peers
from relay.reasons import Ending, Held, Refusal
from relay.websocket import FIN_BINARY, MASKED, Phase, apply_mask
from wire import commands as c
from wire.limits import MAX_KEYS_PER_FRAME, MIN_FRAME
from wire.session import ServerSession

if TYPE_CHECKING:
    from relay.core import Core

_REFUSALS_PER_STEP: Final = 16
_LARGE: Final = 4096
"""Bytes from which a view costs less than a copy."""
_OPEN: Final = Phase.OPEN


class Session(MeteredSocket):
    """One client's connection; a session proper once `relay.entry` admitted it."""

    __slots__ = (
        # Everything here weighs on each of a hundred thousand idle connections: made late, let go early.
        "address",
        "dirty",
        "ended",
        "id",
        "last_out",
        "malformed",
        "mask",
        "outbox",
        "ping",
        "ping_frame",
        "place",
        "presence",
        "refusals",
        "refused",
        "unmask",
        "watching",
        "wire",
        "working",
    )

    id: bytes
    mask: HeaderKeystream

    def __init__(self, core: "Core") -> None:
        super().__init__(core)
        self.address = b""
        self.place: Place | None = None
        self.wire: ServerSession | None = None
        self.unmask: HeaderKeystream | None = None
        self.outbox: Outbox[Correspondent] = Outbox(core.limits.flush_size)
        self.dirty = False
        self.working = False
        self.ended: Ending | None = None
        self.last_out = self.last_in
        self.malformed = 0
        self.ping: bytes | None = None
        self.ping_frame: bytes | None = None
        self.refusals: deque[tuple[bytes, bytes]] | None = None
        self.presence: dict[bytes, Change] | None = None
        self.refused: dict[Correspondent, None] | None = None
        self.watching: dict[bytes, None] | None = None

    @property
    def public(self) -> PublicIdentity:
        """The public keys that the handshake proved."""
        return self.opened_wire.peer

    @property
    def opened_wire(self) -> ServerSession:
        """The wire session, which is there from the handshake on."""
        if self.wire is None:
            raise AssertionError("no handshake yet")
        return self.wire

    # --- The routed path ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._buffer is not None or self._holds or self.unmask is None or self.phase is not _OPEN:
            super().data_received(data)
            return
        # The same as there, shorter for a chunk that is nothing but plain frames.
        size = len(data)
        self.chunk_received(size)
        position = count = 0
        if self._fragments is None and not self._holds:
            position, count = self.run_received(data, 0)
            if position == size:
                self.frames_received(count)
                return
        self._take_rest(data, position, count)

    def run_received(self, data: bytes | bytearray, position: int) -> tuple[int, int]:
        """Route the plain frames that stand one after another in `data` from `position` on: the hot path.

        Whatever costs more than routing ends the run: a command, a refusal, a recipient without room.
        """
        unmask = self.unmask
        end = len(data) - 1
        if unmask is None or position >= end or data[position] != FIN_BINARY:
            return position, 0
        reset_in, update_in = unmask.methods
        sessions, remote = self.core.sessions, self.core.remote
        client_id = self.id
        limit = self.max_message
        count = 0
        known_size = -1
        known_target = head = b""
        while position < end and data[position] == FIN_BINARY:
            second = data[position + 1]
            if second == 0xFE and position + 4 <= end:
                start = position + 8
                size = data[position + 2] << 8 | data[position + 3]
            elif MASKED < second < 0xFE:
                start = position + 6
                size = second - MASKED
            elif second == 0xFF and position + 10 <= end:
                start = position + 14
                size = int.from_bytes(data[position + 2 : position + 10], "big")
            else:
                break
            stop = start + size
            if stop > end + 1 or not MIN_FRAME <= size <= limit:
                break
            key = data[start - 4 : start]
            body = start + ID_SIZE
            # The mask repeats after 4 bytes: header (8) and packet can be unmasked apart, so the packet needs no cut.
            masked = data[body:stop] if size < _LARGE else memoryview(data)[body:stop]
            packet = apply_mask(masked, key)
            nonce = COUNTER_0 + packet[:12]
            reset_in(nonce)
            target = update_in(apply_mask(data[start:body], key))
            position = stop
            count += 1
            if target != known_target:
                found = sessions.get(target)
                if found is None:
                    node = remote.get(target)
                    if node is not None and node.put_packet(self, client_id, target, packet):
                        continue
                    self._unrouted(target, packet)
                    break
                known_target, recipient = target, found
                reset_out, update_out = recipient.mask.methods
                outbox = recipient.outbox
            if size != known_size:
                known_size = size
                head = frame_head(size)
            reset_out(nonce)
            frame = head + update_out(client_id) + packet
            if not outbox.put(frame, self):
                refusal = recipient.put_crowded(frame, self)
                if refusal is not None:
                    self.refuse(target, packet[:NONCE_SIZE], refusal)
                break
            if not recipient.dirty:
                self.core.turns.touch(recipient)
        return position, count

    def _unrouted(self, target: bytes, packet: bytes) -> None:
        """Take a frame that is for no session: for the server, or for nobody who is here."""
        if target == SERVER_ID:
            self.core.turns.heavy(self, self.core.control.command_received, target + packet)
        elif self.core.cluster is not None:
            self.core.cluster.router.frame(self, target, packet)
        else:
            self.refuse(target, packet[:NONCE_SIZE], Refusal.OFFLINE)

    def deliver(self, packet: bytes, sender_id: bytes, sender: "Correspondent | None") -> None:
        """Take a packet that came by another node, or had to wait; whoever sent it is told if there is no room."""
        reset_out, update_out = self.mask.methods
        reset_out(COUNTER_0 + packet[:12])
        frame = frame_head(ID_SIZE + len(packet)) + update_out(sender_id) + packet
        if not self.outbox.put(frame, sender):
            self.deliver_crowded(frame, packet[:NONCE_SIZE], sender)
        elif not self.dirty:
            self.core.turns.touch(self)

    def deliver_crowded(self, frame: bytes, nonce: bytes, sender: "Correspondent | None") -> None:
        """Take a frame from elsewhere for which there is no room yet, or tell its sender."""
        refusal = self.put_crowded(frame, sender)
        if refusal is None:
            return
        if sender is None:
            self.core.counters.refusals[refusal] += 1
        else:
            sender.refuse(self.id, nonce, refusal)

    def message_received(self, message: bytes) -> None:
        """Take what no run took: the first message, one that is too short for a frame, one that came in fragments."""
        if self.unmask is None:
            self.core.turns.heavy(self, self.core.entry.first_message, message)
        elif len(message) < MIN_FRAME:
            self.malformed_frame()
        else:
            # As if it had come in one piece, under a mask of zeros: there is one way to route.
            self.run_received(bytes((FIN_BINARY, 0xFF)) + len(message).to_bytes(8, "big") + bytes(4) + message, 0)

    def put_crowded(self, frame: bytes, sender: Correspondent | None) -> Refusal | None:
        """Queue a frame for which there is no room yet: flush, or ask the budget; tell why not if it stays out."""
        outbox = self.outbox
        if not outbox.stalled:
            self.flush()
        if self.phase is not Phase.OPEN:
            return Refusal.RECIPIENT_GONE
        if not outbox.stalled:
            outbox.force(frame, sender)
            if outbox.size >= self.core.limits.flush_size:
                self.flush()
            elif not self.dirty:
                self.core.turns.touch(self)
            return None
        if not self.core.budget.within_bound(outbox, len(frame)):
            refusal = Refusal.RECIPIENT_FULL
        elif self.core.make_way(outbox, len(frame)):
            outbox.force(frame, sender)
            return None
        else:
            refusal = Refusal.TOTAL_FULL if self.phase is Phase.OPEN else Refusal.RECIPIENT_GONE
        if sender is not None:
            self.remember_refused(sender)
        return refusal

    def postponed(self) -> bool:
        turns = self.core.turns
        if not turns.late():
            return False
        turns.postpone(self)
        return True

    # --- What the relay itself says ----------------------------------------------------------------------------------

    def send(self, body: c.Body, *, must: bool = False) -> bool:
        """Seal and queue a server frame; False if the client does not take what it has already.

        With `must` it is queued all the same, unless the session is over: for the few frames without which a client
        would be told less than the truth, each bounded by what the client itself asked for.
        """
        return self.send_sealed(self.opened_wire.seal(body), must=must)

    def send_sealed(self, sealed: bytes, *, must: bool = False) -> bool:
        """Queue a server frame that is already sealed; as :meth:`send`."""
        core, outbox = self.core, self.outbox
        frame = frame_head(len(sealed)) + sealed
        if outbox.stalled:
            if not must and outbox.untaken > core.limits.queue_share:
                return False
        elif outbox.put(frame, None):
            if not self.dirty:
                core.turns.touch(self)
            return True
        elif self.put_crowded(frame, None) is None:
            return self.phase is Phase.OPEN  # it may have been written at once, to a socket that is dead
        elif not must or self.phase is not Phase.OPEN:
            return False
        outbox.force(frame, None)
        core.budget.shrunk(outbox, self.transport.get_write_buffer_size())
        core.relieve_if_exceeded()
        return True

    def refuse(self, target: bytes, nonce: bytes, refusal: Refusal) -> None:
        """Let 0x03 be sealed when it is this session's turn; nothing if the session is over.

        It is charged whatever the reason: who writes to recipients that end draws refusals as surely as who writes to
        those that are offline.
        """
        core, limits = self.core, self.core.limits
        core.counters.refusals[refusal] += 1
        if self.phase is not Phase.OPEN:
            return
        if self.refusals is None:
            self.refusals = deque()
        self.refusals.append((target, nonce))
        core.turns.work(self)
        if self.refusals_left is None:
            self.refusals_left = Allowance(limits.refusals_per_second, limits.refusals_burst, core.clock())
        self.spend(self.refusals_left, Held.REFUSALS)
        if len(self.refusals) > limits.refusals_waiting:
            self.hold(HOLD_REFUSALS)

    def note_presence(self, x_pub: bytes, change: Change) -> None:
        """Let a change of a watched key be told when it is this session's turn."""
        if self.phase is not Phase.OPEN:
            return
        if self.presence is None:
            self.presence = {}
        self.presence[x_pub] = self.presence.get(x_pub, Change(0)) | change
        self.core.turns.work(self)

    def work(self) -> bool:
        """Seal some of what waits; tell whether more does. While the client takes nothing, it goes on waiting."""
        if self.phase is not Phase.OPEN or self.outbox.stalled:
            return False
        if self.refusals:
            for _ in range(min(len(self.refusals), _REFUSALS_PER_STEP)):
                if not self.send(c.RecipientOffline(*self.refusals.popleft()), must=True):
                    return False
            if self.refusals:
                return not self._pace()
            self.refusals = None
        if self.presence:
            self.tell_presence()
        # Only now: what is parsed next may refuse again.
        self.release(HOLD_REFUSALS)
        return False

    def _pace(self) -> bool:
        """Put the next refusals off while the allowance is overdrawn: what was drawn at once is sealed in time."""
        core, allowance, waiting = self.core, self.refusals_left, self.refusals
        if allowance is None or waiting is None or core.stopping or core.limits.refusals_per_second <= 0:
            return False
        allowance.debt(core.clock())  # adds what time has earned
        # All that wait are charged already; what is left without them is what sealing has used up.
        if allowance.left + len(waiting) >= 0:
            return False
        core.later(_REFUSALS_PER_STEP / core.limits.refusals_per_second, core.turns.work, self)
        return True

    def tell_presence(self) -> None:
        """Tell the changes that were gathered, in one frame each way."""
        changes, self.presence = self.presence, None
        if not changes:
            return
        gone = [x_pub for x_pub, change in changes.items() if Change.OFFLINE in change]
        # By what is true now and not by what was noted: whoever is told OFFLINE of somebody online is told ONLINE too.
        here = [x_pub for x_pub in changes if self.core.online(x_pub)]
        self.core.counters.presence_told += len(gone) + len(here)
        # Offline first: of a session that was replaced, its watchers are told both.
        for kind, x_pubs in ((c.PeerOffline, gone), (c.PeerOnline, here)):
            for start in range(0, len(x_pubs), MAX_KEYS_PER_FRAME):
                if not self.send(kind.of(x_pubs[start : start + MAX_KEYS_PER_FRAME]), must=True):
                    return

    def remember_refused(self, sender: Correspondent) -> None:
        """Tell this sender that we are online, once what is queued for us has drained: only that makes it resend."""
        if self.refused is None:
            self.refused = {}
        self.refused[sender] = None

    def recovered(self, x_pub: bytes) -> None:
        """Tell this client that a recipient takes frames again, if it watches it."""
        if self.watching is not None and x_pub in self.watching:
            self.note_presence(x_pub, Change.ONLINE)

    # --- Writing -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand what is queued to the transport, as long as it takes it."""
        outbox = self.outbox
        if outbox.stalled or not outbox.size or self.phase is not Phase.OPEN:
            return
        core = self.core
        self.last_out = core.clock()
        while outbox.size and not outbox.stalled:
            frames, senders = outbox.take(core.limits.flush_size)
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            core.counters.bytes_out += len(data)
            core.counters.frames_out += len(frames)
            self.transport.write(data)
            if self.transport.is_closing():
                # The socket died under the write; the loop will say so later, but the senders wait now.
                core.refuse_all(self, from_peers(frames, senders), Refusal.RECIPIENT_GONE)
                self._enter_closing()
                core.leave(self)
                return

    def pause_writing(self) -> None:
        """The transport keeps bytes that the kernel did not take (its high-water mark is 0)."""
        if self.phase is Phase.OPEN and not self.outbox.stalled:
            self.core.budget.stall(self.outbox, self, self.transport.get_write_buffer_size(), self.core.clock())
            self.core.relieve_if_exceeded()

    def resume_writing(self) -> None:
        """The kernel took all that the transport had."""
        outbox = self.outbox
        if not outbox.stalled:
            return
        self.core.budget.resume(outbox)
        self.send_late_pong()
        self.flush()
        if self.blocked:
            return
        outbox.clear_marks()
        if self.refused is not None:
            refused, self.refused = self.refused, None
            for sender in refused:
                sender.recovered(self.public.x_pub)
        if self.refusals or self.presence:
            self.core.turns.work(self)

    @property
    def blocked(self) -> bool:
        return self.outbox.stalled

    def malformed_frame(self) -> None:
        """Count a frame that is none; the session ends after too many."""
        self.core.counters.refusals[Refusal.MALFORMED] += 1
        self.malformed += 1
        if self.malformed >= self.core.limits.malformed:
            self.end(Ending.MALFORMED, CloseCode.POLICY_VIOLATION, "too many malformed frames")

    # --- Life --------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # The transport keeps nothing: whatever the kernel does not take at once stalls the outbox, which is bounded.
        self.transport.set_write_buffer_limits(0)
        self.core.entry.connected(self)

    def opening_received(self, buffer: bytearray) -> int:
        core, start, told = self.core, 0, None
        if core.front.proxy_header:
            header = core.entry.proxied(self, buffer)
            if header is None:
                return 0
            start, told = header
        end = buffer.find(b"\r\n\r\n", start) + 4
        if (end if end >= 4 else len(buffer)) > core.limits.request_size:
            self.transport.write(pages.TOO_LARGE.encode())
            self._hang_up(Ending.BAD_REQUEST)
            return 0
        if end < 4:
            return 0
        reply = core.pages.answer(bytes(buffer[start:end]), partial(core.entry.admit, self, told=told))
        self.transport.write(reply.data)
        if reply.upgraded:
            self.phase = Phase.OPEN
            if self.transport.get_write_buffer_size():
                self.pause_writing()  # said before we listened to it
        else:
            self._hang_up(self.ended or Ending.NOT_WEBSOCKET)
        return end

    def _hang_up(self, ending: Ending) -> None:
        self.ended = ending
        self._half_close()
        self._enter_closing()
        self.core.leave(self)

    def pong_received(self, payload: bytes) -> None:
        if self.ping is None or payload != self.ping:
            self.stray_pongs += 1
            return
        self.ping = None
        self.core.contest.holder_answered(self)

    def send_ping(self, payload: bytes) -> None:
        """Send a WebSocket ping past whatever is queued; only a pong with this payload counts as an answer."""
        self.ping = payload
        self.transport.write(bytes((0x89, len(payload))) + payload)

    def beat(self, payload: bytes) -> None:
        """Ask for a sign of life, and give one that a web page's own code can see."""
        if self.outbox.stalled:
            if self.ping is None and not self.core.contest.probing(self):
                self.send_ping(payload)
            return
        if not self.core.contest.probing(self):
            self.send_ping(payload)
        if self.ping_frame is None:
            # Sealed once: it says nothing but that the relay lives, and a client that sees it again loses nothing.
            self.ping_frame = self.opened_wire.seal(c.ServerPing())
        self.mask.rest()
        if self.unmask is not None:
            self.unmask.rest()
        self.send_sealed(self.ping_frame)

    def violation(self) -> None:
        self.ended = self.ended or Ending.PROTOCOL_ERROR
        self.core.leave(self)

    def client_closed(self) -> None:
        self.ended = self.ended or Ending.CLIENT
        self.core.leave(self)

    def end(self, ending: Ending, code: CloseCode, reason: str = "") -> None:
        """End the session: write what is queued if the transport takes it, then close."""
        if self.phase is Phase.OPENING:
            self.abort(ending)
        elif self.phase is Phase.OPEN:
            self.ended = self.ended or ending
            self.flush()
            self.close(code, reason)
            self.core.leave(self)

    def abort(self, ending: Ending) -> None:
        """End the connection without a word: the other side does not take any."""
        self.ended = self.ended or ending
        self._enter_closing()
        self.transport.abort()
        self.core.leave(self)

    def eof_received(self) -> None:
        """The client will send no more: without a Close frame that is an end too, whatever it may still read."""
        if self.phase in (Phase.OPENING, Phase.OPEN):
            self.ended = self.ended or Ending.CLIENT
            self._enter_closing()
            self.core.leave(self)
        # The transport now closes itself once its buffer is written; the pulse sees to it that this does not take long.

    def connection_lost(self, exc: Exception | None) -> None:
        ours = exc is not None and not isinstance(exc, OSError)
        self.ended = self.ended or (Ending.INTERNAL_ERROR if ours else Ending.CLIENT)
        self._enter_closing()
        self.phase = Phase.LOST
        self.core.leave(self)
        self.core.lost(self)
