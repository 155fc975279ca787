"""The way out by mailboxes: what contacts do not acknowledge is left for them, and dropped once it is not needed."""

import asyncio
import math
from typing import Final

from keys.deposit import DROP_SECRET_SIZE, seal_deposit
from keys.primitives import NONCE_SIZE, random_bytes
from peers.carrier.lane import CardsTag, Lane
from peers.carrier.post import Post
from peers.carrier.rests import Rests
from peers.carrier.stirring import stirred_until
from peers.carrier.ways import Ways
from peers.client import NotConnected
from peers.dropping import Depositor, MailboxError, MailboxRefused, TooDear
from peers.store import Connection, mailboxes, owing, parcels
from peers.store.errors import NoSuchMailbox
from peers.store.mailboxes import Place
from peers.store.parcels import Debt, Draft, Parcel, Todo
from wire.commands import Body
from wire.mailbox_codes import Reason
from wire.peer_commands import ChangeAck, Delete, DeliveryAck, Edit, PeerCommand, Text, encode_for_peer
from wire.peer_mailboxes import Listed, Mailboxes

_FOREIGN_TRIES: Final = 3
"""How often a list of mailboxes is sent to a program that does not acknowledge it: it knows none (telefon)."""
_AT_ONCE: Final = 4 * 1024 * 1024
"""Bytes of sealed parcels that are written together: each of 64 KiB of text has 256 KiB."""
_FINAL: Final = frozenset({Reason.TOO_BIG, Reason.BAD_DEPOSIT, Reason.BAD_REQUEST})
"""Refusals of a parcel that stays as it is."""
_OF_CONTACT: Final = frozenset({Reason.FULL, Reason.NOT_SERVED, Reason.TOKEN})
"""Refusals that hold for this recipient alone: for others the mailbox may do."""
_LEAST: Final = 3600
"""Seconds for which what was left counts as left at least: ends are full hours."""
_MOST: Final = 31 * 24 * 3600
"""And at most: 30 days is the longest time."""
_USED_UP: Final = 24 * 3600
"""Seconds for which a parcel counts as left of which the mailbox says that it had it and holds it no more: its
recipient has most likely picked it up, and their acknowledgement is on its way."""


