"""The command line. Every setting but secrets is a flag; what somebody typed wrongly is never repeated whole."""

import argparse
from collections.abc import Sequence
from typing import Final

from peers.notifier.registry import PRUNE_DAYS
from peers.notifier.settings import NAMES
from peers.service.arguments import Flags, add_tools, program_parser
from peers.service.settings_types import state_directory_text

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


FLAGS: Final = Flags(
    NAMES,
    _SETTINGS_EPILOG,
    {"data_dir": state_directory_text(PROGRAM)},
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; `command` names what to do, `settings` are the flags of settings by key.

    Raises:
        BadNotifierSettings: they make no sense.
        SystemExit: after `--help` (status 0).
    """
    parser, commands = program_parser(PROGRAM, _DESCRIPTION, _EPILOG)
    FLAGS.add(commands, "keygen", "make its keys where they are missing, and print what the relay and clients are told")
    FLAGS.add(commands, "run", "serve")
    FLAGS.add(commands, "check", "say whether the settings and keys can be used: exit status 0 or 2")
    FLAGS.add(commands, "health", "ask the running one whether it is connected: exit status 0 or 1")
    commands.add_parser("settings", help="print the table of settings for docs/push.md", allow_abbrev=False)
    tools = add_tools(commands, "registry", "look at and change the registry")
    FLAGS.add(tools, "count", "print how many tokens there are, by kind, and how many ids")
    prune = FLAGS.add(tools, "prune", "forget tokens that were not registered again for long, and those that fail")
    prune.add_argument("--days", type=int, default=None, help=f"how long ({PRUNE_DAYS}, or limits.forget_after_days)")
    forget = FLAGS.add(tools, "forget", "forget all tokens of an id")
    test = FLAGS.add(tools, "test", "push to all devices of an id now, and print how each push service answered")
    test.add_argument("--call", action="store_true", help="as for a call")
    for tool in (forget, test):
        tool.add_argument("id", metavar="ID", help="16 hex digits or an invite K0…; - reads it from standard input")
    return FLAGS.read(parser, argv)


def settings_table() -> str:
    """Return all settings as a Markdown table."""
    return FLAGS.table()
