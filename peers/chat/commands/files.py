"""Commands for files: file send, list, save, accept, refuse, cancel."""

import asyncio
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peers.chat.commands.frame import TALK, Call, FailedThere, PeerArgument, UsageError, app, command
from peers.chat.completion import complete_contact
from peers.chat.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peers.chat.commands.waiting import FileStanding
    from peers.chat.session import Session
    from peers.database import Database
    from peers.store import Connection
    from peers.store.contacts import ContactRow
    from peers.store.file_rows import FileRow
    from peers.store.message_rows import MessageRow

group = typer.Typer(help="Send and receive files.")
app.add_typer(group, name="file", rich_help_panel=TALK)

IdArgument = Annotated[
    int, typer.Argument(metavar="ID", min=1, help="The number of its message, as file list shows it.")
]
StayOption = Annotated[
    bool | None,
    typer.Option(
        "--wait/--no-wait",
        help="Stay until all of it arrived, or leave at once. Without either: stay, unless the contact is offline.",
        show_default=False,
    ),
]
LongTimeoutOption = Annotated[
    float | None, typer.Option("--timeout", min=0.0, metavar="SECONDS", help="Stay no longer; exit status 4 then.")
]


@command("send", group=group)
def send(
    call: Call,
    peer: PeerArgument,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="It is read while it is sent: leave it as it is.")],
    name: Annotated[str | None, typer.Option("--name", help="Another name to give it.")] = None,
    stay: StayOption = None,
    timeout: LongTimeoutOption = None,
) -> int:
    """Send a file to a contact. It moves while both sides are connected, and is resumed after breaks."""

    async def work(session: "Session") -> int:
        from peers.store import files

        contact = await session.contact(peer)
        offered = await session.store.write(files.offer, session.now(), contact.id, path, name=name)
        return await _stay(call, session, offered.message, stay, timeout)

    return call.with_session(work)


@command("list", group=group)
def list_(
    call: Call,
    peer: Annotated[
        str | None, typer.Option("--peer", help="Only with this contact.", autocompletion=complete_contact)
    ] = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that may still arrive.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many files.")] = 50,
    before: Annotated[int | None, typer.Option("--before", metavar="ID", help="Only older ones.")] = None,
) -> int:
    """List the files that were sent and received, the oldest first."""

    async def work(store: "Database") -> int:
        from peers.chat.text import clean_line
        from peers.chat.views import file_state, label, local, message_record, size
        from peers.store import contacts

        contact = None if peer is None else (await store.read(contacts.find, peer)).id
        found = await store.read(_found, contact, open_only, limit, before)
        if call.out.json:
            for file, message, row in found:
                call.out.show(message_record(message, row, file), "")
            return Exit.DONE
        heads = ["id", "time", "contact", "", "size", "state", "name"]
        call.out.table(
            heads,
            [
                [
                    str(file.message),
                    local(message.at),
                    label(row),
                    "to" if file.outgoing else "from",
                    size(file.size),
                    file_state(file),
                    clean_line(file.name),
                ]
                for file, message, row in found
            ],
        )
        return Exit.DONE

    return call.with_store(work)


@command("save", group=group)
def save(
    call: Call,
    message: IdArgument,
    to: Annotated[
        Path, typer.Argument(metavar="TO", help="A directory or a name for the copy; - writes to stdout.")
    ] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what stands there.")] = False,
) -> int:
    """Copy a received file out of the profile; into a directory under its own name, and over no other file."""

    async def work(store: "Database") -> int:
        from peers.chat.text import clean_line
        from peers.store import files

        row = await store.read(files.get, message)
        files_dir = call.profile().files_path
        if str(to) == "-":
            await asyncio.to_thread(_print_content, row, files_dir)
            return Exit.DONE
        saved = await asyncio.to_thread(files.save, row, files_dir, to, overwrite=overwrite)
        call.out.confirm({"id": message, "path": str(saved), "size": row.size}, f"saved as {clean_line(str(saved))}")
        return Exit.DONE

    return call.with_store(work)


