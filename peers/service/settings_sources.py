"""Where the settings of a service come from: flags, variables, files of secrets, a TOML file; and what they are called.

Flags stand above variables, these above the file, that above the defaults. A secret is a variable, or stands in a file
that the variable with `_FILE` appended names; it is never a flag, for everybody on the machine can read those.
"""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from peers.service.errors import BadSettings, BadValues

S = TypeVar("S", bound=BaseModel)

FILE_SUFFIX: Final = "_FILE"
_SECRET_MOST: Final = 16384
_SIZE_MOST: Final = 1 << 20


@dataclass(slots=True)
class Given:
    """What one source gives: values by key, where each was set, and what is wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """Settings, and where each was set that has not its default, by key."""

    settings: S
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Names(Generic[S]):
    """What the settings of one service are called.

    Attributes:
        of: the model that holds them.
        prefix: of its variables.
        config_file: the name of its TOML file.
        tables: those of its fields that are tables, each a pydantic dataclass.
        also: further variables, without the prefix, by the key that they set.
    """

    of: type[S]
    prefix: str
    config_file: str
    tables: Mapping[str, type]
    also: Mapping[str, str] = field(default_factory=dict)

    def leaves(self) -> Iterator[tuple[str, FieldInfo]]:
        """Yield all settings by their keys; those of a table as `limits.…`."""
        for name, info in self.of.model_fields.items():
            if name in self.tables:
                fields: Mapping[str, FieldInfo] = self.tables[name].__pydantic_fields__  # type: ignore[attr-defined]
                yield from ((f"{name}.{inner}", each) for inner, each in fields.items())
            else:
                yield name, info

    def variable_of(self, key: str) -> str:
        """Return the variable of a setting: of `limits.queue` it is `PREFIX_LIMITS_QUEUE`."""
        return self.prefix + key.replace(".", "_").upper()

    def from_variables(self, environ: Mapping[str, str]) -> Given:
        """Read the variables, and for secrets also the files that those with `_FILE` name."""
        given = Given()
        known = {self.variable_of(key): key for key, _ in self.leaves()} | dict(self.also)
        files = {self.variable_of(key) + FILE_SUFFIX: key for key, info in self.leaves() if is_secret(info)}
        for name in sorted(environ):
            if name in known:
                key = known[name]
                if key in given.values:
                    given.problems.append(f"{name} and {given.origins[key]} are both set: remove one of them")
                given.values[key], given.origins[key] = environ[name], name
            elif name in files:
                if files[name] in given.values or self.variable_of(files[name]) in environ:
                    given.problems.append(
                        f"{name} and {self.variable_of(files[name])} are both set: remove one of them"
                    )
                    continue
                try:
                    text = _read_secret(Path(environ[name]))
                except (OSError, ValueError) as error:
                    reason = error.strerror if isinstance(error, OSError) else "it is no text that can be used"
                    given.problems.append(f"the file of {name} cannot be read: {reason}")
                    continue
                given.values[files[name]], given.origins[files[name]] = text, f"the file of {name}"
            elif name.startswith(self.prefix):
                close = difflib.get_close_matches(name, [*known, *files], 1, 0.75)
                given.problems.append(
                    f"{name}: there is no such setting{f'; did you mean {close[0]}?' if close else ''}; see run --help"
                )
        return given

    def from_file(self, path: Path, *, must_exist: bool) -> Given:
        """Read the TOML file. A path in it that is not absolute counts from the directory of the file."""
        given = Given()
        try:
            with path.open("rb") as file:
                table = tomllib.loads(file.read(_SIZE_MOST).decode())
        except (FileNotFoundError, NotADirectoryError):
            if must_exist:
                given.problems.append(f"there is no {path}")
            return given
        except OSError as error:
            given.problems.append(f"cannot read {path}: {error.strerror}")
            return given
        except UnicodeDecodeError:
            given.problems.append(f"{path} is not TOML: it is not UTF-8 text")
            return given
        except tomllib.TOMLDecodeError as error:
            given.problems.append(f"{path} is not TOML: {error}")
            return given
        except RecursionError:
            given.problems.append(f"{path} is not TOML that can be used: its values are nested too deeply")
            return given
        known = dict(self.leaves())
        for key, value in self._flat(table):
            info = known.get(key)
            if info is None or key == "config":
                close = difflib.get_close_matches(key, known, 1, 0.75)
                given.problems.append(
                    f"{key} ({path}): there is no such key{f'; did you mean {close[0]}?' if close else ''}"
                )
            elif is_secret(info):
                # A file of settings is copied, shown and kept in version control: not the place.
                given.problems.append(
                    f"{key} ({path}): a secret has no place here; set {self.variable_of(key)}{FILE_SUFFIX}"
                )
            else:
                here = is_path(info) and isinstance(value, str) and value
                given.values[key] = str(path.parent / value) if here else value
                given.origins[key] = str(path)
        return given

    def _flat(self, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in table.items():
            if name in self.tables and isinstance(value, dict):
                yield from ((f"{name}.{inner}", each) for inner, each in value.items())
            else:
                yield name, value

    def load(self, flags: Mapping[str, Any], environ: Mapping[str, str], defaults: Mapping[str, Any]) -> "Loaded[S]":
        """Return the settings that flags, variables and the file give. Nothing else of `environ` is looked at.

        Args:
            flags: by key, those of a table with its name: `limits.queue`.
            environ: the variables.
            defaults: those that depend on the environment; `data_dir` is where the file is looked for.

        Raises:
            BadSettings: a line for each problem, with its name and where it was set; never a secret.
        """
        variables = self.from_variables(environ)
        above = {**variables.values, **flags}
        origins = {**variables.origins, **{key: flag_of(key) for key in flags}}
        named = above.get("config")
        directory = Path(above.get("data_dir") or defaults["data_dir"])
        path = Path(named) if named else directory / self.config_file
        file = self.from_file(path, must_exist=bool(named))
        problems = [*variables.problems, *file.problems]
        origins = {**file.origins, **origins}
        try:
            settings = self.of(**nested({**defaults, **file.values, **above}))
        except ValidationError as error:
            # Without what was given: it may be a secret. Of the context nothing is told but the names in a BadValues.
            for problem in error.errors(include_url=False, include_input=False):
                # ("limits", "queue") is a setting; in ("allow_host", 0) and ("token", "function…") only the first is.
                at = [str(part) for part in problem["loc"]]
                key = ".".join(at[: 2 if at and at[0] in self.tables else 1])
                cause, keys, reason = problem.get("ctx", {}).get("error"), [key], problem["msg"]
                if isinstance(cause, BadValues):
                    keys, reason = [f"{key}.{each}" if key else each for each in cause.keys], cause.reason
                places = (f"{each} ({origins[each]})" if each in origins else each or "settings" for each in keys)
                problems.append(f"{', '.join(places)}: {reason.removeprefix('Value error, ')}")
        else:
            if not problems:
                return Loaded(settings, origins)
        raise BadSettings(problems)


def flag_of(key: str) -> str:
    """Return its flag: `--limits.message-window`."""
    return "--" + key.replace("_", "-")


def is_secret(info: FieldInfo) -> bool:
    """Whether the value of a setting is shown to nobody, and no flag."""
    return any(part is SecretStr for part in _parts(info.annotation))


def is_switch(info: FieldInfo) -> bool:
    """Whether it is on or off."""
    return info.annotation is bool


def is_path(info: FieldInfo) -> bool:
    """Whether it names a file or directory."""
    return any(part is Path for part in _parts(info.annotation))


def is_many(info: FieldInfo) -> bool:
    """Whether its flag may be given again and again."""
    return any(part is tuple for part in (getattr(each, "__origin__", None) for each in _parts(info.annotation)))


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by key as pydantic takes them: those of limits in a table."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        table, dot, name = key.rpartition(".")
        if dot:
            found.setdefault(table, {})[name] = value
        else:
            found[key] = value
    return found


def _read_secret(path: Path) -> str:
    # Without O_NONBLOCK a pipe under this name would hold us until somebody writes to it. The mode is not looked at:
    # secrets that a container runtime mounts are readable by all within it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        content = file.read(_SECRET_MOST + 1)
    if len(content) > _SECRET_MOST:
        raise ValueError("too long")
    return content.decode().strip()
