"""The way out: what the store has for each contact, sent in order, again and again until it is acknowledged."""

import asyncio
import math
from dataclasses import replace
from typing import Final

from peers.carrier.lane import ChangeTag, Lane, MessageTag, Sent
from peers.carrier.post import Post
from peers.carrier.transfers import Transfers
from peers.client import NotConnected
from peers.store import file_steps, jobs, unsettled
from peers.store.file_rows import FileRow
from peers.store.message_rows import ChangeRow, MessageRow
from wire.commands import Body, WakeType
from wire.peer_commands import CHUNK_SIZE, Delete, Edit, FileOffer, Pull, ReadAck, Text

_FOREIGN_TRIES: Final = 3
"""How often an edit or deletion is sent to a program that does not acknowledge them (telefon): while its owner is
online, nothing but the loss of their socket can lose it."""
_CHANGES: Final = 64
"""Most changes on their way to one contact."""
_REFUSAL: Final = 3.0
"""Seconds within which the relay's refusal of a packet has come, if it will."""
_SETTLED: Final = 15.0
"""Seconds within which the relay has said that it read a packet, or is taken not to have."""
_WAKE_AGE: Final = 600_000
"""Milliseconds: nobody is woken for what has waited for longer, as at each start of a program."""


class Outgoing:
    """Sends what is in the store. Raises NotConnected from where the connection ends; what was not sent stays."""

    def __init__(self, post: Post, transfers: Transfers) -> None:
        self._post = post
        self._transfers = transfers
        self._settling: asyncio.Task[None] | None = None

    async def run_once(self) -> float:
        """Send all that can be sent now; returns when (event loop time) to look again, if nothing happens before."""
        post = self._post
        for job, contact, kind in await post.store.read(jobs.waiting):
            await self._do(post.lanes.get(contact), kind)
            await post.store.write(jobs.done, job)
        next_at = math.inf
        for contact in await post.store.read(unsettled.contacts_to_send):
            lane = post.lanes.get(contact)
            if lane is not None and not lane.row.blocked:
                next_at = min(next_at, await self._serve(lane))
        return next_at

    async def _do(self, lane: Lane | None, kind: jobs.JobKind) -> None:
        if lane is None:
            return
        if kind == "introduce":
            await self._introduce(lane)
        else:
            await self._post.relay.wake(lane.contact.id, WakeType.CALL if kind == "wake-call" else WakeType.MESSAGE)

    async def _serve(self, lane: Lane) -> float:
        post, now = self._post, self._post.clock()
        self._give_up_waiting(lane, now)
        if not lane.online and now < lane.probe_at:
            await self._wake(lane, now)
            return lane.probe_at
        if not lane.row.knows_us and not lane.introduced:
            await self._introduce(lane)
        rows = await post.store.read(unsettled.to_send, lane.row.id, post.options.window)
        files = await post.store.read(file_steps.to_offer, lane.row.id)
        fresh: list[MessageRow | FileRow] = [row for row in rows if row.id not in lane.on_way]
        fresh += [row for row in files if row.message not in lane.on_way]
        fresh.sort(key=_message)
        if not lane.online:
            # One of them is enough to learn whether they are there.
            fresh = fresh[:1]
            lane.probe_at = now + post.options.probe
        if fresh:
            await self._send(lane, fresh)
        if lane.online:
            await self._tell(lane)
        deadlines = [sent.again_at for sent in lane.on_way.values()]
        deadlines += [again_at for _, again_at in lane.changes.values()]
        return min(deadlines) if lane.online and deadlines else math.inf if lane.online else lane.probe_at

    async def _send(self, lane: Lane, rows: list[MessageRow | FileRow]) -> None:
        post = self._post
        # Committed before the first byte leaves: were it the other way round, a kill in between would leave a message
        # that the peer has and that an edit here would treat as never sent.
        still = await post.store.write(unsettled.mark_sent, post.now(), [_message(row) for row in rows])
        for row in rows:
            message = _message(row)
            text = still.get(message)
            if text is None:
                continue
            lane.on_way[message] = Sent(row.uuid, post.clock() + lane.patience)
            if isinstance(row, FileRow):
                self._transfers.offered(lane, row)
                await post.send(lane, _offer(row), MessageTag(message))
            else:
                await post.send(lane, Text(text.uuid, text.text), MessageTag(message))

    async def _tell(self, lane: Lane) -> None:
        post, now = self._post, self._post.clock()
        told = []
        for change in await post.store.read(unsettled.changes_to_send, lane.row.id, _CHANGES):
            revision, again_at = lane.changes.get(change.message.id, (0, 0.0))
            if revision != change.revision:
                await self._send_change(lane, change)
            elif again_at <= now and change.kind == "read":
                told.append(change)
            elif again_at <= now:
                await self._send_change(lane, change)
        if not told:
            return
        # Beside the others, and one at a time: a relay that is slow to answer must not hold up everybody's texts.
        busy = self._settling is not None and not self._settling.done()
        for change in told:
            lane.changes[change.message.id] = (change.revision, now + (_REFUSAL if busy else _SETTLED))
        if not busy:
            if self._settling is not None:
                self._settling.result()  # raises what the store raised
            self._settling = asyncio.create_task(self._settle(lane, told), name="carrier-settle")

    async def _settle(self, lane: Lane, told: list[ChangeRow]) -> None:
        """No peer answers a READ_ACK. It counts as told when the relay has read it and refused nothing for a while."""
        post = self._post
        try:
            await post.relay.barrier()
        except NotConnected:
            return  # all is told anew over the next connection
        except TimeoutError:  # it is slow, or our disk is, so that its answer waits to be read: asked again later
            for change in told:
                if change.message.id in lane.changes:
                    lane.changes[change.message.id] = (change.revision, post.clock() + _REFUSAL)
            post.stirred.set()
            return
        # What was refused meanwhile is not among the changes any more.
        settled = [
            (change.message.id, change.revision)
            for change in told
            if lane.changes.get(change.message.id, (0, 0.0))[0] == change.revision
        ]
        await post.store.write(unsettled.changes_settled, settled)
        for message, _ in settled:
            lane.changes.pop(message, None)
        post.stirred.set()

    def close(self) -> None:
        """Let go of what is under way."""
        if self._settling is not None:
            self._settling.cancel()

    async def _send_change(self, lane: Lane, change: ChangeRow) -> None:
        post, message, tag = self._post, change.message, ChangeTag(change.message.id, change.revision)
        body: Body
        if change.kind == "read":
            patience = _REFUSAL
            body = ReadAck(message.uuid)
        elif change.tries >= _FOREIGN_TRIES and not lane.row.extended:
            await post.store.write(unsettled.changes_settled, [(message.id, change.revision)])
            return
        else:
            patience = lane.patience
            await post.store.write(unsettled.change_tried, message.id, change.revision)
            body = Edit(message.uuid, message.text) if change.kind == "edit" else Delete(message.uuid)
        lane.changes[message.id] = (change.revision, post.clock() + patience)
        await post.send(lane, body, tag)

    async def greet(self, lane: Lane) -> None:
        """Give our keys to somebody who came online and whom we added, if they do not have them yet."""
        if lane.row.origin != "introduction" and not (lane.row.knows_us or lane.introduced or lane.row.blocked):
            await self._introduce(lane)

    async def _introduce(self, lane: Lane) -> None:
        lane.introduced = True
        await self._post.relay.introduce(lane.contact.id, self._post.nickname)

    async def _wake(self, lane: Lane, now: float) -> None:
        post = self._post
        if not post.options.wake or now < lane.wake_at:
            return
        newest = await post.store.read(unsettled.newest_to_send, lane.row.id)
        if newest is None or newest.id <= lane.woken_for or newest.at < post.now() - _WAKE_AGE:
            return
        lane.wake_at, lane.woken_for = now + post.options.wake_pause, newest.id
        await post.relay.wake(lane.contact.id, WakeType.MESSAGE)

    def _give_up_waiting(self, lane: Lane, now: float) -> None:
        """What was not acknowledged in time is sent again, with our keys: the peer may have lost them."""
        late = [message for message, sent in lane.on_way.items() if sent.again_at <= now]
        if not late:
            return
        for message in late:
            del lane.on_way[message]
        lane.patience = min(2 * lane.patience, self._post.options.resend_max)
        lane.introduced = False
        lane.row = replace(lane.row, knows_us=False)


def _message(row: MessageRow | FileRow) -> int:
    return row.message if isinstance(row, FileRow) else row.id


def _offer(row: FileRow) -> FileOffer:
    pull = None if row.digest is None else Pull(row.uuid, row.chunk or CHUNK_SIZE, row.digest)
    return FileOffer(row.file_id, row.name, row.mime, row.size, pull)
