"""Files of ours, on their way to others.

One task sends for all files in turn, some chunks of each; a text waits for one chunk at most. Whoever knows how to ask
for chunks is sent what they ask for, never faster than they write it. To others all is sent unasked, in order, and no
further ahead of the relay than some chunks.
"""

import asyncio
import math
import threading
from typing import Final

from peers.carrier.departure import END, Departure, source_of
from peers.carrier.lane import FileTag, Lane
from peers.carrier.post import Post
from peers.client import NotConnected
from peers.store import file_rows, file_steps
from peers.store.errors import NoSuchMessage
from peers.store.file_rows import FileRow
from peers.store.sources import SourceChanged, Stopped, digest_of, read_pieces
from wire.peer_commands import CancelReason, FileCancel, FileChunk, FileEnd, FileWant

_TURN: Final = 8
"""Chunks of one file that are read and sent before the next file has its turn."""
_AHEAD: Final = 16
"""Chunks sent unasked until the relay has said that it read them: 512 KiB."""
_PUSHES: Final = 8
"""How often a file is sent unasked from its beginning: whoever never acknowledges it is not sent it for ever."""
_TOLD_EVERY: Final = 0.5


class Sending:
    """Sends files. Its tasks are run by :class:`peers.carrier.transfers.Transfers`."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._departures: dict[int, Departure] = {}
        self._offered: dict[int, tuple[float, Lane]] = {}
        self._some = asyncio.Event()
        self._undigested = asyncio.Event()
        self._digesting: tuple[int, threading.Event] | None = None

    # --- What happens elsewhere ---------------------------------------------------------------------------------------

    def offered(self, lane: Lane, row: FileRow) -> None:
        """An offer goes out now. Who has shown that they know how to ask is waited for."""
        if not lane.row.extended:
            self._offered.setdefault(row.message, (self._post.clock() + self._post.options.push_after, lane))
            self._some.set()

    def refused(self, lane: Lane, tag: FileTag) -> None:
        """The relay could not pass on what this tag is of: nothing is sent to them until they can be reached."""
        for departure in self._of(lane):
            departure.wanted.clear()
            if departure.row.file_id == tag.file_id and tag.chunk != -1:
                departure.refused(tag.chunk)
            if departure.held:
                lane.on_way.pop(departure.row.message, None)

    def offer_refused(self, message: int) -> None:
        """The relay could not pass on the offer."""
        self._offered.pop(message, None)

    def reachable(self, lane: Lane) -> None:
        """The relay says that they can be reached (again). To be called after the lane was reset."""
        for departure in self._of(lane):
            if departure.push and departure.held:
                # Their queue was full, and is not any more: what they have they keep, and another offer could make
                # them begin anew.
                departure.held = False
                lane.on_way[departure.row.message] = lane.taken(departure.row.uuid)
            elif departure.push:
                self._stop(departure)
        self._forget_offers(lane)
        self._some.set()

    def lost(self, lane: Lane | None) -> None:
        """They went, or (None) all connections did: what was sent unasked is begun anew when they are back."""
        for departure in self._of(lane):
            departure.wanted.clear()
            if departure.push:
                self._stop(departure)
        self._forget_offers(lane)

    async def changed(self, message: int) -> None:
        """A file was offered or cancelled, or its message deleted."""
        try:
            row = await self._post.store.read(file_rows.get, message)
        except NoSuchMessage:
            row = None
        if row is not None and not row.outgoing:
            return
        if row is None or not row.open:
            self.over(message)
            if self._digesting is not None and self._digesting[0] == message:
                self._digesting[1].set()
        self._undigested.set()

    def over(self, message: int) -> None:
        """Nothing more is to be sent of a file."""
        departure = self._departures.get(message)
        if departure is not None:
            self._stop(departure)
        self._offered.pop(message, None)

    def contact_removed(self, contact: int) -> None:
        """Nothing goes to this contact any more."""
        for departure in [each for each in self._departures.values() if each.row.contact == contact]:
            self._stop(departure)

    async def take_want(self, lane: Lane, want: FileWant) -> None:
        """Their request for chunks; for none of them it says that the offer is kept."""
        post = self._post
        row = await post.store.write(file_steps.wanted, post.now(), lane.row.id, want.file_id, some=want.count > 0)
        if row is None or not row.open:
            reason = CancelReason.UNKNOWN_FILE if row is None or row.reason is None else row.reason
            try:
                await post.send(lane, FileCancel(want.file_id, reason))
            except NotConnected:
                return  # they ask again
            return
        self._offered.pop(row.message, None)
        lane.on_way[row.message] = lane.taken(row.uuid)
        lane.patience = post.options.resend
        if want.count:
            departure = self._departures.get(row.message)
            if departure is None or departure.push:
                if departure is not None:
                    self._stop(departure)
                departure = self._departures[row.message] = Departure(row, lane, push=False)
            departure.want(want.first, want.count)
            self._some.set()

    # --- Tasks --------------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Send what was asked for, and what nobody asks for, for ever."""
        while True:
            self._some.clear()
            next_at = math.inf
            if self._post.relay.is_connected:
                next_at = await self._push_due()
                for departure in [each for each in self._departures.values() if each.ready]:
                    try:
                        await self._turn(departure)
                    except NotConnected:
                        break  # lost() follows
            if self._post.relay.is_connected and any(each.ready for each in self._departures.values()):
                continue
            try:
                async with asyncio.timeout_at(None if next_at == math.inf else next_at):
                    await self._some.wait()
            except TimeoutError:
                continue

    async def digest(self) -> None:
        """Compute the digests of files that are to be offered, one after another, for ever."""
        post = self._post
        while True:
            self._undigested.clear()
            while (row := await post.store.read(file_steps.to_digest)) is not None:
                self._digesting = (row.message, threading.Event())
                source = source_of(row)
                try:
                    digest = await asyncio.to_thread(digest_of, source, self._digesting[1])
                except SourceChanged:
                    await self._fail(row.message, CancelReason.SOURCE_CHANGED)
                except Stopped:
                    continue
                else:
                    await post.store.write(file_steps.digested, row.message, digest)
                    post.stirred.set()
            await self._undigested.wait()

    def close(self) -> None:
        """Stop what threads still do."""
        if self._digesting is not None:
            self._digesting[1].set()
        for departure in list(self._departures.values()):
            self._stop(departure)

    # --- Within -------------------------------------------------------------------------------------------------------

    async def _push_due(self) -> float:
        """Begin to send what nobody asks for; returns when the next is due."""
        post, now = self._post, self._post.clock()
        next_at = math.inf
        for message, (due_at, lane) in list(self._offered.items()):
            if due_at > now:
                next_at = min(next_at, due_at)
                continue
            del self._offered[message]
            sent = lane.on_way.get(message)
            if sent is None or sent.again_at == math.inf or lane.row.extended:
                continue
            row = await post.store.write(file_steps.pushing, post.now(), message, _PUSHES)
            if row is None:
                continue
            lane.on_way[message] = lane.taken(row.uuid)
            self._departures[message] = Departure(row, lane, push=True)
        return next_at

    async def _turn(self, departure: Departure) -> None:
        post, row, lane = self._post, departure.row, departure.lane
        indexes = departure.next(_TURN)
        try:
            pieces = await asyncio.to_thread(
                read_pieces, departure.source, [departure.piece(index) for index in indexes]
            )
        except SourceChanged:
            self._stop(departure)
            await self._fail(row.message, CancelReason.SOURCE_CHANGED)
            return
        for index, data in zip(indexes, pieces, strict=True):
            if departure.gone or departure.held:
                return
            await post.send(lane, FileChunk(row.file_id, index, data), FileTag(row.file_id, index))
            departure.sent(index)
        if departure.pushes_on and departure.position >= departure.total:
            departure.ended = True
            await post.send(lane, FileEnd(row.file_id, row.uuid), FileTag(row.file_id, END))
        elif departure.pushes_on and departure.unasked >= _AHEAD:
            departure.unasked = 0
            departure.ahead = asyncio.create_task(self._read_by_relay(departure), name="file-ahead")
        await self._tell(departure)

    async def _read_by_relay(self, departure: Departure) -> None:
        try:
            await self._post.relay.barrier()
        except (NotConnected, TimeoutError):
            pass  # lost() follows, or it is slow, which the socket makes us feel
        finally:
            departure.ahead = None
            self._some.set()

    async def _tell(self, departure: Departure) -> None:
        now = self._post.clock()
        if departure.gone or now - departure.told_at < _TOLD_EVERY:
            return
        departure.told_at = now
        if not await self._post.store.write(file_steps.sent, self._post.now(), departure.row.message, departure.moved):
            self._stop(departure)

    async def _fail(self, message: int, reason: CancelReason) -> None:
        await self._post.store.write(file_steps.fail, self._post.now(), message, reason, tell=True)

    def _stop(self, departure: Departure) -> None:
        departure.stop()
        if self._departures.get(departure.row.message) is departure:
            del self._departures[departure.row.message]

    def _of(self, lane: Lane | None) -> list[Departure]:
        return [each for each in self._departures.values() if lane is None or each.lane is lane]

    def _forget_offers(self, lane: Lane | None) -> None:
        for message, (_, of) in list(self._offered.items()):
            if lane is None or of is lane:
                del self._offered[message]
