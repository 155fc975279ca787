"""The line at the bottom: how the connection stands, and what to do where something is wrong."""

from collections.abc import Mapping
from typing import Final

from textual.content import Content

from peers.chat.text import clean_line
from peers.chat.tui import show

_TEXT_MAX: Final = 400


def status_line(connection: Mapping[str, object], *, carrying: bool, failure: str | None) -> Content:
    """Return the status line.

    Args:
        connection: :func:`peers.store.feed.connection`.
        carrying: whether this process holds the connection.
        failure: why this process cannot, if so.
    """
    state = str(connection.get("state"))
    text = clean_line(str(connection.get("text") or ""), _TEXT_MAX)
    if failure is not None:
        said = Content.assemble(("✗ ", "bold $text-error"), (clean_line(failure, _TEXT_MAX), "bold"), _advice(failure))
    elif state == "connected":
        said = Content.assemble(("● ", "bold $text-success"), "connected", _carrier(carrying=carrying))
    elif state == "connecting":
        said = Content.assemble(("◌ ", "$text-warning"), "connecting…", _carrier(carrying=carrying))
    elif state == "refused":
        said = Content.assemble(("✗ ", "bold $text-error"), (text or "the relay refuses us", "bold"), _advice(text))
    elif state == "waiting":
        said = Content.assemble(
            ("○ ", "$text-warning"), "no connection", f": {text}" if text else "", _again(connection)
        )
    else:
        said = Content.assemble(("○ ", "$text-warning"), "not connected; what you write is kept")
    return said


def _carrier(*, carrying: bool) -> str:
    return "" if carrying else " · carried by another program of this profile"


def _again(connection: Mapping[str, object]) -> str:
    at, retry_in = connection.get("at"), connection.get("retry_in")
    if not isinstance(at, int) or not isinstance(retry_in, int | float):
        return "; trying again"
    then = show.moment(at + round(retry_in * 1000))
    return f"; trying again at {then:%H:%M:%S}"


def _advice(text: str) -> str:
    """What else there is to say: nothing goes out, but nothing is lost."""
    return " · what you write is kept. See `blindrelay-chat doctor`" if "trying again" not in text else ""
