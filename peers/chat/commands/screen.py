"""The command for the screen: open."""

from typing import TYPE_CHECKING, Annotated

import typer

from peers.chat.commands.frame import TALK, Call, command
from peers.chat.completion import complete_contact

if TYPE_CHECKING:
    from peers.chat.session import Session


@command("open", panel=TALK)
def open_(
    call: Call,
    peer: Annotated[
        str | None,
        typer.Argument(metavar="PEER", help="With whom to begin.", autocompletion=complete_contact, show_default=False),
    ] = None,
) -> int:
    """Open the screen: contacts, conversations, files, search."""

    async def work(session: "Session") -> int:
        from peers.chat.tui import run

        return await run(session, peer)

    return call.with_session(work)
