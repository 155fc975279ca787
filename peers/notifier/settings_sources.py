"""Where the notifier's settings come from: variables, files of secrets, notifier.toml; and what they are called."""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from peers.notifier.limits import Limits

CONFIG_FILE: Final = "notifier.toml"
PREFIX: Final = "NOTIFIER_"
FILE_SUFFIX: Final = "_FILE"
_ALSO: Final = {"WS_URL": "ws_url"}
"""Variables without our prefix: telefon's."""
_SECRET_MOST: Final = 16384
_SIZE_MOST: Final = 1 << 20


@dataclass(slots=True)
class Given:
    """What one source gives: values by key, where each was set, and what is wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def leaves(of: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield all settings by their keys; those of limits as `limits.…`."""
    for name, info in of.model_fields.items():
        if info.annotation is Limits:
            fields: Mapping[str, FieldInfo] = Limits.__pydantic_fields__  # type: ignore[attr-defined]
            yield from ((f"{name}.{inner}", each) for inner, each in fields.items())
        else:
            yield name, info


def variable_of(key: str) -> str:
    """Return the variable of a setting: `limits.message_window` is `NOTIFIER_LIMITS_MESSAGE_WINDOW`."""
    return PREFIX + key.replace(".", "_").upper()


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


def from_variables(of: type[BaseModel], environ: Mapping[str, str]) -> Given:
    """Read `NOTIFIER_…`, for secrets also `NOTIFIER_…_FILE`, and what telefon's notifier had without that prefix."""
    given = Given()
    known = {variable_of(key): key for key, _ in leaves(of)} | _ALSO
    files = {variable_of(key) + FILE_SUFFIX: key for key, info in leaves(of) if is_secret(info)}
    for name in sorted(environ):
        if name in known:
            key = known[name]
            if key in given.values:
                given.problems.append(f"{name} and {given.origins[key]} are both set: remove one of them")
            given.values[key], given.origins[key] = environ[name], name
        elif name in files:
            if files[name] in given.values or variable_of(files[name]) in environ:
                given.problems.append(f"{name} and {variable_of(files[name])} are both set: remove one of them")
                continue
            try:
                text = _read_secret(Path(environ[name]))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no text that can be used"
                given.problems.append(f"the file of {name} cannot be read: {reason}")
                continue
            given.values[files[name]], given.origins[files[name]] = text, f"the file of {name}"
        elif name.startswith(PREFIX):
            close = difflib.get_close_matches(name, [*known, *files], 1, 0.75)
            given.problems.append(
                f"{name}: there is no such setting{f'; did you mean {close[0]}?' if close else ''}; see run --help"
            )
    return given


def _read_secret(path: Path) -> str:
    # Without O_NONBLOCK a pipe under this name would hold us until somebody writes to it. The mode is not looked at:
    # secrets that a container runtime mounts are readable by all within it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        content = file.read(_SECRET_MOST + 1)
    if len(content) > _SECRET_MOST:
        raise ValueError("too long")
    return content.decode().strip()


def from_file(of: type[BaseModel], path: Path, *, must_exist: bool) -> Given:
    """Read notifier.toml. A path in it that is not absolute counts from the directory of the file."""
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
    known = dict(leaves(of))
    for key, value in _flat(table):
        info = known.get(key)
        if info is None or key == "config":
            close = difflib.get_close_matches(key, known, 1, 0.75)
            given.problems.append(
                f"{key} ({path}): there is no such key{f'; did you mean {close[0]}?' if close else ''}"
            )
        elif is_secret(info):
            # A file of settings is copied, shown and kept in version control: not the place.
            given.problems.append(f"{key} ({path}): a secret has no place here; set {variable_of(key)}{FILE_SUFFIX}")
        else:
            here = is_path(info) and isinstance(value, str) and value
            given.values[key] = str(path.parent / value) if here else value
            given.origins[key] = str(path)
    return given


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if name == "limits" and isinstance(value, dict):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield name, value
