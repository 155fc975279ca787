"""What is said of settings that cannot be used: a line for each problem, with name, place, value and fix."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from relay.settings_names import Names

Path_ = tuple[str, ...]


class BadSettings(Exception):
    """Settings that cannot be used; the text names each problem on a line, and never a secret."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = tuple(problems.splitlines() if isinstance(problems, str) else problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was set."""

    kind: Literal["default", "file", "secrets", "variable", "flag"]
    name: str = ""
    """The flag, the variable, or the path of the file."""
    line: int | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f" line {self.line}"
        return f"{self.kind} {self.name}{line}".rstrip() if self.kind != "secrets" else f"secrets file {self.name}"


DEFAULT = Origin("default")


def closest(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean …?" with the known name that is most like this one; empty if none is."""
    by_shape = {each.lower().replace("-", "_"): each for each in known}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), by_shape, 1, 0.75)
    return f"; did you mean {by_shape[found[0]]}?" if found else ""


def explain(
    error: ValidationError, names: Names[Any], origins: Mapping[Path_, Origin], given: Mapping[Path_, Any]
) -> list[str]:
    """Return a line for each problem that pydantic found.

    Args:
        error: what it raised.
        names: all settings.
        origins: where each value that is not the default was set.
        given: these values.
    """
    lines = []
    # The validators' own texts, without what they were given: that may be a secret.
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        path = tuple(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        while path and path not in names.leaves and path not in names.tables:
            path = path[:-1]
        leaf = names.leaves.get(path)
        if leaf is None:
            # It is about several: the places of all those that it names.
            words = set(re.split(r"[\s:,;`]+", text))
            places = [
                f"{inner[-1]}: {origins.get(inner, DEFAULT)}"
                for inner, each in names.leaves.items()
                if inner[:-1] == path and not words.isdisjoint((inner[-1], each.flag))
            ]
            lines.append(f"{'.'.join(path) or 'settings'}: {text}" + (f" ({'; '.join(places)})" if places else ""))
            continue
        value = given.get(path)
        if leaf.secret:
            shown = "a secret that cannot be used"
            # Whatever a validator says of it, the value is not to be in it.
            text = text.replace(str(value), "…") if value else text
        else:
            shown = repr(value)
        lines.append(f"{leaf.key} is {shown} ({origins.get(path, DEFAULT)}): {text}{_fix(text, shown)}")
    return lines


def _fix(text: str, shown: str) -> str:
    """Suggest a choice that is like what was given, where the text names choices in quotes."""
    return closest(shown.strip("'"), text.split("'")[1::2]) if "should be '" in text else ""