@command("accept", group=group)
def accept(call: Call, message: IdArgument, stay: StayOption = None, timeout: LongTimeoutOption = None) -> int:
    """Take a file that waits for your yes: one that is larger than what is taken unasked."""

    async def work(session: "Session") -> int:
        from peers.store import files

        await session.store.write(files.accept, session.now(), message)
        return await _stay(call, session, message, stay, timeout)

    return call.with_session(work)


@command("refuse", group=group)
def refuse(call: Call, message: IdArgument) -> int:
    """Do not take a file, also while it comes."""
    return _end(call, message, "refuse")


@command("cancel", group=group)
def cancel(call: Call, message: IdArgument) -> int:
    """Stop a file, whoever sends it."""
    return _end(call, message, "cancel")


async def _stay(call: Call, session: "Session", message: int, stay: bool | None, seconds: float | None) -> int:
    """See a file through, print how it stands then, and return the exit status."""
    from peers.chat.commands.waiting import file_standing, raise_why, within
    from peers.chat.views import file_line, label, message_record

    def ended(now: "FileStanding") -> bool:
        show(now.file)
        return not now.file.open or (stay is None and now.offline)

    reached = None
    first = await session.store.read(file_standing(message))
    try:
        if stay is not False:
            await session.carry()
            with _progress(call, first.file) as show:
                reached = await within(session, seconds, file_standing(message), ended)
    finally:
        now = await session.store.read(file_standing(message))
        offline = f"; {label(now.contact)} is offline" if now.file.open and now.offline else ""
        way = "to" if now.file.outgoing else "from"
        record = {
            **message_record(now.message, now.contact, now.file),
            "peer_online": now.connected and now.contact.online,
        }
        call.out.confirm(record, f"message {message} {way} {label(now.contact)}: {file_line(now.file)}{offline}")
    if now.file.state == "failed":
        raise FailedThere(f"file {message} failed: {now.file.why}")
    if stay is not False and reached is None:
        await raise_why(session, now.contact, f"file {message} did not arrive", seconds or 0.0)
    return Exit.DONE


@contextmanager
def _progress(call: Call, file: "FileRow") -> "Iterator[Callable[[FileRow], None]]":
    """Show on a terminal how a file moves."""
    if call.out.json or call.out.quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=max(file.size, 1), completed=file.moved)
        yield lambda row: progress.update(task, completed=row.moved)


def _end(call: Call, message: int, how: str) -> int:
    async def work(store: "Database") -> int:
        from peers.chat.session import Session
        from peers.chat.views import file_line, message_record
        from peers.store import contacts, files, messages

        step: Callable[..., Any] = files.cancel if how == "cancel" else files.refuse
        await store.write(step, Session.now(), message)
        file, row = await store.read(files.get, message), await store.read(messages.get, message)
        contact = await store.read(contacts.get, row.contact)
        call.out.confirm(message_record(row, contact, file), f"message {message}: {file_line(file)}")
        call.out.hint("They are told while a program of this profile is connected.")
        return Exit.DONE

    return call.with_store(work)


def _found(
    db: "Connection", contact: int | None, open_only: bool, limit: int, before: int | None
) -> "list[tuple[FileRow, MessageRow, ContactRow]]":
    from peers.store import contacts, files, messages

    rows = files.list_of(db, contact, open_only=open_only, limit=limit, before=before)
    return [(row, messages.get(db, row.message), contacts.get(db, row.contact)) for row in rows]


def _print_content(row: "FileRow", files_dir: Path) -> None:
    from peers.store import files

    if sys.stdout.isatty():
        raise UsageError("what is in a file is not for a terminal: name a file or a directory")
    if not row.outgoing and row.state != "done":
        raise UsageError(f"the file of message {row.message} is not here: its state is {row.state}")
    with files.content_path(files_dir, row).open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    sys.stdout.buffer.flush()
