"""What the command palette offers: everything that can be done, and everybody whom one can write to."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from peers.chat.tui import show

if TYPE_CHECKING:
    from peers.chat.tui.screen import ChatScreen


class ChatProvider(Provider):
    """Entries that act on the conversation screen."""

    @property
    def chat(self) -> "ChatScreen":
        return cast("ChatScreen", self.screen)

    def entries(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        """Yield name, explanation and what is done."""
        raise NotImplementedError

    async def discover(self) -> Hits:
        for name, text, command in self.entries():
            yield DiscoveryHit(Content(name), command, text=name, help=text)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, text, command in self.entries():
            score = matcher.match(name)
            if score > 0:
                # Not the matcher's highlight: that reads names as markup, and people choose their own.
                yield Hit(score, Content(name), command, text=name, help=text)


class PeopleProvider(ChatProvider):
    """Everybody."""

    def entries(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        for person in self.chat.people_in_order():
            unread = f", {person.unread} unread" if person.unread else ""
            there = "online" if person.row.online else "not online"
            yield (
                show.label(person.row),
                f"{person.row.trust}, {there}{unread}",
                partial(self.chat.go_to, person.row.id),
            )


class ActionsProvider(ChatProvider):
    """All actions."""

    def entries(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        return self.chat.commands()
