"""The command line of a service: every setting but secrets is a flag; what somebody typed wrongly is never repeated."""

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import BaseModel

from peers.service.errors import BadSettings
from peers.service.settings_sources import Names, flag_of, is_many, is_path, is_secret, is_switch

S = TypeVar("S", bound=BaseModel)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are :class:`BadSettings`."""

    def error(self, message: str) -> NoReturn:
        # argparse repeats values and whole arguments, and somebody may have typed a secret or an id.
        message = re.sub(
            r"(invalid choice|invalid \w+ value|ignored explicit argument|ambiguous option): .*", r"\1", message
        )
        raise BadSettings([f"{message} (see {self.prog} --help)"])


def program_parser(program: str, description: str, epilog: str) -> tuple[Parser, Any]:
    """Return the parser of a program, and what its commands are added to; `command` names the one that was given."""
    parser = Parser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser, parser.add_subparsers(dest="command", metavar="COMMAND", required=True)


def add_tools(commands: Any, name: str, about: str) -> Any:
    """Add a command that has commands itself; return what these are added to. `command` names both: `token new`."""
    parser = commands.add_parser(name, help=about, allow_abbrev=False)
    return parser.add_subparsers(dest="tool", metavar="TOOL", required=True)


class Flags(Generic[S]):
    """The settings of a service as flags, and in words.

    Args:
        names: what they are called.
        epilog: stands below the flags in the help of each command.
        said: defaults that depend on the machine, in words, by key.
    """

    def __init__(self, names: Names[S], epilog: str, said: Mapping[str, str]) -> None:
        self._names = names
        self._epilog = epilog
        self._said = said

    def add(self, commands: Any, name: str, about: str) -> argparse.ArgumentParser:
        """Add a command that takes the settings to what `add_subparsers` returned."""
        parser: argparse.ArgumentParser = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=self._epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        group = parser.add_argument_group("Settings")
        for key, info in self._names.leaves():
            if is_secret(info):
                continue
            about = " ".join((info.description or "").split())
            options: dict[str, Any] = {
                "dest": key,
                "default": argparse.SUPPRESS,
                "help": f"{about} ({self.default_text(key)})".replace("`", "").replace("%", "%%"),
            }
            if is_switch(info):
                group.add_argument(flag_of(key), action=argparse.BooleanOptionalAction, **options)
            else:
                options["metavar"] = "PATH" if is_path(info) else "NUMBER" if "." in key else "TEXT"
                group.add_argument(flag_of(key), action="append" if is_many(info) else "store", **options)
        return parser

    def read(self, parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse, and gather the flags that were given as `settings`, by key.

        Raises:
            BadSettings: they make no sense.
            SystemExit: after `--help` (status 0).
        """
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:
            options = [word.partition("=")[0] for word in unknown if word.startswith("--")]
            parser.error(f"there is no option {options[0]} here" if options else "an argument that has no place")
        if "tool" in arguments:
            arguments.command = f"{arguments.command} {arguments.tool}"
        known = dict(self._names.leaves())
        arguments.settings = {key: value for key, value in vars(arguments).items() if key in known}
        return arguments

    def default_value(self, key: str) -> Any:
        """Return the default of a setting."""
        table, _, name = key.rpartition(".")
        if table:
            return getattr(self._names.tables[table](), name)
        return self._names.of.model_fields[key].get_default(call_default_factory=True)

    def default_text(self, key: str) -> str:
        """Return the default of a setting in words, the same on every machine."""
        if key in self._said:
            return self._said[key]
        value = self.default_value(key)
        if isinstance(value, bool):
            return "on" if value else "off"
        if value is None or value in ("", ()):
            return "none"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def table(self) -> str:
        """Return all settings as a Markdown table."""
        names = self._names
        lines = ["| key | flag and variable | default | what it is |", "|---|---|---|---|"]
        for key, info in names.leaves():
            secret = is_secret(info)
            name = "none" if secret or key == "config" else f"`{key}`"
            variable = names.variable_of(key)
            called = f"`{variable}` or `{variable}_FILE`" if secret else f"`{flag_of(key)}` `{variable}`"
            default = self.default_text(key)
            default = default if default in ("on", "off", "none") or "`" in default else f"`{default}`"
            about = " ".join((info.description or "").split()).replace("|", "\\|")
            lines.append(f"| {name} | {called} | {default} | {about} |")
        return "\n".join(lines) + "\n"