class Leaving:
    """Leaves what is in the store in the mailboxes of contacts. One mailbox that fails holds up no other."""

    def __init__(self, post: Post, ways: Ways) -> None:
        self._post = post
        self._ways = ways
        self._options = post.options.mail
        self._stirred = asyncio.Event()
        self._seen: dict[tuple[str, int, int], float] = {}
        self._told_at: dict[int, float] = {}
        self._workers: dict[int, asyncio.Task[None]] = {}
        self._more: dict[int, asyncio.Event] = {}
        self._serves: dict[int, int] = {}
        self._rests = Rests(self._options.backoff_min, self._options.backoff_max)
        # By mailbox, contact and token: with another token it is tried anew.
        self._full: dict[tuple[int, int, bytes], float] = {}
        self._serving: set[int] = set()
        self._idle = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    def stir(self) -> None:
        """There may be something to leave."""
        self._idle.clear()
        self._stirred.set()

    async def settled(self) -> None:
        """Return when all that can be left now is left."""
        self.stir()
        await self._idle.wait()

    async def run(self) -> None:
        """Leave what there is, for ever; raises what the store raises."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                while True:
                    self._stirred.clear()
                    next_at = await self._look()
                    self._rest()
                    await stirred_until(self._stirred, next_at)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    def _rest(self) -> None:
        if not (self._serving or self._stirred.is_set()):
            self._idle.set()

    # --- What there is ------------------------------------------------------------------------------------------------

    async def _look(self) -> float:
        """Do what is due; returns when to look again (event loop time)."""
        post = self._post
        # Asked at every change of the store: where nobody has a mailbox it is all that is done.
        if not await post.store.read(_concerned):
            return math.inf
        if post.relay.is_connected:
            try:
                await self._pay()
                await self._tell()
            except NotConnected:
                pass  # all of it is there still
        if not await post.store.read(parcels.any_places):
            return math.inf
        await post.store.write(parcels.settle, post.now())
        seen, next_at = self._seen, math.inf
        self._seen = {}
        copies = self._options.copies
        due: list[Todo] = []
        for todo in await post.store.read(_todos, copies):
            at = self._due_at(todo, seen)
            next_at = min(next_at, at)
            if at <= post.clock():
                due.append(todo)
        put = await self._put(due)
        for debt in await post.store.read(parcels.debts, copies):
            lane = post.lanes.get(debt.contact)
            if lane is not None and not lane.online and (post.presence_told or not post.relay.is_connected):
                await self._put_debt(lane, debt)
        if put:
            self._stirred.set()  # there may be more than are looked at in one go
        return min(next_at, await self._set_to_work())

    def _due_at(self, todo: Todo, seen: dict[tuple[str, int, int], float]) -> float:
        post, now = self._post, self._post.clock()
        lane = post.lanes.get(todo.contact)
        if lane is None:
            return math.inf
        key = (todo.what, todo.contact if todo.message is None else todo.message.id, todo.revision)
        first = self._seen[key] = seen.get(key, now)
        offline = post.relay.is_connected and post.presence_told and not lane.online
        if todo.what == "cards" and not offline:
            return math.inf if lane.online else first + self._options.patience
        return now if offline else first + self._options.patience

    # --- Sealing ------------------------------------------------------------------------------------------------------

    async def _put(self, todos: list[Todo]) -> int:
        drafts: list[Draft] = []
        size = count = 0
        for todo in todos:
            lane = self._post.lanes.get(todo.contact)
            if lane is None:
                continue
            made = await self._seal(lane, todo, await self._body(todo))
            drafts += made
            size += sum(len(draft.content) for draft in made)
            if size > _AT_ONCE:
                count += await self._post.store.write(parcels.put, self._post.now(), drafts)
                drafts, size = [], 0
        if drafts:
            count += await self._post.store.write(parcels.put, self._post.now(), drafts)
        return count

    async def _put_debt(self, lane: Lane, debt: Debt) -> None:
        todo = Todo(debt.contact, "acks", 0, debt.mailboxes)
        drafts = await self._seal(lane, todo, debt.acks)
        await self._post.store.write(parcels.put_debt, self._post.now(), debt, drafts)

    async def _body(self, todo: Todo) -> Body:
        message = todo.message
        if message is None:
            return await self._list()
        if todo.what == "text":
            return Text(message.uuid, message.text)
        return Edit(message.uuid, message.text) if todo.what == "edit" else Delete(message.uuid)

    async def _list(self) -> Mailboxes:
        number, ours = await self._post.store.read(lambda db: (mailboxes.serial(db), mailboxes.own(db)))
        return Mailboxes(number, tuple(Listed(each.card, each.token) for each in ours), self._post.nickname)

    async def _seal(self, lane: Lane, todo: Todo, body: Body) -> list[Draft]:
        # One packet, so that its recipient knows the copies by its nonce; each copy sealed anew, so that nobody else
        # can compare them.
        packet = lane.contact.seal(encode_for_peer(body, lane.next_message_id()))
        x_pub, ours = lane.row.public.x_pub, self._post.ours.public
        drafts = []
        for mailbox in todo.mailboxes:
            place = await self._place(mailbox)
            if place is not None:
                deposit = seal_deposit(ours, x_pub, place.card.public, packet)
                drafts.append(Draft(todo, mailbox, packet[:NONCE_SIZE], random_bytes(DROP_SECRET_SIZE), deposit))
        return drafts

    async def _place(self, mailbox: int) -> Place | None:
        try:
            return await self._post.store.read(mailboxes.get, mailbox)
        except NoSuchMailbox:
            return None  # its last contact took it off their list meanwhile

    # --- To those who are online --------------------------------------------------------------------------------------

    async def _pay(self) -> None:
        """Acknowledge what came by a mailbox to those who are online now."""
        post = self._post
        for contact in await post.store.read(owing.creditors):
            lane = post.lanes.get(contact)
            if lane is None or not lane.online or lane.row.blocked:
                continue
            while owed := await post.store.read(owing.owed_to, contact):
                for _, command, body in owed:
                    ack = DeliveryAck(body) if command == PeerCommand.DELIVERY_ACK else ChangeAck(body)
                    await post.send(lane, ack)
                await post.store.write(owing.paid, [row for row, _, _ in owed])

    async def _tell(self) -> None:
        """Give the list of our mailboxes to those who are online and have not acknowledged it."""
        post, now = self._post, self._post.clock()
        body = None
        for contact, tries in await post.store.read(mailboxes.to_tell):
            lane = post.lanes.get(contact)
            if lane is None or not (lane.online and lane.row.knows_us):
                continue
            if tries >= _FOREIGN_TRIES and not lane.row.extended:
                continue
            if now - self._told_at.get(contact, -math.inf) < post.options.resend:
                continue
            self._told_at[contact] = now
            body = body or await self._list()
            await post.store.write(mailboxes.told, contact, body.serial)
            await post.send(lane, body, CardsTag(body.serial))

    def came(self, contact: int) -> None:
        """A contact came online: what was on its way to them may have died with their old socket."""
        self._told_at.pop(contact, None)
        self._stirred.set()

    # --- At the mailboxes ---------------------------------------------------------------------------------------------

    async def _set_to_work(self) -> float:
        """Have each mailbox served by a task of its own; returns when one that rests is to be tried again."""
        now, next_at = self._post.clock(), math.inf
        self._full = {key: until for key, until in self._full.items() if until > now}
        for mailbox in await self._post.store.read(parcels.busy):
            until = self._rests.until(mailbox)
            if until > now:
                next_at = min(next_at, until)
                await self._post.store.write(parcels.put_off, mailbox)
            elif mailbox in self._workers and not self._workers[mailbox].done():
                self._serving.add(mailbox)
                self._more[mailbox].set()
            else:
                self._serving.add(mailbox)
                self._more[mailbox] = asyncio.Event()
                self._workers[mailbox] = self._tasks.create_task(self._work(mailbox), name="mailbox-leave")
            next_at = min([next_at, *(at for (where, _, _), at in self._full.items() if where == mailbox)])
        return next_at

    async def _work(self, mailbox: int) -> None:
        place = await self._place(mailbox)
        if place is None:
            self._serving.discard(mailbox)
            self._rest()
            return
        depositor, more = self._ways.depositor(place), self._more[mailbox]
        try:
            while True:
                more.clear()
                await self._serve(depositor, mailbox)
                if not more.is_set():
                    self._serving.discard(mailbox)
                    self._rest()
                async with asyncio.timeout(self._options.linger):
                    await more.wait()
        except TimeoutError:
            pass  # nothing to do: the next one who deposits from here is somebody else
        except MailboxError as error:
            self._rests.failed(mailbox, self._post.clock())
            await self._post.store.write(parcels.put_off, mailbox)
            if isinstance(error, TooDear):
                self._rests.at_least(mailbox, self._post.clock() + self._options.full)
            self._stirred.set()
        finally:
            self._serving.discard(mailbox)
            self._serves.pop(mailbox, None)
            self._rest()
            await depositor.rest()
            if more.is_set():
                # It came while the connection was being closed, when nobody served it any more.
                self._serving.discard(mailbox)
                self._stirred.set()

    async def _serve(self, depositor: Depositor, mailbox: int) -> None:
        """Leave and drop what there is.

        Raises:
            MailboxError: the mailbox is to be left alone for a while.
        """
        store = self._post.store
        while True:
            full = frozenset((contact, token) for where, contact, token in self._full if where == mailbox)
            parcel = await store.read(parcels.next_of, mailbox, full, self._serves.get(mailbox))
            lane = None if parcel is None else self._post.lanes.get(parcel.contact)
            if parcel is None or lane is None:
                for contact, _ in full:
                    await store.write(parcels.put_off, mailbox, contact)
                return
            if self._serves.get(mailbox) != parcel.contact:
                # As somebody else, over another connection: one depositor of two recipients would tell the mailbox that
                # they know somebody in common.
                await depositor.rest()
                self._serves[mailbox] = parcel.contact
            try:
                if parcel.dropping:
                    await depositor.drop(lane.row.public.x_pub, parcel.secret)
                    await store.write(parcels.gone, parcel.id)
                else:
                    await self._leave(depositor, lane, parcel)
            except MailboxRefused as refusal:
                await self._refused(parcel, refusal)
            self._rests.went_well(mailbox)

    async def _leave(self, depositor: Depositor, lane: Lane, parcel: Parcel) -> None:
        store = self._post.store
        # Before it leaves: once it may be there it has to be dropped when it is not wanted any more.
        if parcel.content is None or (parcel.tries == 0 and not await store.write(parcels.tried, parcel.id)):
            return
        try:
            lasts = await depositor.deposit(lane.row.public.x_pub, parcel.content, parcel.secret, parcel.token)
        except MailboxRefused as refusal:
            if refusal.reason is not Reason.STAMP_USED:
                raise
            lasts = _USED_UP
        # As the mailbox says, which may be no time at all: it would be given the same again and again, as fast as it
        # answers.
        lasts = min(max(lasts, _LEAST), _MOST)
        await store.write(parcels.kept, self._post.now(), parcel.id, self._post.now() + lasts * 1000)

    async def _refused(self, parcel: Parcel, refusal: MailboxRefused) -> None:
        reason, store = refusal.reason, self._post.store
        if parcel.dropping:
            if reason is not Reason.BAD_REQUEST:
                raise refusal
            await store.write(parcels.gone, parcel.id)
            return
        await store.write(parcels.refused, parcel.id, reason, final=reason in _FINAL)
        if reason in _OF_CONTACT:
            self._full[parcel.mailbox, parcel.contact, parcel.token] = self._post.clock() + self._options.full
        elif reason not in _FINAL:
            raise refusal


def _todos(db: Connection, copies: int) -> list[Todo]:
    # Whoever may not have heard of us needs our keys and name before all else. All of it from one snapshot: a text that
    # is written between two would go out before the introduction, and its sender would be called by an id for good.
    return [*parcels.cards(db, copies), *parcels.changes(db, copies), *parcels.texts(db, copies)]


def _concerned(db: Connection) -> bool:
    return bool(mailboxes.serial(db)) or parcels.any_places(db) or bool(owing.creditors(db))
