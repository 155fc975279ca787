"""Texts to be sent, from an argument or from stdin; and tokens, from a file, stdin or the terminal."""

import getpass
import sys
import warnings
from pathlib import Path
from typing import Annotated, Final

import typer

from peers.chat.commands.frame import Call, UsageError
from wire.mailbox_codes import TOKEN_MAX
from wire.peer_commands import TEXT_MAX
from wire.peer_mailboxes import is_token

_MOST: Final = 2 * TEXT_MAX
"""Bytes that are read of stdin: enough to see that a text is too long."""
_TOKEN_MOST: Final = TOKEN_MAX + 64
"""Bytes that are read of a token's file: enough for line breaks behind it, and to see that it is none."""

TextArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="TEXT",
        help="What to say. Everybody on this machine can see the arguments of a program while it runs: "
        "without TEXT, or with -, it is read from stdin.",
        show_default=False,
    ),
]
TokenFileOption = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Where the token is that the mailbox asks depositors for; - reads stdin.",
        show_default=False,
    ),
]
TokenOption = Annotated[
    bool, typer.Option("--token", help="The mailbox asks depositors for a token: ask for it at the terminal.")
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


def typed_token(file: str | None) -> bytes:
    """Return the token of a mailbox, from a file, from stdin if that is -, or as it is typed at the terminal if none
    is named.

    Raises:
        UsageError: there is none, or it is none that a mailbox can ask for. The text does not repeat it.
    """
    try:
        if file is None:
            raw = _asked().encode(errors="surrogatepass")
        elif file == "-":
            raw = sys.stdin.buffer.read(_TOKEN_MOST)
        else:
            with Path(file).open("rb") as opened:
                raw = opened.read(_TOKEN_MOST)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise UsageError(f"--token-file: cannot read {file}: {reason}") from None
    token = raw.strip()
    if not is_token(token):
        raise UsageError(f"a mailbox's token has 1 to {TOKEN_MAX} characters, no spaces: copy the whole of it")
    return token


def _asked() -> str:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would read stdin and show what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass("Token of the mailbox: ")
    except (getpass.GetPassWarning, EOFError):
        raise UsageError(
            "there is no terminal to ask for the token; put it into a file for --token-file, where - is stdin"
        ) from None
