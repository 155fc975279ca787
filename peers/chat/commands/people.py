"""Commands about contacts: add, contacts, verify, rename, remove, block, unblock."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keys.invite import Invite, MailboxCard
from keys.safety import grouped, parse_safety_number, safety_number
from peers.chat.commands.frame import (
    DEFAULT_TIMEOUT,
    PEOPLE,
    Call,
    FailedThere,
    PeerArgument,
    TimeoutOption,
    UsageError,
    command,
)
from peers.chat.commands.typed import TokenFileOption, TokenOption, typed_token
from peers.chat.commands.yourself import is_carried
from peers.chat.exits import Exit
from peers.chat.text import clean_line

if TYPE_CHECKING:
    from peers.chat.session import Session
    from peers.database import Database
    from peers.store import Connection
    from peers.store.contacts import ContactRow
    from peers.store.message_rows import MessageRow

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command("add", panel=PEOPLE)
def add(
    call: Call,
    invite: Annotated[str, typer.Argument(metavar="INVITE", help="K0…, or a link that carries one; - reads stdin.")],
    name: Annotated[str | None, typer.Option("--label", help="What you call them; by default what they do.")] = None,
    mailbox: Annotated[
        list[str] | None,
        typer.Option("--mailbox", metavar="M0…", help="A mailbox of theirs, as they told you; may be given again."),
    ] = None,
    token_file: TokenFileOption = None,
    token: TokenOption = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> int:
    """Add a contact by their invite, and introduce yourself to them.

    A token is that of the one --mailbox beside it. Of several mailboxes with tokens, add one after the other.
    """
    asks = token or token_file is not None
    if asks and len(mailbox or ()) != 1:
        raise UsageError("a token goes with one --mailbox: add the contact again for each further one")
    if token_file == "-" and invite == "-":  # noqa: S105 - where it stands
        raise UsageError("the invite and the token cannot both be read from stdin")
    parsed = Invite.parse(sys.stdin.read(65536) if invite == "-" else invite)
    cards = [MailboxCard.parse(each) for each in mailbox or ()]
    shown = typed_token(token_file) if asks else b""

    async def work(session: "Session") -> int:
        from peers.chat.commands.waiting import within
        from peers.chat.views import contact_record, label
        from peers.store import contacts, jobs, mailboxes

        ours = session.keys.identity.public
        if parsed.public.x_pub == ours.x_pub or parsed.public.ed_pub == ours.ed_pub:
            raise UsageError("this is your own invite: others add you by it")
        row = await session.store.write(
            contacts.add, session.now(), parsed.public, nickname=parsed.nickname, label=name, origin="invite"
        )
        for card in cards:
            await session.store.write(mailboxes.set_first, row.id, card, shown)
        if shown and cards[0].url.startswith("http://"):
            call.out.warn("the mailbox's address has no TLS: whoever sits between you and it can read the token")
        sent = row.knows_us
        try:
            if not sent:
                job = await session.store.write(jobs.add, session.now(), row.id, "introduce")
                await session.carry()
                sent = bool(await within(session, timeout, lambda db: not jobs.waits(db, job), bool))
        finally:
            introduction = "sent" if sent else "waiting"
            call.out.confirm(
                {**contact_record(row), "introduction": introduction},
                f"added {label(row)} ({row.trust}); introduction {introduction}",
            )
        if not row.knows_us:
            call.out.hint(
                "They have it once a program of theirs and one of yours (open, listen) are connected together."
            )
        if not row.verified:
            call.out.hint("Compare safety numbers by a way that you trust: blindrelay-chat verify PEER")
        return Exit.DONE

    return call.with_session(work)


@command("contacts", panel=PEOPLE)
def contacts_(call: Call) -> int:
    """List your contacts: how far their keys can be trusted, who is online, what is unread, what was said last."""
    carried = is_carried(call.profile())

    async def work(store: "Database") -> int:
        everybody = await store.read(_everybody)
        for row, unread, last in everybody if call.out.json else ():
            call.out.show(_record(row, unread, last, carried), "")
        if not call.out.json:
            heads = ["contact", "trust", "presence", "unread", "last message"]
            call.out.table(heads, [_cells(row, unread, last, carried) for row, unread, last in everybody])
            if not everybody:
                call.out.hint("There is nobody yet: blindrelay-chat add K0…")
        return Exit.DONE

    return call.with_store(work)


@command("verify", panel=PEOPLE)
def verify(
    call: Call,
    peer: PeerArgument,
    number: Annotated[
        str | None,
        typer.Option("--number", metavar="DIGITS", help="The safety number as they see it: compare it here."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="You have compared it, and it is the same.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Do not believe in it any more.")] = False,
) -> int:
    """Show the safety number that you and a contact have in common, and note that you compared it.

    It is the same on both sides if nobody stands in between. Compare it face to face or by a call, not by messages.
    """
    if undo and (yes or number is not None):
        raise UsageError("--undo goes with neither --yes nor --number")
    told = None if number is None else parse_safety_number(number)
    if number is not None and told is None:
        raise UsageError("a safety number has 60 digits: give the whole of it")

    async def work(session: "Session") -> int:
        from peers.chat.views import label, whom
        from peers.store import contacts

        row = await session.contact(peer)
        ours = safety_number(session.keys.identity.public, row.public)
        if told is not None and told != ours:
            raise FailedThere(
                f"the safety numbers differ: what you say to {label(row)} may be read by somebody in between."
                " Ask for their invite again by a way that you trust"
            )
        if not undo and not call.out.json:
            print("\n".join(grouped(ours[at : at + 20]) for at in range(0, len(ours), 20)))
        same: bool | None = False if undo else True if yes or told is not None else None
        if same is None and not row.verified:
            same = call.out.ask(f"Does {label(row)} see the same number?") or None
        if same is not None:
            await session.store.write(contacts.set_verified, session.now(), row.id, verified=same)
            row = await session.store.read(contacts.get, row.id)
        record = {**whom(row), "safety_number": ours, "verified": row.verified, "trust": row.trust}
        call.out.confirm(record, f"{label(row)} is {row.trust}")
        return Exit.DONE

    return call.with_session(work)


@command("rename", panel=PEOPLE)
def rename(call: Call, peer: PeerArgument, label: Annotated[str, typer.Argument(help="The new label.")]) -> int:
    """Give a contact another label; they do not learn of it."""
    return _change(call, peer, "rename", label)


@command("block", panel=PEOPLE)
def block(call: Call, peer: PeerArgument) -> int:
    """Take nothing from a contact any more; they do not learn of it."""
    return _change(call, peer, "block")


@command("unblock", panel=PEOPLE)
def unblock(call: Call, peer: PeerArgument) -> int:
    """Take messages from a contact again; what they sent meanwhile comes when their program sends it again."""
    return _change(call, peer, "unblock")


@command("remove", panel=PEOPLE)
def remove(call: Call, peer: PeerArgument, yes: YesOption = False) -> int:
    """Remove a contact with all that was said. They can introduce themselves again: block those who must not."""

    async def work(store: "Database") -> int:
        from peers.chat.session import Session
        from peers.chat.views import label, whom
        from peers.store import contacts

        row = await store.read(contacts.find, peer)
        if not yes:
            answer = call.out.ask(f"Remove {label(row)} and all that was said with them?")
            if answer is None:
                raise UsageError("there is no terminal to ask; say --yes")
            if not answer:
                call.out.hint("Nothing was removed.")
                return Exit.DONE
        await store.write(contacts.remove, Session.now(), row.id)
        call.out.confirm({**whom(row), "removed": True}, f"removed {label(row)}")
        return Exit.DONE

    return call.with_store(work)


def _change(call: Call, peer: str, what: str, name: str = "") -> int:
    async def work(store: "Database") -> int:
        from peers.chat.session import Session
        from peers.chat.views import contact_record, label
        from peers.store import contacts

        row = await store.read(contacts.find, peer)
        now = Session.now()
        if what == "rename":
            await store.write(contacts.rename, now, row.id, name)
        else:
            await store.write(contacts.set_blocked, now, row.id, blocked=what == "block")
        new = await store.read(contacts.get, row.id)
        text = f"{label(row)} is now {label(new)}" if what == "rename" else f"{what}ed {label(new)}"
        call.out.confirm(contact_record(new), text)
        return Exit.DONE

    return call.with_store(work)


def _everybody(db: "Connection") -> "list[tuple[ContactRow, int, MessageRow | None]]":
    from peers.store import contacts, messages

    unread, last = messages.unread(db), messages.latest(db)
    return [(row, unread.get(row.id, 0), last.get(row.id)) for row in contacts.everyone(db)]


def _record(row: "ContactRow", unread: int, last: "MessageRow | None", carried: bool) -> dict[str, Any]:
    from peers.chat.views import contact_record, message_record

    return {
        **contact_record(row),
        "online": row.online and carried,  # of a killed carrier something stale may stand there
        "unread": unread,
        "last_message": None if last is None else message_record(last, row),
    }


def _cells(row: "ContactRow", unread: int, last: "MessageRow | None", carried: bool) -> list[str]:
    from peers.chat.views import label, local, preview

    presence = "online" if row.online and carried else "" if row.seen_at is None else f"seen {local(row.seen_at)}"
    trust = "blocked" if row.blocked else row.trust
    return [label(row), trust, clean_line(presence), str(unread or ""), preview(last)]
