"""The command by which people talk: open."""

import sys
from typing import Annotated

import typer

from peers.chat.commands.frame import TALK, Call, UsageError, command
from peers.chat.completion import complete_contact


@command("open", panel=TALK)
def open_screen(
    call: Call,
    peer: Annotated[
        str | None,
        typer.Argument(
            metavar="[PEER]",
            help="Whose conversation to show first: a label, the beginning of one, or the beginning of an id.",
            autocompletion=complete_contact,
        ),
    ] = None,
) -> int:
    """Open the screen: contacts, conversations, files, search. F1 shows its keys.

    Set TEXTUAL_THEME to begin with another theme (textual-light, textual-ansi, …), NO_COLOR for none.
    """
    if call.out.json:
        raise UsageError("open is for people: use listen --json in scripts")
    # Before anybody is asked for a passphrase.
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("open needs a terminal: use send, listen and history in scripts")
    try:
        from peers.chat.tui import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise UsageError("textual is missing: python -m pip install 'blindrelay[chat]'") from None

    return call.with_session(lambda session: run(session, peer))
