"""Texts to be sent, from an argument or from stdin."""

import sys
from typing import Annotated, Final

import typer

from peers.chat.commands.frame import Call, UsageError
from wire.peer_commands import TEXT_MAX

_MOST: Final = 2 * TEXT_MAX
"""Bytes that are read of stdin: enough to see that a text is too long."""

TextArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="TEXT",
        help="What to say. Everybody on this machine can see the arguments of a program while it runs: "
        "without TEXT, or with -, it is read from stdin.",
        show_default=False,
    ),
]


def typed_text(call: Call, text: str | None) -> str:
    """Return the text that was given, or read it from stdin to its end, without the last line break.

    Raises:
        UsageError: what stands there is no UTF-8.
        BadText: it is empty, or longer than a text can be.
    """
    if text is None or text == "-":
        if sys.stdin.isatty():
            call.out.hint("Type the text; Ctrl-D on a line of its own ends it.")
        raw = sys.stdin.buffer.read(_MOST)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            # Cut in the middle of a character, it is too long at any rate.
            if len(raw) < _MOST:
                raise UsageError("the text on stdin is not UTF-8") from None
            text = raw.decode(errors="replace")
        text = text.removesuffix("\n").removesuffix("\r")
    from peers.store.messages import check_text

    check_text(text)
    return text
