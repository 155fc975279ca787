"""A scrolling view that stays where one reads, whatever comes or goes above."""

from collections.abc import Iterable

from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.layout import DockArrangeResult, WidgetPlacement
from textual.widget import Widget


class KeptScroll(VerticalScroll):
    """At its end it follows what is added; elsewhere what is in view stays in its place.

    Textual can anchor a view to its end. It does not keep one in place when something is mounted above: that would be
    put right only after a frame with the wrong part in it. Here it is done while the places are worked out.

    Attributes:
        following: the end is in view, and is to stay so.
        ends_here: there is nothing beyond the last widget, so that its end is *the* end.
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - as Textual calls it
        super().__init__(id=id)
        self.following = True
        self.ends_here = True
        self._pinned: tuple[Widget, float] | None = None
        self._arranged_for = Size(0, 0)
        self._width = 0

    def moved(self) -> None:
        """Something else is in view; for subclasses."""

    @property
    def is_moving(self) -> bool:
        """Whether what is in view is about to change, without anybody scrolling."""
        return self._pinned is not None

    def pin(self, widget: Widget | None, offset: float) -> None:
        """Have a widget stand so many rows below the top of the view, until :meth:`settle`."""
        self._pinned = None if widget is None else (widget, offset)

    def pin_view(self, widgets: Iterable[Widget]) -> None:
        """Have the first of these that is in view stay where it is, until :meth:`settle`."""
        for widget in widgets:
            region = widget.virtual_region
            if region.bottom > self.scroll_y:
                self.pin(widget, region.y - self.scroll_y)
                return

    def settle(self) -> None:
        """Let go of what was pinned. To be called when what was mounted has been drawn."""
        self._pinned = None
        self.scroll_target_y = self.scroll_y = self.validate_scroll_y(self.scroll_y)
        self.vertical_scrollbar.position = self.scroll_y
        self.following = self.ends_here and self.scroll_y >= self.max_scroll_y
        self.moved()

    def scroll_pages(self, count: int) -> None:
        """Scroll by pages that overlap a little, so that one does not lose the thread."""
        self.scroll_relative(y=count * max(self.size.height - 2, 1), animate=False)

    def action_page_up(self) -> None:
        self.scroll_pages(-1)

    def action_page_down(self) -> None:
        self.scroll_pages(1)

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        self._arranged_for = size
        return super().arrange(size, optimal)

    def process_layout(self, placements: list[WidgetPlacement]) -> list[WidgetPlacement]:
        size, placements = self._arranged_for, super().process_layout(placements)
        if placements and self._pinned is None and self.following:
            last = placements[-1]
            self._place(last.region.bottom + last.margin.bottom - size.height)
        elif placements:
            if self._pinned is None and size.width != self._width and self._width:
                # Lines wrap anew. Where things stand is still what the last layout said.
                self.pin_view(placement.widget for placement in placements)
                self.call_after_refresh(self.settle)
            for placement in placements:
                if self._pinned is not None and placement.widget is self._pinned[0]:
                    self._place(placement.region.y - self._pinned[1])
        self._width = size.width
        return placements

    def _place(self, y: float) -> None:
        # Without their watchers: these would ask for another layout in the middle of this one.
        self.set_reactive(Widget.scroll_y, max(y, 0.0))
        self.set_reactive(Widget.scroll_target_y, max(y, 0.0))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._pinned is None:
            self.following = self.ends_here and new_value >= self.max_scroll_y
        else:
            # Who scrolls on while a page is mounted moves what is pinned: the way is not lost.
            widget, offset = self._pinned
            self._pinned = (widget, offset - (new_value - old_value))
        self.moved()

    def on_resize(self) -> None:
        if self.following:
            self.scroll_end(animate=False, immediate=True)
        self.moved()
