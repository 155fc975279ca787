"""Files, both ways: what the rest of a carrier calls."""

import asyncio
from pathlib import Path

from peers.carrier.lane import FileTag, Lane
from peers.carrier.post import Post
from peers.carrier.receiving import Receiving
from peers.carrier.sending import Sending
from peers.client import NotConnected
from peers.store import file_steps
from peers.store.file_rows import FileRow
from wire.peer_commands import FileCancel, FileChunk, FileEnd, FileOffer, FileWant

FileBody = FileOffer | FileChunk | FileEnd | FileWant | FileCancel


class Transfers:
    """All transfers of a carrier.

    Args:
        post: shared with the rest of the carrier.
        files_dir: where received files lie; made if it is missing, with mode 0700.
    """

    def __init__(self, post: Post, files_dir: Path) -> None:
        self._post = post
        self._sending = Sending(post)
        self._receiving = Receiving(post, files_dir)
        self._untold = asyncio.Event()

    async def run(self) -> None:
        """Do all that is to be done, for ever; raises what the store raises."""
        await self._receiving.load()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sending.send(), name="files-send")
                tasks.create_task(self._sending.digest(), name="files-digest")
                tasks.create_task(self._receiving.write(), name="files-write")
                tasks.create_task(self._receiving.check(), name="files-check")
                tasks.create_task(self._receiving.ask(), name="files-ask")
                tasks.create_task(self._tell(), name="files-tell")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def close(self) -> None:
        """Write down how far all is. To be called when :meth:`run` has ended."""
        self._sending.close()
        await self._receiving.close()

    # --- What comes ---------------------------------------------------------------------------------------------------

    async def take(self, lane: Lane, nonce: bytes, body: FileBody) -> None:
        """Take what a peer says of a file; `nonce` is that of the packet."""
        match body:
            case FileChunk():
                await self._receiving.take_chunk(lane, body)
            case FileOffer():
                await self._receiving.take_offer(lane, nonce, body)
            case FileEnd():
                await self._receiving.take_end(lane, body)
            case FileWant():
                await self._sending.take_want(lane, body)
            case FileCancel(file_id, reason):
                ended = await self._post.store.write(
                    file_steps.cancelled, self._post.now(), lane.row.id, nonce, file_id, reason
                )
                for message in ended:
                    lane.on_way.pop(message, None)
                    await self.changed(message)

    def arrived(self, message: int) -> None:
        """A file of ours was acknowledged."""
        self._sending.over(message)

    async def changed(self, message: int) -> None:
        """A message changed that may be a file: by us, or by another process of the profile."""
        await self._sending.changed(message)
        await self._receiving.changed(message)
        self._untold.set()

    async def contact_removed(self, contact: int) -> None:
        """A contact is gone from the store, with its files."""
        self._sending.contact_removed(contact)
        await self._receiving.contact_removed(contact)

    # --- What the relay says ------------------------------------------------------------------------------------------

    def connected(self) -> None:
        """There is another session than before, or none."""
        self._sending.lost(None)
        self._receiving.restart(None, soon=False)
        self._untold.set()

    def reachable(self, lane: Lane) -> None:
        """A contact came online, or can be reached again. To be called after the lane was reset."""
        self._sending.reachable(lane)
        self._receiving.restart(lane, soon=True)
        self._untold.set()

    def unreachable(self, lane: Lane) -> None:
        """A contact went."""
        self._sending.lost(lane)
        self._receiving.restart(lane, soon=False)

    def offered(self, lane: Lane, row: FileRow) -> None:
        """An offer goes out now."""
        self._sending.offered(lane, row)

    def refused(self, lane: Lane, tag: FileTag) -> None:
        """The relay did not pass a packet on."""
        self._sending.refused(lane, tag)
        self._receiving.restart(lane, soon=False)

    def offer_refused(self, message: int) -> None:
        """The relay did not pass an offer on."""
        self._sending.offer_refused(message)

    # --- Telling of failures ------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Tell the other side what failed, for ever. Whom it does not reach learns it when they ask or offer again."""
        post = self._post
        while True:
            self._untold.clear()
            if post.relay.is_connected:
                for row in await post.store.read(file_steps.to_tell):
                    lane = post.lanes.get(row.contact)
                    if lane is not None and not lane.online:
                        continue
                    if lane is not None and not lane.row.blocked:
                        try:
                            await post.send(lane, FileCancel(row.file_id, row.reason or 0), FileTag(row.file_id, -1))
                        except NotConnected:
                            break
                    await post.store.write(file_steps.told, row.message)
            await self._untold.wait()
