"""Commands about what was said: history, search, edit, delete."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from peers.chat.commands.frame import (
    DEFAULT_TIMEOUT,
    TALK,
    Call,
    PeerArgument,
    TimeoutOption,
    command,
)
from peers.chat.commands.typed import TextArgument, typed_text
from peers.chat.completion import complete_contact
from peers.chat.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peers.chat.session import Session
    from peers.database import Database
    from peers.store import Connection
    from peers.store.contacts import ContactRow
    from peers.store.message_rows import MessageRow

IdArgument = Annotated[int, typer.Argument(metavar="ID", min=1, help="The number of a message, as history shows it.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many messages.")]
BeforeOption = Annotated[int | None, typer.Option("--before", metavar="ID", help="Only older ones than this message.")]

_ANSWER: Final = 3.0
"""Seconds within which a program that acknowledges changes has done so."""


@command("history", panel=TALK)
def history(
    call: Call,
    peer: PeerArgument,
    limit: LimitOption = 50,
    before: BeforeOption = None,
    mark_read: Annotated[bool, typer.Option("--mark-read", help="They count as read by you then.")] = False,
) -> int:
    """Show what was said with a contact, the oldest first."""

    async def work(store: "Database") -> int:
        from peers.chat.session import Session
        from peers.store import contacts, messages

        row = await store.read(contacts.find, peer)
        found = await store.read(messages.history, row.id, before=before, limit=limit)
        await _print(call, store, [(message, row) for message in found])
        if mark_read and found:
            tell = call.profile().settings().read_receipts
            first, last = found[0].id, found[-1].id
            await store.write(messages.mark_read, Session.now(), row.id, last, since=first, tell=tell)
        return Exit.DONE

    return call.with_store(work)


@command("search", panel=TALK)
def search(
    call: Call,
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="All of them, or beginnings of them.")],
    peer: Annotated[
        str | None, typer.Option("--peer", help="Only with this contact.", autocompletion=complete_contact)
    ] = None,
    limit: LimitOption = 50,
    before: BeforeOption = None,
) -> int:
    """Find messages, the newest first."""

    async def work(store: "Database") -> int:
        from peers.store import contacts, messages

        contact = None if peer is None else (await store.read(contacts.find, peer)).id
        found = await store.read(messages.search, " ".join(words), contact=contact, limit=limit, before=before)
        rows = {row.id: row for row in await store.read(contacts.everyone)}
        pairs = [(message, rows[message.contact]) for message in found if message.contact in rows]
        await _print(call, store, pairs, named=True)
        return Exit.DONE

    return call.with_store(work)


@command("edit", panel=TALK)
def edit(call: Call, message: IdArgument, text: TextArgument = None, timeout: TimeoutOption = DEFAULT_TIMEOUT) -> int:
    """Give a text of yours other words, here and at its recipient."""
    words = typed_text(call, text)

    def write(db: "Connection", now: int) -> None:
        from peers.store import messages

        messages.edit(db, now, message, words)

    return _tell(call, message, write, timeout)


@command("delete", panel=TALK)
def delete(
    call: Call,
    message: IdArgument,
    for_both: Annotated[
        bool, typer.Option("--for-both/--here", help="At its recipient too (yours only), or only here.")
    ] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> int:
    """Delete a message. Its recipient's program is asked to do the same; whether it does is up to them."""

    def write(db: "Connection", now: int) -> None:
        from peers.store import messages

        messages.delete(db, now, message, for_both=for_both)

    return _tell(call, message, write, timeout) if for_both else _delete_here(call, message, write)


def _delete_here(call: Call, message: int, write: "Callable[[Connection, int], None]") -> int:
    async def work(store: "Database") -> int:
        from peers.chat.session import Session

        await store.write(write, Session.now())
        await _confirm(call, store, message, told=None)
        return Exit.DONE

    return call.with_store(work)


def _tell(call: Call, message: int, write: "Callable[[Connection, int], None]", timeout: float) -> int:
    """Write a change, and carry it as far as can be; it is kept, so that what is not told now is no failure."""

    async def work(session: "Session") -> int:
        from peers.chat.commands.waiting import standing, within

        await session.store.write(write, session.now())
        now = await session.store.read(standing(message))
        if now.untold is not None or now.leaving:
            await session.carry()
            # Telefon does not acknowledge changes: once it is sent, the answer comes soon or never.
            await within(
                session,
                timeout,
                standing(message),
                lambda reached: reached.told or (bool(reached.untold) and not reached.leaving),
            )
            await within(session, min(timeout, _ANSWER), standing(message), lambda reached: reached.told)
            now = await session.store.read(standing(message))
        await _confirm(call, session.store, message, told=now.untold is None)
        return Exit.DONE

    return call.with_session(work)


async def _confirm(call: Call, store: "Database", message: int, *, told: bool | None) -> None:
    from peers.chat.views import message_record
    from peers.store import contacts, messages

    row = await store.read(messages.get, message)
    contact = await store.read(contacts.get, row.contact)
    done = "deleted" if row.deleted_at is not None else "changed"
    where = {None: "here", True: "at both sides", False: "here; the other side is told when they come"}[told]
    call.out.confirm({**message_record(row, contact), "told": bool(told)}, f"{done} {where}")


async def _print(
    call: Call, store: "Database", pairs: "Sequence[tuple[MessageRow, ContactRow]]", *, named: bool = False
) -> None:
    from peers.chat.happenings import file_of
    from peers.chat.views import message_line, message_record

    found = await store.read(lambda db: [file_of(db, message) for message, _ in pairs])
    for (message, contact), file in zip(pairs, found, strict=True):
        call.out.show(message_record(message, contact, file), message_line(message, contact, file, named=named))
