"""Commands for a conversation: send, listen, wake."""

import asyncio
import signal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peers.chat.commands.frame import (
    DEFAULT_TIMEOUT,
    TALK,
    Call,
    FailedThere,
    NotInTime,
    PeerArgument,
    TimeoutOption,
    UsageError,
    command,
)
from peers.chat.commands.typed import TextArgument, typed_text
from peers.chat.completion import complete_contact
from peers.chat.exits import Exit
from peers.chat.output import Lines, as_json
from peers.chat.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from peers.chat.commands.waiting import Standing
    from peers.chat.happenings import Happening
    from peers.chat.session import Session


class Wait(StrEnum):
    """How far a message shall have come when ``send`` returns."""

    STORED = "stored"
    LEFT = "left"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"


@command("send", panel=TALK)
def send(
    call: Call,
    peer: PeerArgument,
    text: TextArgument = None,
    wait: Annotated[
        Wait | None,
        typer.Option(
            "--wait",
            help="Wait until it came so far; exit status 4 if it does not in time. "
            "Without it: until it is delivered, or the contact is known to be offline.",
            show_default=False,
        ),
    ] = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> int:
    """Write to a contact. What is not delivered yet is kept, and goes out while a program of yours is connected.

    If they are offline and have mailboxes, it is left there.
    """
    words = typed_text(call, text)

    async def work(session: "Session") -> int:
        from peers.chat.commands.waiting import raise_why, standing, unwelcome_mailboxes, within
        from peers.chat.views import label, mailboxes, message_record
        from peers.store.message_rows import State

        contact = await session.contact(peer)
        message = await session.say(contact.id, words)
        reached = None
        try:
            if wait is not Wait.STORED:
                await session.carry()
                reached = await within(session, timeout, standing(message.id), _far_enough(wait))
        finally:
            now = await session.store.read(standing(message.id))
            state, offline = now.message.standing, now.offline
            if state == "left":
                state = f"left in {mailboxes(now.message.left)}"
            more = f" ({label(now.contact)} is offline)" if offline else ""
            record = {**message_record(now.message, now.contact), "peer_online": now.connected and now.contact.online}
            call.out.confirm(record, f"message {message.id} to {label(now.contact)}: {state}{more}")
            if not now.message.left:
                for refusal in await session.store.read(unwelcome_mailboxes, contact.id):
                    call.out.warn(refusal)
        # Who did not ask for more is content with a relay that has it.
        kept_there = now.message.left > 0 or now.message.state >= State.SENT
        content = wait is Wait.STORED or (wait is None and kept_there)
        if reached is None and not content:
            await raise_why(session, contact, f"message {message.id} is not {wait or Wait.SENT}", timeout)
        if now.message.state is State.FAILED:
            raise FailedThere(f"message {message.id} will not be delivered")
        return Exit.DONE

    return call.with_session(work)


@command("listen", panel=TALK)
def listen(
    call: Call,
    since: Annotated[
        int | None,
        typer.Option("--since", min=0, metavar="CURSOR", help="Begin after this event; by default, with what comes."),
    ] = None,
    peer: Annotated[
        str | None, typer.Option("--from", metavar="PEER", help="Only this one.", autocompletion=complete_contact)
    ] = None,
    mark_read: Annotated[bool, typer.Option("--mark-read", help="What was printed counts as read by you.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what you say, states, presence and the connection.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End after one message: --count 1.")] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many messages of others.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0.0, metavar="SECONDS", help="End after that time; status 4 if --count is not met."
        ),
    ] = None,
) -> int:
    """Print what others write, as it comes, and carry your messages meanwhile. Ctrl-C ends it."""
    if once and count not in (None, 1):
        raise UsageError("--once is --count 1: say one of them")
    wanted = 1 if once else count

    async def work(session: "Session") -> int:
        from peers.store import feed

        only = None if peer is None else (await session.contact(peer)).id
        after = since if since is not None else await session.store.read(feed.last)
        listener = _Listener(call, session, only=only, everything=everything, mark_read=mark_read, wanted=wanted)
        await session.carry()
        try:
            async with asyncio.timeout(timeout):
                ended_by = await session.unless_failing(_until_signal(listener.run(after)))
        except TimeoutError:
            if wanted is not None:
                raise NotInTime(f"{listener.heard} of {wanted} messages came within {timeout:g} s") from None
            return Exit.DONE
        return Exit.INTERRUPTED if ended_by is signal.SIGINT else Exit.DONE

    return call.with_session(work)


