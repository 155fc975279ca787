"""The text of `--help`: every flag with its docstring, in the groups of `GROUPS`."""

import argparse
import os
from typing import Any

from relay.limits import GROUPS as LIMIT_GROUPS
from relay.settings_names import PREFIX, Leaf, Names

PROGRAM = "python -m relay"
GROUPS = {"config": "Where settings are read", "host": "The relay"}
"""Titles by the first setting of each group; it goes on to the next one."""
_EPILOG = f"""\
Each flag is a variable too (--log-level: {PREFIX}LOG_LEVEL; --limits.queue-size:
{PREFIX}LIMITS_QUEUE_SIZE) and a key of relay.toml (log_level; queue_size under [limits]).
Flags stand above variables, these above the secrets directory, that above relay.toml.
docs/settings.md has them as a table.

  {PROGRAM} config check       say whether the settings can be used, and what is wrong
  {PROGRAM} config show        print those in force, and where each was set
  {PROGRAM} config template    print a relay.toml to begin with
  {PROGRAM} config doc         print the table of docs/settings.md
"""
# What differs from machine to machine, in words.
_DEFAULTS = {
    "data_dir": "`$STATE_DIRECTORY` (systemd), else `$XDG_STATE_HOME/blindrelay`, else `~/.local/state/blindrelay`",
    "secrets_dir": "`$CREDENTIALS_DIRECTORY` (systemd), if it is set",
    "limits.connections": "the files that the process may open, less 192",
    "limits.connections_per_address": "4096, or a quarter of all where that is less",
    "limits.subscriptions_total": "what a quarter of the memory holds, 131,072 at least",
    "limits.queue_total": "a quarter of the memory, 256 MiB at most and 16 MiB at least",
}
_NONE = {"keys": "`relay.keys` in the data directory", "config": "`relay.toml` in the data directory, if it is there"}


def in_groups(names: Names[Any]) -> list[tuple[str, list[Leaf]]]:
    """Return all settings by groups, with the titles; those of no table first, as TOML wants them."""
    groups: list[tuple[str, list[Leaf]]] = [("The relay", [])]
    for leaf in sorted(names.leaves.values(), key=lambda leaf: len(leaf.path)):
        titles = LIMIT_GROUPS if leaf.path[0] == "limits" else GROUPS
        title = titles.get(leaf.path[-1])
        if title is not None:
            groups.append((f"Limits: {title}" if leaf.path[0] == "limits" else title, []))
        groups[-1][1].append(leaf)
    return [(title, leaves) for title, leaves in groups if leaves]


def varies(leaf: Leaf) -> bool:
    """Whether the default is another on another machine, or none: it is told in words and not as a value."""
    return leaf.key in _DEFAULTS or default_value(leaf) is None


def default_value(leaf: Leaf) -> object:
    """Return the default; of what varies, the one of this machine."""
    return leaf.field.get_default(call_default_factory=True)


def default_text(leaf: Leaf) -> str:
    """Return the default in words, the same on every machine."""
    words = _DEFAULTS.get(leaf.key) or _NONE.get(leaf.key)
    if words is not None:
        return words
    value = default_value(leaf)
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(f"`{each}`" for each in value) or "none"
    return f"`{number(value)}`" if isinstance(value, int | float) else f"`{value}`"


def number(value: float) -> str:
    """Return a number as people write it."""
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def text(names: Names[Any]) -> str:
    """Return the whole help text."""
    parser = argparse.ArgumentParser(
        PROGRAM,
        usage=f"{PROGRAM} [--FLAG VALUE …]\n       {PROGRAM} config check|show|template|doc [--FLAG VALUE …]",
        description=" ".join((names.of.__doc__ or "").split()),
        epilog=_EPILOG,
        add_help=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=30, width=min(100, int(os.environ.get("COLUMNS") or 100))
        ),
    )
    for title, leaves in in_groups(names):
        group = parser.add_argument_group(title)
        for leaf in leaves:
            if not leaf.secret:
                about = f"{leaf.about} ({default_text(leaf).replace('`', '')})".strip()
                group.add_argument(leaf.flag, metavar=leaf.value_name, help=about.replace("%", "%%"))
    parser.add_argument_group("Help").add_argument("-h", "--help", action="store_true", help="print this")
    return parser.format_help()
