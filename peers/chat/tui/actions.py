"""What can be done: each action by its name, for keys, the command palette and the menu of a message."""

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from textual.content import Content

from keys.errors import BadInvite
from keys.invite import Invite
from keys.safety import grouped, safety_number
from peers.chat.text import clean
from peers.chat.tui import pages, show
from peers.chat.tui.dialogs import EXPECTED, Dialog, Menu, Prompt, Reader, Sheet, T
from peers.chat.tui.files import Files
from peers.chat.tui.help import HELP
from peers.chat.tui.invite import InviteSheet
from peers.chat.tui.search import SearchDialog
from peers.store import Connection, contacts, jobs, messages
from peers.store.contacts import ContactRow
from peers.store.message_rows import MessageRow

if TYPE_CHECKING:
    from peers.chat.tui.screen import ChatScreen


@dataclass(frozen=True, slots=True)
class Action:
    """Something that the command palette offers.

    Attributes:
        name: as it is searched for.
        text: what it does.
        needs: whether it needs a conversation to be open.
    """

    name: str
    text: str
    needs: bool = True


ACTIONS: Final = {
    "add": Action("Add a contact", "By their invite. Ctrl+N", needs=False),
    "invite": Action("My invite", "As text and as QR code. F3", needs=False),
    "search": Action("Search", "Through all that was said. Ctrl+F", needs=False),
    "contacts": Action("Contacts", "Go to the list. F2", needs=False),
    "help": Action("Keys", "What the keys do. F1", needs=False),
    "send_file": Action("Send a file", "To this contact. Ctrl+O"),
    "verify": Action("Verify", "Compare safety numbers with this contact. F4"),
    "rename": Action("Rename", "Call this contact something else"),
    "block": Action("Block or unblock", "Take nothing from this contact any more, or again"),
    "remove": Action("Remove contact", "With all that was said; asks first"),
    "wake": Action("Wake", "Have the relay send a push to this contact"),
    "edit_last": Action("Edit my last message", "Up in the empty composer"),
    "newest": Action("Newest messages", "Go to the end of the conversation. End"),
}


