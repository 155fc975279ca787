"""Commands for mailboxes: mailbox add, list, remove, status, token."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keys.invite import MailboxCard
from peers.chat.commands.frame import DEFAULT_TIMEOUT, PROFILE, Call, NotInTime, TimeoutOption, UsageError, app, command
from peers.chat.commands.typed import TokenFileOption, TokenOption, typed_token
from peers.chat.exits import Exit
from peers.chat.text import clean_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from peers.chat.session import Session
    from peers.database import Database
    from peers.store import Connection
    from peers.store.mailboxes import OwnMailbox

group = typer.Typer(help="Have your post kept for you while you are offline.")
app.add_typer(group, name="mailbox", rich_help_panel=PROFILE)

_TOLD: Final = "Contacts learn of it once a program of theirs and one of yours are connected together."
MailboxArgument = Annotated[
    str, typer.Argument(metavar="MAILBOX", help="Its number, as mailbox list shows it, its address, or its card.")
]


@command("add", group=group)
def add(
    call: Call,
    card: Annotated[str, typer.Argument(metavar="CARD", help="M0…, which the operator of the mailbox gives out.")],
    token_file: TokenFileOption = None,
    token: TokenOption = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> int:
    """Have others leave their messages for you in a mailbox. Your contacts are told of it when they come online.

    Who runs it sees whom post is waiting for, and when you pick it up; not from whom, and not what is in it.
    """
    parsed = MailboxCard.parse(card)
    shown = typed_token(token_file) if token or token_file is not None else b""

    async def work(session: "Session") -> int:
        from peers.carrier.options import MailOptions
        from peers.store import mailboxes

        own = await session.store.write(mailboxes.add_own, session.now(), parsed, shown)
        await _confirm(call, session, own, timeout)
        if parsed.url.startswith(("http://", "ws://")):
            call.out.warn("its address has no TLS: whoever sits between can see that you pick up, and withhold it")
        ours = await session.store.read(mailboxes.own)
        if any(each.card.public == own.card.public for each in ours if each.id != own.id):
            call.out.warn("you have it by another address already: it is one mailbox, in two of the three places")
        if own.id not in [each.id for each in ours[: MailOptions().copies]]:
            call.out.hint("Others leave things in your first three alone; this one is looked into all the same.")
        call.out.hint(_TOLD)
        return Exit.DONE

    return call.with_session(work)


@command("token", group=group)
def token(
    call: Call,
    mailbox: MailboxArgument,
    token_file: TokenFileOption = None,
    none: Annotated[bool, typer.Option("--none", help="The mailbox asks for none any more.")] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> int:
    """Set the token that a mailbox of yours asks depositors for; without FILE it is asked for at the terminal.

    Your contacts are told it, sealed, and show it when they leave something for you. Whoever was told the one before
    knows that still: its operator revokes it.
    """
    if none and token_file is not None:
        raise UsageError("--none takes the token away, and --token-file sets one: say one of them")
    shown = b"" if none else typed_token(token_file)

    async def work(session: "Session") -> int:
        from peers.store import mailboxes

        own = await session.store.read(mailboxes.find_own, mailbox)
        own = await session.store.write(mailboxes.set_token, session.now(), own.id, shown)
        await session.store.write(mailboxes.ask, session.now())
        await _confirm(call, session, own, timeout)
        call.out.hint(_TOLD)
        return Exit.DONE

    return call.with_session(work)


@command("list", group=group)
def list_(call: Call) -> int:
    """List your mailboxes."""

    async def work(store: "Database") -> int:
        from peers.store import mailboxes

        _print(call, await store.read(mailboxes.own))
        return Exit.DONE

    return call.with_store(work)


@command("remove", group=group)
def remove(call: Call, mailbox: MailboxArgument) -> int:
    """Use a mailbox no longer. What still lies there is not picked up; your contacts are told when they come online."""

    async def work(store: "Database") -> int:
        from peers.chat.session import Session
        from peers.chat.views import mailbox_record
        from peers.store import mailboxes

        own = await store.read(mailboxes.find_own, mailbox)
        await store.write(mailboxes.remove_own, Session.now(), own.id)
        call.out.confirm({**mailbox_record(own), "removed": True}, f"removed mailbox {own.id}")
        return Exit.DONE

    return call.with_store(work)


@command("status", group=group)
def status(call: Call, timeout: TimeoutOption = DEFAULT_TIMEOUT) -> int:
    """Look into your mailboxes now, pick up what is there, and tell how they stand.

    The exit status is 4 if one of them could not be looked into; all are listed.
    """

    async def work(session: "Session") -> int:
        from peers.chat.commands.waiting import unwelcome_mailboxes
        from peers.store import mailboxes

        await session.store.write(mailboxes.ask, session.now())
        one = await _looked(session, timeout, mailboxes.own)
        ours = await session.store.read(mailboxes.own)
        _print(call, ours, await _admissions(session, ours, timeout))
        for text in await session.store.read(unwelcome_mailboxes):
            call.out.warn(text)
        if ours and one is None:
            raise NotInTime(f"not all mailboxes were looked into within {timeout:g} s: is there a connection?")
        if closed := [str(own.id) for own in ours if own.trouble]:
            raise NotInTime(f"could not look into mailbox {', '.join(closed)}: the list tells why")
        return Exit.DONE

    return call.with_session(work)


async def _confirm(call: Call, session: "Session", own: "OwnMailbox", seconds: float) -> None:
    """Have a mailbox looked into, and print how it stands."""
    from peers.store import mailboxes

    wrong: dict[int, str] = {}
    try:
        own = await _looked(session, seconds, lambda db: [mailboxes.get_own(db, own.id)]) or own
        wrong = await _admissions(session, [own], seconds)
    finally:
        if own.token and own.card.url.startswith("http://"):
            call.out.warn("its address has no TLS: whoever sits between a contact and it can read the token")
        call.out.confirm(_record(own, wrong), f"mailbox {own.id} at {clean_line(own.card.url)}: {_state(own, wrong)}")


async def _admissions(session: "Session", ours: "list[OwnMailbox]", seconds: float) -> dict[int, str]:
    """Try, of those that answered, whether they take the tokens that contacts are told."""
    from peers.chat.check_mailboxes import admissions
    from peers.client import ClientOptions
    from peers.dropping import DroppingOptions

    answering = [own for own in ours if own.looked_at is not None and not own.trouble]
    client = ClientOptions(token=await asyncio.to_thread(session.profile.read_token))
    return await admissions(answering, session.settings.relay, client, DroppingOptions(timeout=max(seconds, 0.001)))


async def _looked(
    session: "Session", seconds: float, read: "Callable[[Connection], list[OwnMailbox]]"
) -> "OwnMailbox | None":
    """Have mailboxes looked into, and return the first of them when that is done; None if it is not in time."""
    from peers.chat.commands.waiting import within

    await session.carry()
    done = await within(session, seconds, read, lambda ours: all(own.asked_at <= own.tried_at for own in ours))
    return done[0] if done else None


def _print(call: Call, ours: "list[OwnMailbox]", wrong: dict[int, str] | None = None) -> None:
    from peers.chat.views import local

    wrong = wrong or {}
    for own in ours if call.out.json else ():
        call.out.show(_record(own, wrong), "")
    if not call.out.json:
        rows = [
            [
                str(own.id),
                clean_line(own.card.url),
                "never" if own.looked_at is None else local(own.looked_at),
                str(own.picked),
                str(own.refused),
                _state(own, wrong),
            ]
            for own in ours
        ]
        call.out.table(["mailbox", "address", "looked into", "picked up", "refused", "state"], rows)
        if not ours:
            call.out.hint("There is none yet: blindrelay-chat mailbox add M0…")


def _record(own: "OwnMailbox", wrong: dict[int, str]) -> dict[str, Any]:
    from peers.chat.views import mailbox_record

    asked = {"admission": wrong[own.id] or None} if own.id in wrong else {}
    return {**mailbox_record(own), **asked}


def _state(own: "OwnMailbox", wrong: dict[int, str]) -> str:
    if own.trouble or wrong.get(own.id):
        return clean_line(own.trouble or wrong[own.id])
    return "not looked into yet" if own.looked_at is None else "ok"