@command("wake", panel=TALK)
def wake(
    call: Call,
    peer: PeerArgument,
    ring: Annotated[bool, typer.Option("--call", help="As for a call, which rings.")] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
) -> int:
    """Have a contact's device woken by the relay's notifier, if it has one. Nobody learns whether it helped."""

    async def work(session: "Session") -> int:
        from peers.chat.commands.waiting import raise_why, within
        from peers.chat.views import label, whom
        from peers.store import jobs

        contact = await session.contact(peer)
        job = await session.store.write(jobs.add, session.now(), contact.id, "wake-call" if ring else "wake")
        await session.carry()
        if not await within(session, timeout, lambda db: not jobs.waits(db, job), bool):
            # A wake that comes an hour late is worse than none.
            await session.store.write(jobs.done, job)
            await raise_why(session, contact, "the relay was not asked to wake them", timeout)
        call.out.confirm({**whom(contact), "asked": True}, f"asked the relay to wake {label(contact)}")
        return Exit.DONE

    return call.with_session(work)


async def _until_signal(coroutine: "Coroutine[Any, Any, None]") -> "signal.Signals | None":
    """Run to the end, or until a signal asks for ours; returns that."""
    signals = Signals()
    running = asyncio.create_task(coroutine)
    told = asyncio.create_task(signals.wait())
    try:
        await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return told.result()
        running.result()
        return None
    finally:
        running.cancel()
        told.cancel()
        await asyncio.gather(running, told, return_exceptions=True)
        signals.close()


def _far_enough(wait: Wait | None) -> "Callable[[Standing], bool]":
    from peers.store.message_rows import State

    if wait is None:
        return lambda now: now.settled
    if wait is Wait.LEFT:
        return lambda now: now.message.state >= State.DELIVERED or (now.message.left > 0 and not now.leaving)
    state = State[wait.name]
    return lambda now: now.message.state >= state


class _Listener:
    """Prints what happens, until enough messages came.

    Attributes:
        heard: messages of others that were printed.
    """

    def __init__(
        self, call: Call, session: "Session", *, only: int | None, everything: bool, mark_read: bool, wanted: int | None
    ) -> None:
        self._call = call
        self._session = session
        self._only = only
        self._everything = everything
        self._mark_read = mark_read
        self._wanted = wanted
        self._lines = Lines()
        self._warned = False
        self.heard = 0

    async def run(self, after: int) -> None:
        from peers.chat import happenings

        store = self._session.store
        version = -1
        while True:
            version = await store.changed(version)
            while found := await store.read(happenings.read, after):
                for happening in found:
                    await self._take(happening)
                    if self._wanted is not None and self.heard >= self._wanted:
                        return
                after = found[-1].event.seq

    async def _take(self, happening: "Happening") -> None:
        from peers.store import messages

        self._warn_of_silence(happening)
        if self._only is not None and happening.event.contact != self._only:
            return
        if not (self._everything or happening.is_news):
            return
        out = self._call.out
        await self._lines.put(as_json(happening.record()) if out.json else happening.line())
        message = happening.message
        if message is None or not happening.is_incoming:
            return
        self.heard += 1
        if self._mark_read:
            tell = self._session.settings.read_receipts
            # This one and none before it: an older one may never have been printed.
            await self._session.store.write(
                messages.mark_read, self._session.now(), message.contact, message.id, since=message.id, tell=tell
            )

    def _warn_of_silence(self, happening: "Happening") -> None:
        """Say once that there is no connection: a command that waits in silence looks as if nobody wrote."""
        from peers.chat.text import clean_line
        from peers.store.feed import Kind

        if happening.event.kind is not Kind.CONNECTION or self._everything:
            return
        state = happening.record()
        if state["connection"] == "connected":
            self._warned = False
        elif state["connection"] == "waiting" and not self._warned:
            self._warned = True
            self._call.out.warn(f"no connection to the relay: {clean_line(state['text'])}; trying again")
