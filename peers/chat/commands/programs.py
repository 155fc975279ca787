"""Commands by which programs and agents talk: bridge, mcp (docs/agents.md)."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from peers.chat.commands.frame import Call, UsageError, command
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


@command("mcp", panel=PROGRAMS)
def mcp(
    call: Call,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="LABEL",
            help="The agent may talk with this contact; may be given again.",
            autocompletion=complete_contact,
        ),
    ] = None,
    allow_all: Annotated[
        bool, typer.Option("--allow-all", help="It may talk with everybody, strangers who introduce themselves too.")
    ] = False,
    human: Annotated[
        str | None,
        typer.Option(
            "--human",
            metavar="LABEL",
            help="It may ask this contact for decisions (the tool ask_human).",
            autocompletion=complete_contact,
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--files",
            metavar="DIR",
            help="It may send files out of this directory; may be given again.",
        ),
    ] = None,
    rate: Annotated[str, typer.Option("--rate", metavar="N/UNIT", help="Messages to one contact.")] = "20/min",
    rate_total: Annotated[
        str, typer.Option("--rate-total", metavar="N/UNIT", help="Messages to all contacts together.")
    ] = "60/min",
    max_text: Annotated[
        int, typer.Option("--max-text", min=1, max=65536, metavar="BYTES", help="The longest text it may send.")
    ] = 16384,
    audit_text: Annotated[bool, typer.Option("--audit-text", help="Write texts into the audit log too.")] = False,
    agent: Annotated[
        str, typer.Option("--agent", metavar="NAME", help="What the agent is called; each has its own unread messages.")
    ] = "agent",
) -> int:
    """Serve an agent by the Model Context Protocol, over stdin and stdout.

    It may talk with the contacts named by --allow and nobody else. What it does stands in audit.jsonl, in the profile.
    """
    try:
        from peers.chat.agent.rate import Rate
        from peers.chat.mcp_server import McpOptions, run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types", "anyio", "pydantic"):
            raise
        raise UsageError("the extra for agents is missing: python -m pip install 'blindrelay[chat,agents]'") from None
    try:
        options = McpOptions(
            allow=tuple(allow or ()),
            allow_all=allow_all,
            human=human,
            files=tuple(files or ()),
            rate=Rate.parse(rate),
            rate_total=Rate.parse(rate_total),
            max_text=max_text,
            audit_text=audit_text,
            agent=agent,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return run(call.profile_name, options)
