"""How things look: pure functions from rows of the store to text with styles.

Everything goes through :mod:`peers.chat.text` and then into :class:`textual.content.Content` as plain text. Nothing is
ever parsed as markup, so what a peer writes can neither style nor click anything. No meaning rests on colour alone:
marks differ in shape, and where two would look alike there is a word.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from textual.content import Content

from peers.chat.text import clean, clean_line
from peers.store.contacts import ContactRow
from peers.store.message_rows import MessageRow

CHARACTERS: Final = 2000
"""Characters of a message that a bubble shows; more are shown on demand, in a view that draws what is seen alone."""
LINES: Final = 24
"""Lines of a message that a bubble shows: about a screen."""
_TAB: Final = 4
_PREVIEW: Final = 200

_TICKS: Final = {
    "queued": ("·", "$foreground-muted"),
    "left": ("↓ left in a mailbox", "$foreground-muted"),
    "sent": ("✓", "$foreground-muted"),
    "delivered": ("✓✓", "$foreground-muted"),
    "read": ("✓✓ read", "bold $text-accent"),
    "failed": ("✗ failed", "bold $text-error"),
}
_TRUST: Final = {
    "verified": ("◆", "$text-success"),
    "invited": ("◇", "$text-primary"),
    "unverified": ("?", "$text-warning"),
}

Part = tuple[str, str]
"""A text and its style, as Content.assemble takes them."""


# --- Times ------------------------------------------------------------------------------------------------------------


def moment(ms: int) -> datetime:
    """Return milliseconds since 1970 as a local time."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC).astimezone()


def clock(ms: int) -> str:
    """Return the local time of day, ``14:02``."""
    return f"{moment(ms):%H:%M}"


def day(ms: int, today: date) -> str:
    """Return the local day in words."""
    then = moment(ms).date()
    if then == today:
        return "Today"
    if then == today - timedelta(days=1):
        return "Yesterday"
    year = "" if then.year == today.year else f" {then.year}"
    return f"{then:%A}, {then.day} {then:%B}{year}"


def short_time(ms: int, today: date) -> str:
    """Return a time for a list: of today the time of day, of this week the weekday, else the date."""
    then = moment(ms)
    age = (today - then.date()).days
    if age <= 0:
        return f"{then:%H:%M}"
    return f"{then:%a}" if age < 7 else f"{then:%Y-%m-%d}"


# --- Messages ---------------------------------------------------------------------------------------------------------


def shown_text(text: str) -> str:
    """Return a peer's text as a screen may have it: cleaned, tabs as spaces."""
    return clean(text).expandtabs(_TAB)


def is_long(text: str) -> bool:
    """Tell whether a bubble shows only the beginning of a text."""
    return len(text) > CHARACTERS or text.count("\n") >= LINES


def beginning(text: str) -> str:
    """Return what a bubble shows of a text."""
    # Cut before it is cleaned: what nobody sees costs nothing.
    lines = text[:CHARACTERS].split("\n")
    return shown_text("\n".join(lines[:LINES])).rstrip()


