"""The command line. Every setting but secrets is a flag; what somebody typed wrongly is never repeated whole."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from peers.notifier.errors import BadNotifierSettings
from peers.notifier.limits import Limits
from peers.notifier.registry import PRUNE_DAYS
from peers.notifier.settings import Settings
from peers.notifier.settings_sources import flag_of, is_many, is_path, is_secret, is_switch, leaves, variable_of

PROGRAM: Final = "blindrelay-notifier"

_DESCRIPTION: Final = """\
The notifier of a blindrelay relay: it turns the relay's wakes into pushes by Web Push, UnifiedPush, FCM and APNs, and
knows nothing but which token belongs to which id. docs/push.md has the steps."""
_EPILOG: Final = """\
examples:
  blindrelay-notifier keygen
  blindrelay-notifier run --relay-card R0… --contact mailto:you@example.org
  blindrelay-notifier registry count"""
_SETTINGS_EPILOG: Final = """\
Each flag is a variable too (--log-level: NOTIFIER_LOG_LEVEL; --limits.message-window:
NOTIFIER_LIMITS_MESSAGE_WINDOW) and a key of notifier.toml (log_level; message_window under [limits]).
Flags stand above variables, these above notifier.toml. docs/push.md has them as a table, with the secrets, which are
variables alone."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse repeats values and whole arguments, and somebody may have typed a secret or an id.
        message = re.sub(
            r"(invalid choice|invalid \w+ value|ignored explicit argument|ambiguous option): .*", r"\1", message
        )
        raise BadNotifierSettings([f"{message} (see {self.prog} --help)"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; `command` names what to do, `settings` are the flags of settings by key.

    Raises:
        BadNotifierSettings: they make no sense.
        SystemExit: after `--help` (status 0).
    """
    parser = _Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add(commands, "keygen", "make its keys where they are missing, and print what the relay and clients are told")
    _add(commands, "run", "serve")
    _add(commands, "check", "say whether the settings and keys can be used: exit status 0 or 2")
    _add(commands, "health", "ask the running one whether it is connected: exit status 0 or 1")
    commands.add_parser("settings", help="print the table of settings for docs/push.md", allow_abbrev=False)
    registry = commands.add_parser("registry", help="look at and change the registry", allow_abbrev=False)
    tools = registry.add_subparsers(dest="tool", metavar="TOOL", required=True)
    _add(tools, "count", "print how many tokens there are, by kind, and how many ids")
    prune = _add(tools, "prune", "forget tokens that were not registered again for long, and those that fail")
    prune.add_argument("--days", type=int, default=None, help=f"how long ({PRUNE_DAYS}, or limits.forget_after_days)")
    forget = _add(tools, "forget", "forget all tokens of an id")
    test = _add(tools, "test", "push to all devices of an id now, and print how each push service answered")
    test.add_argument("--call", action="store_true", help="as for a call")
    for tool in (forget, test):
        tool.add_argument("id", metavar="ID", help="16 hex digits or an invite K0…; - reads it from standard input")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        options = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        parser.error(f"there is no option {options[0]} here" if options else "an argument that has no place")
    known = dict(leaves(Settings))
    arguments.settings = {key: value for key, value in vars(arguments).items() if key in known}
    if arguments.command == "registry":
        arguments.command = f"registry {arguments.tool}"
    return arguments


def _add(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    """Add a command that takes the settings."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=_SETTINGS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("Settings")
    for key, info in leaves(Settings):
        if is_secret(info):
            continue
        about = " ".join((info.description or "").split())
        options: dict[str, Any] = {
            "dest": key,
            "default": argparse.SUPPRESS,
            "help": f"{about} ({default_text(key)})".replace("`", "").replace("%", "%%"),
        }
        if is_switch(info):
            group.add_argument(flag_of(key), action=argparse.BooleanOptionalAction, **options)
        else:
            options["metavar"] = "PATH" if is_path(info) else "NUMBER" if key.startswith("limits.") else "TEXT"
            group.add_argument(flag_of(key), action="append" if is_many(info) else "store", **options)
    return parser


def default_text(key: str) -> str:
    """Return the default of a setting in words, the same on every machine."""
    if key == "data_dir":
        return (
            "`$STATE_DIRECTORY` (systemd), else `$XDG_STATE_HOME/blindrelay-notifier`, else "
            "`~/.local/state/blindrelay-notifier`"
        )
    table, _, name = key.rpartition(".")
    value = getattr(Limits(), name) if table else Settings.model_fields[key].default
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value in ("", ()):
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """Return all settings as a Markdown table."""
    lines = ["| key | flag and variable | default | what it is |", "|---|---|---|---|"]
    for key, info in leaves(Settings):
        secret = is_secret(info)
        name = "none" if secret or key == "config" else f"`{key}`"
        called = (
            f"`{variable_of(key)}` or `{variable_of(key)}_FILE`" if secret else f"`{flag_of(key)}` `{variable_of(key)}`"
        )
        default = default_text(key)
        default = default if default in ("on", "off", "none") or "`" in default else f"`{default}`"
        about = " ".join((info.description or "").split()).replace("|", "\\|")
        lines.append(f"| {name} | {called} | {default} | {about} |")
    return "\n".join(lines) + "\n"
