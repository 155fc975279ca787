"""What all commands share: the options that stand everywhere, the way to a profile, and how errors are told.

A command is a function that takes a :class:`Call` first and returns an exit status; :func:`command` adds the rest.
"""

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keys.errors import KeysError
from peers.chat.completion import complete_contact
from peers.chat.exits import Exit
from peers.chat.output import Output, complain, leave_stdout
from peers.profile import NoSuchProfile, Profile, ProfileError, list_profiles

if TYPE_CHECKING:
    from peers.chat.session import Session
    from peers.database import Database

TALK: Final = "Talk"
PEOPLE: Final = "People"
PROFILE: Final = "Your profile"

app = typer.Typer(
    name="blindrelay-chat",
    help="End-to-end encrypted conversations by a blind relay, for people and scripts.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # they would show the values of variables
    add_completion=True,
)


def _complete_profile(incomplete: str) -> list[str]:
    try:
        return [name for name in list_profiles() if name.startswith(incomplete)]
    except ProfileError:
        return []


ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="The profile to use, instead of BLINDRELAY_PROFILE or default.",
        autocompletion=_complete_profile,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print no hints and no confirmations.")]
PeerArgument = Annotated[
    str,
    typer.Argument(
        metavar="PEER",
        help="A contact: its label, the beginning of one, or the beginning of its id.",
        autocompletion=complete_contact,
    ),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.0, metavar="SECONDS", help="How long to wait.")]
DEFAULT_TIMEOUT: Final = 10.0


class UsageError(Exception):
    """What was asked for makes no sense; the text is for the person."""


class NotFound(Exception):
    """What was named does not exist; the text is for the person."""


class NotInTime(TimeoutError):
    """Something did not happen in time; the text is for the person."""


class FailedThere(Exception):
    """It failed at the other side; the text is for the person."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command.

    Attributes:
        profile_name: as it was given, if it was.
        out: where to print.
    """

    profile_name: str | None
    out: Output

    def profile(self) -> Profile:
        """Return the profile that is meant, be it there or not."""
        return Profile.locate(self.profile_name)

    def with_session(self, work: "Callable[[Session], Coroutine[Any, Any, int]]") -> int:
        """Open the profile with its keys, asking for the passphrase if it must be, and run `work` on it."""
        from peers.chat.session import Session

        session = Session.open(self.profile_name)

        async def run() -> int:
            async with session:
                return await work(session)

        return asyncio.run(run())

    def with_store(self, work: "Callable[[Database], Coroutine[Any, Any, int]]") -> int:
        """Open the store alone, for which no passphrase is needed, and run `work` on it."""
        from peers.store import open_store

        profile = self.profile()
        profile.settings()  # says what there is to say if there is no such profile, or others may look into it
        store = open_store(profile.store_path)

        async def run() -> int:
            async with store:
                return await work(store)

        return asyncio.run(run())


def command(
    name: str, *, panel: str | None = None, group: typer.Typer = app
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Make a command of a function that takes a Call first: with the options that stand everywhere, and with an exit
    status for every error that can be expected. Returns the function as it was."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)
        def run(
            ctx: typer.Context, profile: str | None = None, json: bool = False, quiet: bool = False, **values: Any
        ) -> None:
            outer = ctx.find_root().params
            chosen = profile if profile is not None else outer.get("profile")
            out = Output(json=json or bool(outer.get("json")), quiet=quiet or bool(outer.get("quiet")))
            raise typer.Exit(guarded(lambda: function(Call(chosen, out), **values), json=out.json))

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        more = [
            inspect.Parameter("profile", keyword, default=None, annotation=ProfileOption),
            inspect.Parameter("json", keyword, default=False, annotation=JsonOption),
            inspect.Parameter("quiet", keyword, default=False, annotation=QuietOption),
        ]
        first = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [first, *(each.replace(kind=keyword) for each in own), *more]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        group.command(name, rich_help_panel=panel)(run)
        return function

    return register


def guarded(function: Callable[[], int], *, json: bool) -> int:
    """Run a command and return its exit status; errors that can be expected are told in one line on stderr."""
    try:
        status = function()
    except BrokenPipeError:
        leave_stdout()  # whoever read has seen enough
        return Exit.DONE
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain("interrupted", "error", json=json, exit=int(Exit.INTERRUPTED))
        return Exit.INTERRUPTED
    except Exception as error:
        status_of_error = _status(error)
        if status_of_error is None:
            if os.environ.get("BLINDRELAY_DEBUG"):
                raise
            # Its text may hold anything that somebody wrote.
            text = f"this should not happen: {type(error).__name__}; please report what BLINDRELAY_DEBUG=1 shows"
            complain(text, "error", json=json, exit=int(Exit.UNEXPECTED))
            return Exit.UNEXPECTED
        complain(str(error), "error", json=json, exit=int(status_of_error))
        return status_of_error
    return status


def _status(error: Exception) -> Exit | None:
    """Return the exit status for an error that can be expected."""
    match error:
        case NotFound() | NoSuchProfile():
            return Exit.NOT_FOUND
        case UsageError() | ProfileError() | KeysError():
            return Exit.USAGE
        case FailedThere():
            return Exit.FAILED_THERE
        case TimeoutError():
            return Exit.NOT_IN_TIME
        case OSError():
            return Exit.UNEXPECTED
    return _status_of_layers(error)


def _status_of_layers(error: Exception) -> Exit | None:
    # Imported only now: errors of the client and of the store come from modules that not every command needs.
    from peers.client.errors import NotConnected, RelayRefused
    from peers.database import DatabaseError
    from peers.store.errors import NoSuchContact, NoSuchMailbox, NoSuchMessage, StoreError

    match error:
        case NoSuchContact() | NoSuchMessage() | NoSuchMailbox():
            return Exit.NOT_FOUND
        case StoreError():
            return Exit.USAGE
        case DatabaseError():
            return Exit.UNEXPECTED
        case RelayRefused():
            return Exit.REFUSED
        case NotConnected():
            return Exit.NOT_IN_TIME
    return None