def size(count: int) -> str:
    """Return a number of bytes as people say it: ``1.2 MiB``."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024 or unit == "GiB":
            break
    return f"{value:.1f} {unit}"


def ticks(row: MessageRow) -> Part:
    """Return how far a message of ours came: · queued, ↓ left in a mailbox, ✓ sent, ✓✓ delivered, ✓✓ read, ✗ failed."""
    return _TICKS[row.standing]


def bubble(row: MessageRow, body: Content | None = None) -> Content:
    """Return a message with its time and state.

    Args:
        row: the message.
        body: what is shown instead of its text (a file).
    """
    meta: list[Part] = [(clock(row.at), "$foreground-muted")]
    if row.deleted_at is not None:
        return Content.assemble(("message deleted", "italic $foreground-muted"), "  ", *meta)
    if row.edited_at is not None:
        meta.append((" edited", "italic $foreground-muted"))
    if row.outgoing:
        mark, style = ticks(row)
        meta.append((f" {mark}", style))
    if body is not None:
        return Content.assemble(body, "\n", *meta)
    if row.kind == "file":
        return Content.assemble(("▤ ", ""), (shown_text(row.text), "bold"), "  ", *meta)
    if row.kind == "call":
        return Content.assemble(("☎ tried to call; this program takes no calls", "italic"), "  ", *meta)
    if is_long(row.text):
        more = f"… show all ({size(len(row.text.encode()))})"
        return Content.assemble(beginning(row.text), "\n", (more, "bold underline"), "  ", *meta)
    return Content.assemble(shown_text(row.text), "  ", *meta)


def preview(row: MessageRow | None) -> Content:
    """Return one line about the last message with a contact."""
    if row is None:
        return Content.styled("nothing said yet", "italic $foreground-muted")
    who = "You: " if row.outgoing else ""
    if row.deleted_at is not None:
        return Content.styled(f"{who}message deleted", "italic $foreground-muted")
    if row.kind == "call":
        return Content.styled("☎ call", "italic $foreground-muted")
    sign = "▤ " if row.kind == "file" else ""
    return Content.styled(f"{who}{sign}{clean_line(row.text[: 2 * _PREVIEW], _PREVIEW)}", "$foreground-muted")


def snippet(row: MessageRow, words: Sequence[str], width: int) -> Content:
    """Return one line of a message around the first of `words`, these highlighted. `width` is in characters."""
    line = clean_line(row.text)
    folded = line.casefold()
    # Case folding may change lengths (ß); the marks are then off by some, and nothing else is.
    found = [at for word in words if (at := folded.find(word.casefold())) >= 0]
    start = max(min(found, default=0) - width // 4, 0)
    shown = ("…" if start else "") + line[start : start + width]
    content = Content(shown)
    for word in words:
        at = shown.casefold().find(word.casefold())
        if at >= 0 and word:
            content = content.stylize("bold underline", at, at + len(word))
    return content


# --- People -----------------------------------------------------------------------------------------------------------


def label(row: ContactRow) -> str:
    """Return our name for somebody. The store cleaned it; rows may come from elsewhere one day."""
    return clean_line(row.label)


def presence(row: ContactRow) -> Part:
    """Return the mark of somebody's presence."""
    if row.blocked:
        return "⊘", "$text-error"
    return ("●", "bold $text-success") if row.online else ("○", "$foreground-muted")


def trust(row: ContactRow) -> Part:
    """Return the mark of how far the keys of somebody can be trusted."""
    return _TRUST[row.trust]


def contact_line(row: ContactRow, unread: int, latest: MessageRow | None, width: int, today: date) -> Content:
    """Return two lines for the list of contacts, `width` cells wide."""
    when = "" if latest is None else short_time(latest.at, today)
    head = Content.assemble(presence(row), " ", (label(row), "bold" if unread else ""), " ", trust(row))
    first = _ends(head, Content.styled(when, "$foreground-muted"), width)
    count = Content.styled(f" {unread if unread < 1000 else '999+'} ", "bold reverse") if unread else Content()
    second = _ends(Content.assemble("  ", preview(latest)), count, width)
    return Content.assemble(first, "\n", second)


def heading(row: ContactRow, today: date) -> Content:
    """Return the head of a conversation: name, trust and presence in words."""
    mark, style = trust(row)
    if row.blocked:
        there = "blocked"
    elif row.online:
        there = "online"
    elif row.seen_at is None:
        there = "not seen yet"
    else:
        then = moment(row.seen_at)
        when = f"{then:%H:%M}" if then.date() == today else short_time(row.seen_at, today)
        there = f"last seen {when}"
    return Content.assemble(
        presence(row),
        " ",
        (label(row), "bold"),
        "  ",
        (f"{mark} {row.trust}", style),
        "  ",
        (there, "$foreground-muted"),
    )


def _ends(left: Content, right: Content, width: int) -> Content:
    """Return a line of `width` cells, `left` cut to leave room for `right`."""
    room = max(width - right.cell_length - (1 if right else 0), 1)
    left = left.truncate(room, ellipsis=True)
    gap = max(width - left.cell_length - right.cell_length, 0)
    return Content.assemble(left, " " * gap, right)
