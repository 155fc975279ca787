"""What stands in a conversation: messages, and the lines between them."""

from typing import Final

from textual.content import Content
from textual.layout import WidgetPlacement
from textual.widget import Widget

from peers.chat.tui import show
from peers.store.message_rows import MessageRow

OURS: Final = "-ours"
"""The class of what stands at the right."""


class Line(Widget):
    """A line across the conversation: a day, or where the unread begins."""

    ALLOW_SELECT = False

    def __init__(self, text: str, *, unread: bool = False) -> None:
        super().__init__(classes="line -unread" if unread else "line")
        self.text = text

    def render(self) -> Content:
        text = f" {self.text} "
        rest = max(self.size.width - len(text), 2)
        return Content("─" * (rest // 2) + text + "─" * (rest - rest // 2))


class Bubble(Widget):
    """A message.

    Attributes:
        row: as it was last read.
        lines: what stands above it.
    """

    def __init__(self, row: MessageRow, body: Content | None = None) -> None:
        super().__init__(classes=f"bubble {OURS if row.outgoing else '-theirs'}")
        self.row = row
        self.lines: list[Line] = []
        self.content = show.bubble(row, body)

    def set_row(self, row: MessageRow, body: Content | None = None) -> None:
        """Show another state of the same message."""
        self.row = row
        content = show.bubble(row, body)
        if not content.is_same(self.content):
            self.content = content
            self.refresh(layout=True)

    def render(self) -> Content:
        return self.content


def at_right(placement: WidgetPlacement, width: int) -> WidgetPlacement:
    """Return a place moved to the right edge of a view of `width` cells: CSS aligns all children or none."""
    region, margin = placement.region, placement.margin
    return placement._replace(region=region.at_offset((max(width - region.width - margin.right, 0), region.y)))
