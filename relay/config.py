"""`python -m relay config …`: check the settings, show those in force, print a template or the table for the docs.

None of these starts anything, mints keys or shows a secret.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tomli_w

from keys.errors import KeysError
from relay.own_keys import keys_place, look_for_keys
from relay.reload import APPLIES, CONTENT
from relay.settings import NAMES, Loaded, Settings, load_with_origins
from relay.settings_checks import warn_of_nats
from relay.settings_help import PROGRAM, default_text, default_value, in_groups, varies
from relay.settings_names import FILE_SUFFIX, NOT_IN_FILE, Leaf, Names
from relay.settings_problems import DEFAULT, BadSettings
from relay.usable import check_usable

_USAGE: Final = f"""\
usage: {PROGRAM} config check|show|template|doc [--FLAG VALUE …]

  check      say whether the settings, and what they name, can be used, and what is wrong: exit status 0 or 2
  show       print those in force as a relay.toml, each with the place where it was set, secrets hidden
  template   print a relay.toml in which all is commented out
  doc        print docs/settings.md

The flags are the relay's own ({PROGRAM} --help); variables and files are read as the relay would.
"""
_WIDTH: Final = 118


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what the first argument says; returns the exit status: 0, or 2 when something is wrong."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", ())
    if name in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0
    if name in ("template", "doc"):
        if rest:
            print(f"blindrelay: config {name} takes no arguments", file=sys.stderr)
            return 2
        sys.stdout.write(template() if name == "template" else doc())
        return 0
    if name not in ("check", "show"):
        sys.stderr.write(_USAGE)
        return 2
    try:
        loaded = load_with_origins(rest, environ)
        if name == "show":
            sys.stdout.write(show(loaded, keys_place(loaded.settings, environ)))
        else:
            print(check(loaded, environ))
    except (BadSettings, KeysError) as error:
        for line in str(error).splitlines():
            print(f"blindrelay: {line}", file=sys.stderr)
        return 2
    return 0


def check(loaded: Loaded, environ: Mapping[str, str]) -> str:
    """Return what is to be said of settings that can be used. Not tried: whether the relay can listen, and mint keys.

    Raises:
        BadSettings: something that they name cannot be used.
        KeyFileError: the relay's keys cannot be used.
    """
    check_usable(loaded.settings)
    keys = look_for_keys(loaded.settings, environ)
    return "\n".join(
        (
            f"settings: {loaded.file or 'no relay.toml'}",
            f"keys: {keys_place(loaded.settings, environ)}{'' if keys else ', minted at the start'}",
            *(f"warning: {text}" for text in warn_of_nats(loaded.settings)),
            "ok",
        )
    )


def show(loaded: Loaded, keys: str, names: Names[Settings] = NAMES) -> str:
    """Return all settings in force as a relay.toml that sets them, each with where it was set as a comment."""

    def line(leaf: Leaf) -> str:
        origin = str(loaded.origins.get(leaf.path, DEFAULT))
        value = leaf.value_of(loaded.settings)
        if leaf.secret:
            return f"# {leaf.path[-1]}: {'none' if value is None else 'hidden'}  # {origin}"
        if value is None:
            return f"# {leaf.path[-1]}: none  # {origin}"
        text = _assignment(leaf, value)
        return f"{'# ' if leaf.key in NOT_IN_FILE else ''}{text}  # {origin}"

    head = (
        f"# The settings in force, each with where it was set; read from {loaded.file or 'no file'}.\n"
        f"# The relay's keys: {keys}\n"
    )
    return head + _sections(names, lambda leaf: [line(leaf)], titled=False)


def template(names: Names[Settings] = NAMES) -> str:
    """Return a relay.toml with every setting and its docstring, in which nothing is set."""

    def lines(leaf: Leaf) -> list[str]:
        if leaf.key in NOT_IN_FILE:
            return []
        if leaf.secret:
            other = names.file_setting(leaf)
            better = f"{leaf.variable}{FILE_SUFFIX}" if other is None else other.key
            value = f'#{leaf.path[-1]} = "{leaf.value_name}"  # better {better}, or the secrets directory'
        elif varies(leaf):
            default = default_value(leaf)
            sample = _assignment(leaf, leaf.value_name if default is None or leaf.is_path else default)
            value = f"#{sample}  # default: {default_text(leaf).replace('`', '')}"
        else:
            value = "\n".join(f"#{line}" for line in _assignment(leaf, default_value(leaf)).splitlines())
        return ["", *_wrapped(leaf.about), value] if leaf.about else [value]

    head = (
        "# relay.toml: the settings of a blindrelay relay. What is commented out has its default.\n"
        "# Flags and variables stand above this file. `python -m relay config check` tells whether it can be used.\n"
    )
    return head + _sections(names, lines, titled=True)


def doc(names: Names[Settings] = NAMES) -> str:
    """Return docs/settings.md: the same on every machine."""
    lines = [
        "# Settings",
        "",
        "This page is printed by `python -m relay config doc`; a test holds it current.",
        "",
        "Each setting is a key of `relay.toml`, a flag and a variable. A flag stands above a variable, that above the",
        "secrets directory, that above the file, that above the default. How they are read is in",
        "[OPERATIONS.md](../OPERATIONS.md#settings).",
        "",
        "The last column says what SIGHUP does with a new value. *At once*: it is in force for every client, those",
        "that are there too; a deadline that becomes shorter counts from then on. *Next*: for what comes; what is",
        "under way goes on as it was. *Restart*: nothing but a line in the log. *Its content*: the path takes a",
        "restart, but the file at that path is read again.",
    ]
    for title, leaves in in_groups(names):
        lines += [
            "",
            f"## {title}",
            "",
            "| key | flag and variable | default | what it is | SIGHUP |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(leaf, names) for leaf in leaves]
    lines += [
        "",
        "## The relay's keys",
        "",
        "They are no settings, and have no flag and no key. `RELAY_X25519_SECRET` and `RELAY_ED25519_SECRET` hold 64",
        "hex digits each; with `_FILE` appended they name files that do, and so do files `relay_x25519_secret` and",
        "`relay_ed25519_secret` in the secrets directory. Without any of them the key file is read that `keys` names.",
    ]
    return "\n".join(lines) + "\n"


def _row(leaf: Leaf, names: Names[Settings]) -> str:
    key = f"`{leaf.key}`" if leaf.key not in NOT_IN_FILE else "none"
    if not leaf.secret:
        called = f"`{leaf.flag}` `{leaf.variable}`"
    elif names.file_setting(leaf) is None:
        called = f"`{leaf.variable}` or `{leaf.variable}{FILE_SUFFIX}`"
    else:
        called = f"`{leaf.variable}`"
    about = leaf.about.replace("|", "\\|")
    return f"| {key} | {called} | {default_text(leaf)} | {about} | {_at_sighup(leaf)} |"


def _at_sighup(leaf: Leaf) -> str:
    """Return what SIGHUP does with a new value, and where that names a file with what stands in it."""
    value = APPLIES.get(leaf.key, "restart")
    content = CONTENT.get(leaf.key)
    return value if content is None else f"{value}; its content {content}"


def _sections(names: Names[Settings], lines_of: Callable[[Leaf], list[str]], *, titled: bool) -> str:
    """Return the settings as a TOML file."""
    out: list[str] = []
    table = ""
    for title, leaves in in_groups(names):
        above = ".".join(leaves[0].path[:-1])
        if titled:
            out += ["", "", f"# --- {title} ".ljust(_WIDTH, "-")]
        if above != table:
            table = above
            out += ["", f"[{table}]"]
        for leaf in leaves:
            out += lines_of(leaf)
    return "\n".join(out) + "\n"


def _assignment(leaf: Leaf, value: Any) -> str:
    return tomli_w.dumps({leaf.path[-1]: _plain(value)}).rstrip("\n")


def _plain(value: Any) -> Any:
    """Return what TOML can hold of a value."""
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Path) or not isinstance(value, bool | int | float | str):
        return str(value)
    return value


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) + 3 > _WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return [f"# {line}" for line in lines]
