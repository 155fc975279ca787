"""Files of others, on their way to this disk.

What comes is queued within bounds and written in a thread, and only then more is asked for: memory holds no more than a
window. A file is acknowledged when it is whole, checked, and written down.
"""

import asyncio
import errno
import math
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from peers.carrier.arrival import WINDOW_MAX, WINDOW_MIN, Arrival
from peers.carrier.disk import Part, make_directory, remove_stored, room
from peers.carrier.lane import FileTag, Lane
from peers.carrier.post import Post
from peers.carrier.stirring import stirred_until
from peers.client import NotConnected
from peers.store import Connection, feed, file_rows, file_steps
from peers.store.errors import NoSuchMessage
from peers.store.feed import Kind
from peers.store.file_rows import FileRow
from peers.store.file_steps import Policy, Taken
from peers.store.sources import Stopped
from wire.commands import Body
from wire.peer_commands import CancelReason, DeliveryAck, FileCancel, FileChunk, FileEnd, FileOffer, FileWant

RUNNING: Final = 12
"""Files that are asked for at once; beyond that only the first of somebody who has none: four strangers who let theirs
trickle must not hold up everybody else's."""
RUNNING_EACH: Final = 3
"""Of one contact: one who offers and never sends holds up nobody but themselves."""
_QUEUE: Final = 4 * 1024 * 1024
"""Bytes that wait to be written; beyond that no more is read from the relay."""
_UNSAVED: Final = 2 * 1024 * 1024
_SAVED_EVERY: Final = 0.5
"""What came is written down after so many bytes or seconds: that much is asked for again after a kill."""
_ASKS: Final = 16
"""Most requests for one file at a time: what has many holes is filled in several rounds."""
_TRIES: Final = 2
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Receiving:
    """Takes what senders say of their files. Its tasks are run by :class:`peers.carrier.transfers.Transfers`."""

    def __init__(self, post: Post, files_dir: Path) -> None:
        self._post = post
        self._files_dir = files_dir
        self._arrivals: dict[int, Arrival] = {}
        self._by_id: dict[tuple[int, bytes], Arrival] = {}
        self._queue: list[tuple[Arrival, int, bytes]] = []
        self._queued = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._stirred = asyncio.Event()
        self._whole: asyncio.Queue[Arrival] = asyncio.Queue()
        self._stop = threading.Event()

    # --- What senders say ---------------------------------------------------------------------------------------------

    async def take_offer(self, lane: Lane, nonce: bytes, offer: FileOffer) -> None:
        """Keep an offer, and answer it."""
        post = self._post
        policy = Policy(post.options.auto_accept, await self._free())
        taken, row = await post.store.write(file_steps.receive_offer, post.now(), lane.row.id, nonce, offer, policy)
        if row is not None and row.state == "moving":
            if row.pull:
                # At once, though its turn may come much later: or it would be sent unasked.
                await self._answer(lane, FileWant(row.file_id, 0, 0))
            arrival = self._arrivals.get(row.message)
            if arrival is None:
                await self._begin(row)
            elif not arrival.finishing:
                arrival.rest_now(post.clock())  # they are back, or lost what we asked for
            self._stirred.set()
        elif offer.pull is not None:
            await self._answer(lane, _answer_to(offer, offer.pull.uuid, taken, row))

    async def take_chunk(self, lane: Lane, chunk: FileChunk) -> None:
        """Queue a chunk to be written; waits while too much is queued. What is not wanted is dropped."""
        arrival = self._by_id.get((lane.row.id, chunk.file_id))
        if arrival is None or arrival.finishing:
            return
        for index, data in arrival.sift(chunk):
            self._queue.append((arrival, index, data))
            self._queued += len(data)
            self._some.set()
        while self._queued > _QUEUE:
            self._room.clear()
            await self._room.wait()

    async def take_end(self, lane: Lane, end: FileEnd) -> None:
        """A sender who does not wait to be asked has sent all: if all is here, say so."""
        post = self._post
        row = await post.store.write(file_steps.ended, post.now(), lane.row.id, end.file_id, end.uuid)
        if row is not None and row.state == "done":
            await self._answer(lane, DeliveryAck(row.uuid))

    # --- What happens elsewhere ---------------------------------------------------------------------------------------

    async def changed(self, message: int) -> None:
        """Somebody accepted, refused or deleted a file, or its contact."""
        try:
            row = await self._post.store.read(file_rows.get, message)
        except NoSuchMessage:
            row = None
        wanted = row is not None and not row.outgoing and row.state == "moving"
        arrival = self._arrivals.get(message)
        if arrival is not None and not arrival.finishing and not wanted:
            await self._drop(arrival)
        elif row is not None and wanted and arrival is None:
            if row.size - row.moved > await self._free():
                await self._post.store.write(
                    file_steps.fail, self._post.now(), message, CancelReason.NO_ROOM, tell=True
                )
            else:
                await self._begin(row)
        await self._sweep()

    async def contact_removed(self, contact: int) -> None:
        """Nothing comes from this contact any more."""
        for arrival in [each for each in self._arrivals.values() if each.row.contact == contact]:
            await self._drop(arrival)
        await self._sweep()

    def restart(self, lane: Lane | None, *, soon: bool) -> None:
        """Presence changed, for one contact or (None) for all: what was asked for may not come."""
        now = self._post.clock()
        for arrival in self._arrivals.values():
            if lane is None or arrival.lane is lane:
                arrival.rest_now(now if soon else now + self._post.options.probe)
        self._stirred.set()

    # --- Tasks --------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Go on with what is in the store."""
        await asyncio.to_thread(make_directory, self._files_dir)
        await self._sweep()
        for row in await self._post.store.read(file_steps.to_receive):
            await self._begin(row)

    async def write(self) -> None:
        """Write what is queued, for ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            batch, self._queue = self._queue, []
            by_arrival: dict[Arrival, list[tuple[int, bytes]]] = {}
            for arrival, index, data in batch:
                by_arrival.setdefault(arrival, []).append((index, data))
            for arrival, pieces in by_arrival.items():
                await self._write(arrival, pieces)
            self._queued -= sum(len(data) for _, _, data in batch)
            self._room.set()

    async def check(self) -> None:
        """Check what is whole, one file after another, for ever."""
        while True:
            arrival = await self._whole.get()
            try:
                await self._finish(arrival)
            except OSError as error:
                await self._trouble(arrival, error)

    async def ask(self) -> None:
        """Ask for what is missing, again where it does not come, for ever."""
        while True:
            self._stirred.clear()
            next_at = math.inf
            if self._post.relay.is_connected:
                next_at = await self._look()
            await stirred_until(self._stirred, next_at)

    async def close(self) -> None:
        """Write down how far all is, and let go of the disk."""
        self._stop.set()
        for arrival in list(self._arrivals.values()):
            if arrival.unsaved and not arrival.gone:
                await self._save(arrival, self._post.clock())
            await asyncio.to_thread(arrival.part.close)

    # --- Within: coming -----------------------------------------------------------------------------------------------

    async def _free(self) -> int:
        """Bytes of the disk that further files may have, when all that are wanted come."""
        free = await asyncio.to_thread(room, self._files_dir, self._post.options.spare)
        return free - sum(arrival.rest for arrival in self._arrivals.values())

    async def _begin(self, row: FileRow) -> None:
        lane = self._post.lanes.get(row.contact)
        if lane is None:
            return
        part = Part(self._files_dir, row.message, row.size)
        arrival = Arrival(row, lane, part, self._post.clock())
        if row.message in self._arrivals:
            return
        self._arrivals[row.message] = self._by_id[row.contact, row.file_id] = arrival
        if row.have and not await self._there(arrival):
            # Somebody removed it, or it was not on the disk when the power went.
            arrival.begin_anew()
            await self._post.store.write(file_steps.from_the_start, row.message)
        if arrival.complete:
            self._finish_soon(arrival)
        self._stirred.set()

    async def _there(self, arrival: Arrival) -> bool:
        try:
            return await asyncio.to_thread(arrival.part.holds, arrival.end)
        except OSError:
            return False

    async def _write(self, arrival: Arrival, pieces: list[tuple[int, bytes]]) -> None:
        chunk = arrival.chunk or 0
        try:
            await asyncio.to_thread(arrival.part.write, [(index * chunk, data) for index, data in pieces])
        except OSError as error:
            await self._trouble(arrival, error)
        if arrival.gone:
            return
        now = self._post.clock()
        arrival.heard_at = now
        for index, data in pieces:
            arrival.wrote(index, data)
        if arrival.complete:
            self._finish_soon(arrival)
            return
        if arrival.unsaved >= _UNSAVED or now - arrival.saved_at >= _SAVED_EVERY:
            await self._save(arrival, now)
        if arrival.row.pull and arrival.running and arrival.due():
            arrival.pace(now)
            await self._ask(arrival, now)

    async def _save(self, arrival: Arrival, now: float) -> None:
        """Write down what is on disk. A commit takes as long as several chunks: it is awaited when the next is due."""
        if arrival.saving is not None:
            wanted = await arrival.saving
            arrival.saving = None
            if not wanted:  # refused or deleted by another process, of which changed() will tell us too
                await self._drop(arrival)
                return
        tell = now - arrival.told_at >= _SAVED_EVERY
        arrival.saving = self._post.store.submit(
            file_steps.came,
            self._post.now(),
            arrival.row.message,
            arrival.encoded(),
            arrival.moved,
            arrival.chunk,
            tell=tell,
        )
        arrival.unsaved, arrival.saved_at = 0, now
        if tell:
            arrival.told_at = now

    def _finish_soon(self, arrival: Arrival) -> None:
        arrival.finishing = True
        self._whole.put_nowait(arrival)

    async def _finish(self, arrival: Arrival) -> None:
        post, message = self._post, arrival.row.message
        if arrival.gone:
            return
        try:
            good = await asyncio.to_thread(arrival.part.finish, arrival.row.digest, self._stop)
        except Stopped:
            return
        if good:
            row = await post.store.write(file_steps.whole, post.now(), message)
            self._forget(arrival)
            await asyncio.to_thread(arrival.part.close)
            if row is None:  # refused or deleted while it was checked
                await asyncio.to_thread(remove_stored, self._files_dir, [message])
            elif row.ended:
                await self._answer(arrival.lane, DeliveryAck(row.uuid))
            return
        arrival.begin_anew()
        if arrival.tries < _TRIES:
            await asyncio.to_thread(arrival.part.clear)
            await post.store.write(file_steps.from_the_start, message)
            arrival.rest_now(post.clock())
            self._stirred.set()
        else:
            await self._fail(arrival, CancelReason.CORRUPT)

    async def _trouble(self, arrival: Arrival, error: OSError) -> None:
        full = error.errno in _FULL
        text = "the disk is full" if full else f"a file cannot be written: {error.strerror or type(error).__name__}"
        await self._fail(arrival, CancelReason.NO_ROOM if full else CancelReason.GIVEN_UP)
        await self._post.store.write(_notice, self._post.now(), arrival.row, text)

    async def _fail(self, arrival: Arrival, reason: CancelReason) -> None:
        await self._drop(arrival)
        await self._post.store.write(file_steps.fail, self._post.now(), arrival.row.message, reason, tell=True)
        await self._sweep()

    async def _drop(self, arrival: Arrival) -> None:
        self._forget(arrival)
        await asyncio.to_thread(arrival.part.remove)

    def _forget(self, arrival: Arrival) -> None:
        arrival.gone = True
        self._arrivals.pop(arrival.row.message, None)
        self._by_id.pop((arrival.row.contact, arrival.row.file_id), None)
        self._stirred.set()  # another one may run now

    async def _sweep(self) -> None:
        gone = await self._post.store.read(file_rows.to_discard)
        if gone:
            removed = await asyncio.to_thread(remove_stored, self._files_dir, gone)
            await self._post.store.write(file_rows.discarded, removed)

    # --- Within: asking -----------------------------------------------------------------------------------------------

    async def _look(self) -> float:
        """Do what is due; returns when to look again."""
        options, now = self._post.options, self._post.clock()
        running = Counter(each.row.contact for each in self._arrivals.values() if each.running)
        next_at = math.inf
        for arrival in sorted(self._arrivals.values(), key=lambda each: each.row.message):
            lane, contact = arrival.lane, arrival.row.contact
            if arrival.finishing or arrival.gone or lane.row.blocked:
                continue
            gives_up_at = max(arrival.heard_at, lane.came_at) + options.stall if lane.online else math.inf
            if not arrival.row.pull:
                if gives_up_at <= now:
                    await self._fail(arrival, CancelReason.GIVEN_UP)
                next_at = min(next_at, gives_up_at)
                continue
            if not arrival.running:
                if not lane.online and now < arrival.retry_at:
                    next_at = min(next_at, arrival.retry_at)
                    continue
                # Whoever is not known to be online is tried with one file.
                if running[contact] >= (RUNNING_EACH if lane.online else 1):
                    continue
                if running[contact] and running.total() >= RUNNING:
                    continue
                running[contact] += 1
                arrival.running, arrival.heard_at = True, now
                await self._ask(arrival, now)
            elif gives_up_at <= now:
                await self._fail(arrival, CancelReason.GIVEN_UP)
                continue
            patience = options.resend if lane.online else options.probe
            again_at = max(arrival.heard_at, arrival.asked_at) + patience
            if again_at <= now:
                arrival.rest_now(now)
                arrival.running = True
                await self._ask(arrival, now)
                again_at = now + patience
            next_at = min(next_at, again_at, gives_up_at)
        return next_at

    async def _ask(self, arrival: Arrival, now: float) -> None:
        running = sum(1 for each in self._arrivals.values() if each.running and not each.finishing)
        share = max(WINDOW_MIN // 4, WINDOW_MAX // max(1, running))
        arrival.asked_at = now
        for first, number in arrival.to_ask(share, _ASKS):
            await self._answer(arrival.lane, FileWant(arrival.row.file_id, first, number), arrival)

    async def _answer(self, lane: Lane, body: Body, arrival: Arrival | None = None) -> None:
        tag = None if arrival is None else FileTag(arrival.row.file_id, -1)
        try:
            await self._post.send(lane, body, tag)
        except NotConnected:
            return  # whoever is not answered asks again, and what was asked for is asked for again


def _answer_to(offer: FileOffer, uuid: bytes, taken: Taken, row: FileRow | None) -> Body:
    if taken is Taken.GONE or (row is not None and row.state == "done"):
        return DeliveryAck(uuid)
    if row is None:
        return FileCancel(offer.file_id, CancelReason.REFUSED)
    if row.state == "failed":
        return FileCancel(offer.file_id, row.reason or 0)
    return FileWant(offer.file_id, 0, 0)  # kept; wanted when somebody says so


def _notice(db: Connection, now: int, row: FileRow, text: str) -> None:
    feed.add(db, now, Kind.NOTICE, contact=row.contact, message=row.message, detail=text)
