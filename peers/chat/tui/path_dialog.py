"""A dialog for a path on this machine, completed by Tab."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, Final

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from peers.chat.text import clean_line
from peers.chat.tui.dialogs import EXPECTED, Dialog, reason

_SHOWN: Final = 200


def complete(text: str, *, directories: bool = False) -> list[str]:
    """Return the paths that begin as `text` does, directories with a slash at the end; blocks.

    Hidden ones are left out unless asked for by a dot. What cannot be read has no entries.
    """
    expanded = os.path.expanduser(text)  # noqa: PTH111 - a Path would lose the slash at the end
    base, beginning = os.path.split(expanded)
    found: list[tuple[bool, str]] = []
    try:
        with os.scandir(base or ".") as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not beginning.startswith(".")
                if hidden or not entry.name.startswith(beginning):
                    continue
                is_directory = entry.is_dir()
                if is_directory or not directories:
                    found.append((not is_directory, os.path.join(base, entry.name) + "/" * is_directory))  # noqa: PTH118
    except (OSError, ValueError):
        return []
    return [path for _, path in sorted(found)[:_SHOWN]]


def common(paths: list[str]) -> str:
    """Return what all of these begin with."""
    if not paths:
        return ""
    first, last = min(paths), max(paths)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:same]


def _expanded(text: str) -> Path:
    return Path(text).expanduser()


class PathDialog(Dialog[str]):
    """A path.

    Args:
        title: what it is for.
        done: what is done with it; what it raises of :data:`EXPECTED` is shown, and the dialog stays.
        value: where to begin.
        directories: only directories are offered.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "complete", show=False, priority=True),
        Binding("down", "into", "into the list", show=False),
    ]

    def __init__(
        self, title: str, done: Callable[[Path], Awaitable[None]], *, value: str = "", directories: bool = False
    ) -> None:
        super().__init__(classes="dialog")
        self._title, self._done, self._value, self._directories = title, done, value, directories
        self.offered: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(self._title, classes="title", markup=False)
            yield Input(self._value, placeholder="path", select_on_focus=False)
            yield Static("", classes="error", markup=False)
            yield OptionList(markup=False)
            yield Static("Tab: complete · ↓: into the list · Enter: take it · Esc: back", classes="keys", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._offer(event.value)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._put(self.offered[event.option_index])

    def action_into(self) -> None:
        if self.offered:
            self.query_one(OptionList).focus()

    @work(exclusive=True, group="complete")
    async def action_complete(self) -> None:
        value = self.query_one(Input).value
        offered = await asyncio.to_thread(complete, value, directories=self._directories)
        beginning = common(offered)
        if beginning:
            self._put(beginning)

    @work(exclusive=True, group="done")
    async def on_input_submitted(self, event: Input.Submitted) -> None:
        error = self.query_one(".error", Static)
        if not event.value.strip():
            error.update("give a path")
            return
        path = _expanded(event.value)
        try:
            await self._done(path)
        except EXPECTED as refused:
            error.update(f"{clean_line(path.name)}: {reason(refused)}")
        else:
            self.dismiss(str(path))

    def _put(self, path: str) -> None:
        field = self.query_one(Input)
        field.value = path
        field.cursor_position = len(path)
        field.focus()

    @work(exclusive=True, group="offer")
    async def _offer(self, text: str) -> None:
        self.offered = await asyncio.to_thread(complete, text, directories=self._directories)
        options = self.query_one(OptionList)
        options.clear_options()
        # The names are the file system's, and anybody may have given them.
        options.add_options([Option(clean_line(Path(path).name) + "/" * path.endswith("/")) for path in self.offered])
