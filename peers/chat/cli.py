"""``blindrelay-chat`` as a Typer application."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import typer

from peers.chat.commands.frame import JsonOption, ProfileOption, QuietOption, app
from peers.chat.exits import Exit
from peers.chat.output import PROGRAM, complain

# In the order of the help. Importing a module registers its commands. What a command needs it imports when it is run:
# each call of the program pays for what stands at the top of any of these modules.
_MODULES: Final = (
    "yourself",
    "people",
    "mailbox",
    "screen",
    "talk",
    "files",
    "past",
    "programs",
    "keeping",
)

for _module in _MODULES:
    import_module(f"peers.chat.commands.{_module}")


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context, profile: ProfileOption = None, json: JsonOption = False, quiet: QuietOption = False
) -> None:
    del profile, json, quiet  # read from the context by the command: see frame.command
    if ctx.invoked_subcommand is None:
        raise typer.TyperException("which command?")


def run(arguments: Sequence[str]) -> int:
    """Run the program with these arguments and return the exit status: see :class:`peers.chat.exits.Exit`."""
    # Texts of peers may hold what the terminal's encoding does not have.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    try:
        status = _without_bool(typer.main.get_command(app)).main(
            list(arguments), prog_name=PROGRAM, standalone_mode=False
        )
    except typer.TyperException as error:
        complain(f"{error.format_message()} (see --help)", "error", json=json, exit=int(Exit.USAGE))
        return Exit.USAGE
    except typer.Abort:
        return Exit.INTERRUPTED
    return int(status or 0)


def _without_bool(command: Any) -> Any:
    """Give the flags of a command, and of those below it, no ``<bool>`` in the help: they take no value."""
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    for below in getattr(command, "commands", {}).values():
        _without_bool(below)
    return command
