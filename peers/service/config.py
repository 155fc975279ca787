"""The settings in force, and a template for them, as a TOML file. Secrets are not shown."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import tomli_w
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from peers.service.arguments import Flags
from peers.service.settings_sources import FILE_SUFFIX, Loaded, Names, is_secret

S = TypeVar("S", bound=BaseModel)

_WIDTH: Final = 118


def show(names: Names[S], loaded: Loaded[S]) -> str:
    """Return all settings in force as a file that sets them, each with where it was set as a comment."""

    def lines(key: str, info: FieldInfo) -> list[str]:
        value: Any = loaded.settings
        for part in key.split("."):
            value = getattr(value, part)
        origin = loaded.origins.get(key, "default")
        name = key.rpartition(".")[2]
        if value is None or is_secret(info):
            return [f"# {name}: {'none' if value is None else 'hidden'}  # {origin}"]
        return [f"{'# ' if key == 'config' else ''}{_assignment(name, value)}  # {origin}"]

    return "# The settings in force, each with where it was set.\n" + _by_table(names, lines)


def template(names: Names[S], flags: Flags[S]) -> str:
    """Return a file with every setting and what it is, in which nothing is set."""

    def lines(key: str, info: FieldInfo) -> list[str]:
        if key == "config":
            return []
        about = textwrap.wrap(" ".join((info.description or "").split()), _WIDTH - 2)
        name = key.rpartition(".")[2]
        if is_secret(info):
            value = f"# no key: the variable {names.variable_of(key)}{FILE_SUFFIX} names a file that holds it"
        elif (default := flags.default_text(key)) == "none" or "`" in default:
            value = f'#{name} = "…"  # default: {default.replace("`", "")}'
        else:
            value = f"#{_assignment(name, flags.default_value(key))}"
        return ["", *(f"# {line}" for line in about), value]

    head = f"# {names.config_file}: what is commented out has its default. Flags and variables stand above this file.\n"
    return head + _by_table(names, lines)


def _by_table(names: Names[S], lines_of: Callable[[str, FieldInfo], list[str]]) -> str:
    out: list[str] = []
    table = ""
    for key, info in names.leaves():
        if (above := key.rpartition(".")[0]) != table:
            table = above
            out += ["", f"[{table}]"]
        out += lines_of(key, info)
    return "\n".join(out) + "\n"


def _assignment(name: str, value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    return tomli_w.dumps({name: list(value) if isinstance(value, tuple) else value}).strip()
