"""The command line of the mailbox."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from peers.mailbox.settings import NAMES
from peers.service.arguments import Flags, add_tools, program_parser
from peers.service.settings_types import state_directory_text

PROGRAM: Final = "blindrelay-mailbox"

_DESCRIPTION: Final = """\
A mailbox: it holds sealed deposits for those who are offline, as a peer of a relay, over HTTP, or both.
docs/mailbox.md has the steps, and what an operator could learn."""
_EPILOG: Final = """\
examples:
  blindrelay-mailbox keygen --relay R0…
  blindrelay-mailbox run --relay R0…
  blindrelay-mailbox run --http 127.0.0.1:8095 --http-url https://mailbox.example
  blindrelay-mailbox stats"""
_SETTINGS_EPILOG: Final = """\
Each flag is a variable too (--http-url: BLINDRELAY_MAILBOX_HTTP_URL; --limits.ttl: BLINDRELAY_MAILBOX_LIMITS_TTL) and a
key of mailbox.toml (http_url; ttl under [limits]). Flags stand above variables, these above mailbox.toml.
docs/mailbox.md has them as a table, with the secrets, which are variables alone."""
FLAGS: Final = Flags(
    NAMES,
    _SETTINGS_EPILOG,
    {"data_dir": state_directory_text(PROGRAM)},
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; `command` names what to do, `settings` are the flags of settings by key.

    Raises:
        BadSettings: they make no sense.
        SystemExit: after `--help` (status 0).
    """
    parser, commands = program_parser(PROGRAM, _DESCRIPTION, _EPILOG)
    FLAGS.add(commands, "keygen", "make its keys if they are missing, and print its cards M0…, which clients are given")
    FLAGS.add(commands, "card", "print its cards")
    FLAGS.add(commands, "run", "serve")
    FLAGS.add(commands, "health", "ask the running one whether it can serve: exit status 0 or 1")
    FLAGS.add(commands, "stats", "print how much it holds, whether it runs or not")
    FLAGS.add(commands, "prune", "erase what has ended, and give the room back to the disk; it must not run")
    backup = FLAGS.add(commands, "backup", "copy what it holds to a new file, whether it runs or not")
    backup.add_argument("to", metavar="FILE", type=Path, help="where to; it must not exist")
    tools = add_tools(commands, "token", "the tokens that depositors show")
    new = FLAGS.add(tools, "new", "make a token and print it, once: the mailbox keeps its digest")
    new.add_argument("label", metavar="LABEL", nargs="?", default="", help="what you call it")
    FLAGS.add(tools, "list", "list the tokens by the beginning of their digests")
    revoke = FLAGS.add(tools, "revoke", "take a token away")
    revoke.add_argument("digest", metavar="DIGEST", help="its beginning, as listed")
    tools = add_tools(commands, "config", "check and show the settings")
    FLAGS.add(tools, "check", "say whether the settings, keys and files can be used: exit status 0 or 2")
    FLAGS.add(tools, "show", "print the settings in force, each with where it was set")
    tools.add_parser("template", help="print a mailbox.toml in which all is commented out", allow_abbrev=False)
    tools.add_parser("doc", help="print the table of settings for docs/mailbox.md", allow_abbrev=False)
    return FLAGS.read(parser, argv)
