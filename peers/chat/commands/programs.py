"""Commands by which programs and agents talk: bridge, mcp (docs/agents.md)."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from peers.chat.commands.frame import Call, command
from peers.chat.completion import complete_contact

PROGRAMS: Final = "For programs"


@command("bridge", panel=PROGRAMS)
def bridge(
    call: Call,
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="PEER",
            help="Talk with this contact; may be given again. Without it: with all whom you added.",
            autocompletion=complete_contact,
        ),
    ] = None,
    watch: Annotated[
        Path | None, typer.Option("--watch", metavar="FILE", help="Send the lines that are added to this file too.")
    ] = None,
    linger: Annotated[
        float,
        typer.Option(
            "--linger", min=0.0, metavar="SECONDS", help="How long the last lines may take to be delivered at the end."
        ),
    ] = 30.0,
) -> int:
    """Send the lines of stdin, and print what comes: a line for a message, both ways.

    With several peers a line is "LABEL: text". With --json it is {"to": LABEL, "text": TEXT}, and an object for each
    event comes back. Takes its identity and peers from telefon's WSCHAT_ variables where they are set.
    """
    from peers.chat.bridge import BridgeOptions, run

    options = BridgeOptions(
        profile=call.profile_name,
        peers=tuple(peers or ()),
        watch=watch,
        json=call.out.json,
        linger=linger,
        quiet=call.out.quiet,
    )
    return run(os.environ, options)