class Actions:
    """See the module. Where something cannot be done, the screen says why."""

    def __init__(self, chat: "ChatScreen") -> None:
        self._chat = chat
        self._session = chat.session
        self._store = chat.session.store
        self._files = Files(chat.session, self._show, chat.tell)
        self.bodies = self._files.bodies

    def run(self, name: str) -> None:
        """Start an action, if it can be done now."""
        if ACTIONS[name].needs and self._chat.person is None:
            self._chat.tell("Choose a contact first")
            return
        self._start(getattr(self, f"_{name}")())

    def commands(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        """Yield name, explanation and what is done, of all that can be done now."""
        for name, action in ACTIONS.items():
            if not action.needs or self._chat.person is not None:
                yield action.name, action.text, partial(self.run, name)

    def on_message(self, action: str, row: MessageRow) -> None:
        """Do something with a message."""
        self._start(self._on_message(action, row))

    # --- People -------------------------------------------------------------------------------------------------------

    async def _add(self) -> None:
        added: list[ContactRow] = []

        async def add(text: str) -> None:
            invite = Invite.parse(text)
            if invite.public == self._session.keys.identity.public:
                raise BadInvite("this is your own invite: give it to others, and paste theirs here")
            added.append(await self._store.write(_add, self._session.now(), invite))

        body = "Paste their invite (K0…), or a link with peer=K0… in it. They are told your keys and your name."
        await self._show(Prompt("Add a contact", add, body=body))
        if added:
            await self._chat.added(added[0].id)

    async def _invite(self) -> None:
        await self._show(InviteSheet(self._session.keys))

    async def _verify(self) -> None:
        row = self._person
        number = grouped(safety_number(self._session.keys.identity.public, row.public)).split(" ")
        lines = "\n".join("   ".join(number[i : i + 4]) for i in range(0, len(number), 4))
        body = Content.assemble(
            "Read this number to each other where nobody can pretend to be one of you: face to face, or in a call"
            " in which you know the voice. All of it must be the same on both sides.\n\n",
            (lines, "bold"),
            f"\n\nNow: {row.trust}",
        )
        choices = [("same", "It is the same: mark as verified"), ("differs", "It differs")]
        if row.verified:
            choices = [("undo", "I am not sure any more: take the mark back"), ("keep", "Leave it as it is")]
        chosen = await self._show(Menu(_about("Verify ", row), choices, body))
        if chosen == "same":
            await self._store.write(contacts.set_verified, self._session.now(), row.id, verified=True)
        elif chosen in ("undo", "differs"):
            await self._store.write(contacts.set_verified, self._session.now(), row.id, verified=False)
        if chosen == "differs":
            text = (
                "Somebody may stand between you two, or one of you has added old keys. Say nothing here that must stay"
                " secret. Exchange invites by a way that you trust, remove the contact and add it anew."
            )
            await self._show(Sheet("The numbers differ", Content(text)))

    async def _rename(self) -> None:
        row = self._person

        async def rename(text: str) -> None:
            await self._store.write(contacts.rename, self._session.now(), row.id, text)

        await self._show(Prompt(_about("Rename ", row), rename, value=row.label))

    async def _block(self) -> None:
        row = self._person
        if not row.blocked:
            body = "Nothing is taken from them any more, and nothing sent to them. They are not told."
            if await self._show(Menu(_about("Block ", row), [("yes", "Block"), ("no", "Do not")], body)) != "yes":
                return
        await self._store.write(contacts.set_blocked, self._session.now(), row.id, blocked=not row.blocked)

    async def _remove(self) -> None:
        row = self._person
        body = "The contact and all that was said are removed here, for good. They keep what they have."
        if await self._show(Menu(_about("Remove ", row), [("no", "Keep"), ("yes", "Remove")], body)) == "yes":
            await self._store.write(contacts.remove, self._session.now(), row.id)

    async def _wake(self) -> None:
        row = self._person
        await self._store.write(jobs.add, self._session.now(), row.id, "wake")
        self._chat.tell("A push is asked for, as soon as there is a connection")

    # --- Messages -----------------------------------------------------------------------------------------------------

    async def _on_message(self, action: str, row: MessageRow) -> None:
        if action == "menu":
            choices = [*await self._files.choices(row), *_choices(row)] if row.kind == "file" else list(_choices(row))
            chosen = await self._show(Menu("This message", choices))
            if chosen is None:
                return
            action = chosen
        if action == "edit" and pages.editable(row):
            self._chat.edit(row)
        elif action == "copy" and row.deleted_at is None:
            # Cleaned too: what is pasted into a shell must not be more than what was seen.
            self._chat.app.copy_to_clipboard(clean(row.text))
            self._chat.tell("copied, if the terminal allows it")
        elif action == "delete" and row.deleted_at is None:
            await self._delete(row)
        elif row.kind == "file" and row.deleted_at is None and await self._files.act(action, row):
            return
        elif action == "all" and row.deleted_at is None:
            await self._show(Reader(f"{show.clock(row.at)}, all of it", show.shown_text(row.text)))

    async def _delete(self, row: MessageRow) -> None:
        choices = [("here", "Delete here"), ("no", "Keep")]
        body = "What they wrote stays with them."
        if row.outgoing:
            choices.insert(0, ("both", "Delete for both"))
            body = "For both: their program is asked to delete it. What they have read or copied cannot be taken back."
        chosen = await self._show(Menu("Delete this message?", choices, body))
        if chosen in ("both", "here"):
            await self._store.write(messages.delete, self._session.now(), row.id, for_both=chosen == "both")

    async def _send_file(self) -> None:
        row = self._person
        await self._files.send(row.id, show.label(row))

    async def _edit_last(self) -> None:
        row = await self._store.read(pages.last_of_ours, self._person.id)
        if row is None:
            self._chat.tell("Nothing of yours to edit among the last messages")
        else:
            self._chat.edit(row)

    async def _newest(self) -> None:
        await self._chat.conversation.to_end()

    async def _search(self) -> None:
        names = {contact: show.label(person.row) for contact, person in self._chat.people.items()}
        found = await self._show(SearchDialog(self._store, names, self._chat.current))
        if found is not None:
            await self._chat.go_to(*found)

    # --- The rest -----------------------------------------------------------------------------------------------------

    async def _contacts(self) -> None:
        self._chat.action_contacts()

    async def _help(self) -> None:
        await self._show(Sheet("Keys", HELP))

    @property
    def _person(self) -> ContactRow:
        person = self._chat.person
        if person is None:
            raise RuntimeError("no conversation is open")
        return person.row

    async def _show(self, dialog: Dialog[T]) -> T | None:
        return await self._chat.app.push_screen_wait(dialog)

    def _start(self, action: Coroutine[None, None, None]) -> None:
        async def run() -> None:
            try:
                await action
            except EXPECTED as error:
                self._chat.report(error)

        self._chat.run_worker(run(), group="action")


def _add(db: Connection, now: int, invite: Invite) -> ContactRow:
    row = contacts.add(db, now, invite.public, nickname=invite.nickname)
    jobs.add(db, now, row.id, "introduce")
    return row


def _about(words: str, row: ContactRow) -> Content:
    return Content.assemble(words, (show.label(row), "bold"))


def _choices(row: MessageRow) -> Iterator[tuple[str, str]]:
    if row.deleted_at is None:
        if show.is_long(row.text):
            yield "all", "Show all of it"
        yield "copy", "Copy text  (c)"
        if pages.editable(row):
            yield "edit", "Edit  (e)"
        yield "delete", "Delete…  (d)"
    yield "nothing", "Nothing"
