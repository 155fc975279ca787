"""The list of contacts."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from peers.chat.tui import show
from peers.chat.tui.overview import Person

if TYPE_CHECKING:
    from textual.content import Content


class PeopleList(OptionList):
    """Everybody, whoever said something last first."""

    class Chosen(Message):
        """Somebody's conversation is to be shown."""

        def __init__(self, contact: int) -> None:
            super().__init__()
            self.contact = contact

    def __init__(self) -> None:
        super().__init__(id="people", markup=False)
        self._people: list[Person] = []
        self._prompts: Sequence[Content] = ()
        self._drawn: dict[int, tuple[Person, int, date, Content]] = {}

    @property
    def order(self) -> list[int]:
        """The contacts as they are shown, from the top."""
        return [person.row.id for person in self._people]

    def show_people(self, people: Mapping[int, Person], current: int | None) -> None:
        """Show these people, and mark whose conversation is shown."""
        # Who browses the list by keyboard must not be thrown out of it by a message from somebody.
        kept = self._under_cursor if self.has_focus else current
        self._people = sorted(people.values(), key=lambda person: (-person.active_at, show.label(person.row)))
        self._draw(kept)

    def mark(self, current: int | None) -> None:
        """Mark whose conversation is shown, or with None the first, for Enter to open."""
        order = self.order
        self.highlighted = order.index(current) if current in order else (0 if order else None)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(self._people[event.option_index].row.id))

    def on_resize(self) -> None:
        self._draw(self._under_cursor)

    @property
    def _under_cursor(self) -> int | None:
        at = self.highlighted
        return None if at is None or at >= len(self._people) else self._people[at].row.id

    def _draw(self, current: int | None) -> None:
        width = self.scrollable_content_region.width - 2  # the padding of an option
        today = date.today()  # noqa: DTZ011 - local, as the user's calendar
        known, self._drawn = self._drawn, {}
        prompts = []
        for person in self._people:
            drawn = known.get(person.row.id)
            if drawn is None or drawn[0] is not person or drawn[1:3] != (width, today):
                line = show.contact_line(person.row, person.unread, person.latest, width, today)
                drawn = (person, width, today, line)
            self._drawn[person.row.id] = drawn
            prompts.append(drawn[3])
        if len(prompts) == len(self._prompts):
            for index, (prompt, before) in enumerate(zip(prompts, self._prompts, strict=True)):
                if prompt is not before:
                    self.replace_option_prompt_at_index(index, prompt)
        else:
            self.clear_options()
            self.add_options([Option(prompt) for prompt in prompts])
        self._prompts = prompts
        self.mark(current)
