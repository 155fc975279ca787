"""Dialogs that ask one thing or show one thing. Escape leaves each of them and changes nothing."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, TypeVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static, TextArea
from textual.widgets.option_list import Option

from keys.errors import KeysError
from peers.database import DatabaseError
from peers.profile import ProfileError
from peers.store.errors import StoreError

T = TypeVar("T")

EXPECTED = (StoreError, KeysError, DatabaseError, ProfileError, OSError)
"""What a user's action may raise without anything being wrong with the program: its text is for them."""


def reason(error: Exception) -> str:
    """Return what to tell the user of one of :data:`EXPECTED`."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


class Dialog(ModalScreen[T]):
    """A box over the screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave", show=False)]

    def action_leave(self) -> None:
        self.dismiss(None)


class Menu(Dialog[str]):
    """Some choices, of which one is taken.

    Args:
        title: what it is about.
        choices: what is returned, and what is shown.
        body: what there is to say first.
    """

    def __init__(self, title: str | Content, choices: Sequence[tuple[str, str]], body: str | Content = "") -> None:
        super().__init__(classes="dialog")
        self._title, self._choices, self._body = title, choices, body

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._title, classes="title", markup=False)
            if self._body:
                with VerticalScroll(classes="body", can_focus=False):
                    yield Static(self._body, markup=False)
            yield OptionList(*(Option(text, id=name) for name, text in self._choices), markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)


class Prompt(Dialog[str]):
    """A line of text.

    Args:
        title: what is asked.
        body: what there is to say first.
        value: what stands there.
        done: what is done with the text; what it raises of :data:`EXPECTED` is shown, and the dialog stays.
    """

    def __init__(
        self, title: str | Content, done: Callable[[str], Awaitable[None]], *, body: str = "", value: str = ""
    ) -> None:
        super().__init__(classes="dialog")
        self._title, self._body, self._value, self._done = title, body, value, done

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._title, classes="title", markup=False)
            if self._body:
                yield Static(self._body, markup=False)
            yield Input(self._value)
            yield Static("", classes="error", markup=False)

    @work(exclusive=True)
    async def on_input_submitted(self, event: Input.Submitted) -> None:
        error = self.query_one(".error", Static)
        try:
            await self._done(event.value)
        except EXPECTED as refused:
            error.update(reason(refused))
        else:
            self.dismiss(event.value)


class Sheet(Dialog[None]):
    """Something to read.

    Args:
        title: what it is.
        body: the content.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,enter", "leave", "leave", show=False)]

    def __init__(self, title: str | Content, body: Content) -> None:
        super().__init__(classes="dialog")
        self._title, self._body = title, body

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(self._title, classes="title", markup=False)
            with VerticalScroll(classes="body"):
                yield Static(self._body, markup=False)
            yield Static("Esc: back", classes="keys", markup=False)


class Reader(Dialog[None]):
    """A long text, of which only what is seen is drawn. The text must be clean."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "leave", "leave", show=False)]

    def __init__(self, title: str | Content, text: str) -> None:
        super().__init__(classes="dialog")
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box full"):
            yield Static(self._title, classes="title", markup=False)
            yield TextArea(self._text, read_only=True, soft_wrap=True, tab_behavior="focus", classes="reader")
            yield Static("Esc: back", classes="keys", markup=False)
