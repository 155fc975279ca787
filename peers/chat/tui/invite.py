"""Our invite, as text and as a QR code that a phone can read off a terminal."""

from typing import ClassVar, Final

import segno
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from keys.files import ClientKeys
from keys.invite import display_name
from peers.chat.text import clean_line
from peers.chat.tui.dialogs import Dialog

_QUIET: Final = 2
"""Light modules around the code. ISO 18004 asks for four; readers do with two, and 80×24 has no room for more."""
_LIGHT: Final = "#000000 on #ffffff"
# Two rows of modules to a row of cells: light above, light below.
_HALVES: Final = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def qr_code(text: str) -> Content:
    """Return a QR code, dark on light whatever the theme: not all readers take an inverted one."""
    rows = [[bool(module) for module in row] for row in segno.make(text, error="l", micro=False).matrix_iter(1, _QUIET)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    lines = [
        "".join(_HALVES[above, below] for above, below in zip(top, bottom, strict=True))
        for top, bottom in zip(rows[::2], rows[1::2], strict=True)
    ]
    return Content("\n").join([Content.styled(line, _LIGHT) for line in lines])


class InviteSheet(Dialog[None]):
    """The invite beside its code: both fit into 80×24.

    Args:
        keys: whose it is.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c,y", "copy", "copy", show=False),
        Binding("q,enter", "leave", "leave", show=False),
    ]

    def __init__(self, keys: ClientKeys) -> None:
        super().__init__(classes="dialog")
        self._invite = keys.invite.text
        self._name = clean_line(display_name(keys.nickname))

    def compose(self) -> ComposeResult:
        words = Content.assemble(
            ("Your invite", "bold"),
            "\n\nGive the code or this line to whoever is to write to you",
            f"; they see you as {self._name}." if self._name else ".",
            "\n\n",
            (self._invite, "bold"),
            "\n\nIt holds your public keys and no secret. Whoever has it can write to you.\n\n",
            ("c: copy · Esc: back", "$foreground-muted"),
        )
        with Vertical(classes="box card"), VerticalScroll(classes="body"):
            yield Static(qr_code(self._invite), classes="code", markup=False)
            yield Static(words, classes="words", markup=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._invite)
        self.notify("copied, if the terminal allows it", markup=False)
