"""Where settings come from: flags, variables, the secrets directory, relay.toml; each value with the place it was set.

Each source is read whole, and what is wrong with it is noted and left out: all problems are told at once. The texts of
flags, variables and files of secrets are turned into values by pydantic, later and in the same way.
"""

import json
import os
import re
import shlex
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relay.settings_names import FILE_SUFFIX, KEY_VARIABLES, NOT_IN_FILE, PREFIX, SECRET_VARIABLES, Leaf, Names
from relay.settings_problems import Origin, closest

_SECRET_MOST: Final = 16384
"""Bytes that are read of a file with a secret, as of a key file."""
_TRUTHS: Final = frozenset(("true", "false", "yes", "no", "on", "off", "1", "0"))
_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH
_PART: Final = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
# A table's head, or a key with what follows it. Each character can be matched in one way: it takes linear time.
_LINE: Final = re.compile(
    r"""\s*(?:\[([^\[\]]+)\]|((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=)"""
)


@dataclass(slots=True)
class Given:
    """What one source gives."""

    values: dict[tuple[str, ...], Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], Origin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, leaf: Leaf, value: Any, origin: Origin) -> None:
        """Note a value and its place."""
        self.values[leaf.path] = value
        self.origins[leaf.path] = origin


class HelpWanted(Exception):
    """`--help` is among the flags."""


# --- Flags -----------------------------------------------------------------------------------------------------------


def from_flags(arguments: Sequence[str], names: Names[Any]) -> Given:
    """Read `--name value` and `--name=value`; a switch also as `--name` and `--no-name`, of several each again.

    A value never stands in what is said of an unknown flag: it may be a secret in the wrong place.

    Raises:
        HelpWanted: for `-h` and `--help`.
    """
    given = Given()
    several: dict[Leaf, list[str]] = {}
    waiting = list(arguments)
    count = len(waiting)
    while waiting:
        argument = waiting.pop(0)
        if argument in ("-h", "--help"):
            raise HelpWanted
        if not argument.startswith("--"):
            hint = closest(argument, names.by_flag) or "; every value follows its flag"
            given.problems.append(f"argument {count - len(waiting)} is no flag and follows none{hint}")
            continue
        name, equals, text = argument.partition("=")
        leaf = names.by_flag.get(name)
        if leaf is None and not equals:
            leaf = names.by_flag.get("--" + name.removeprefix("--no-"))
            if leaf is not None and leaf.switch and name.startswith("--no-"):
                given.add(leaf, "false", Origin("flag", name))
                continue
            leaf = None
        if leaf is None:
            given.problems.append(f"{name}: there is no such flag{closest(name, names.by_flag)}; see --help")
            if not equals and waiting and not waiting[0].startswith("--"):
                waiting.pop(0)
            continue
        if not equals:
            if leaf.switch and not (waiting and waiting[0].lower() in _TRUTHS):
                text = "true"
            elif waiting and not waiting[0].startswith("--"):
                text = waiting.pop(0)
            else:
                given.problems.append(f"{name}: its value is missing; write {name} {leaf.value_name}")
                continue
        if leaf.secret:
            other = names.file_setting(leaf)
            file = f"{leaf.variable}{FILE_SUFFIX}" if other is None else other.flag
            given.problems.append(
                f"{name}: a secret cannot be a flag, for everybody on this machine can read those; set "
                f"{leaf.variable}, {file}, or {leaf.variable.lower()} in the secrets directory"
            )
        elif leaf.many:
            several.setdefault(leaf, []).extend(_several(text))
            given.add(leaf, several[leaf], Origin("flag", name))
        else:
            given.add(leaf, text, Origin("flag", name))
    return given


def _several(text: str) -> list[Any]:
    """Return the values of a text: JSON if it looks so, else parted by commas."""
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError:
            return [text]  # which is then told to be none
        return values if isinstance(values, list) else [text]
    return [part for part in (part.strip() for part in text.split(",")) if part]


# --- Variables -------------------------------------------------------------------------------------------------------


def from_variables(environ: Mapping[str, str], names: Names[Any]) -> Given:
    """Read `RELAY_…`, and for secrets `RELAY_…_FILE`, where no setting is called so."""
    given = Given()
    files = names.file_variables
    known = [*names.by_variable, *SECRET_VARIABLES, *files]
    unknown = 0
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX):
            continue
        leaf = names.by_variable.get(name)
        if leaf is not None:
            text = environ[name]
            given.add(leaf, _several(text) if leaf.many and not leaf.secret else text, Origin("variable", name))
        elif name in files:
            leaf = names.secrets[files[name]]
            if leaf is None:
                continue
            if leaf.variable in environ:
                given.problems.append(f"{name} and {leaf.variable} are both set: remove one of them")
            else:
                _read_secret(given, leaf, Path(environ[name]), Origin("variable", name))
        elif name not in SECRET_VARIABLES:
            unknown += 1
            given.problems.append(f"{name}: there is no such setting{closest(name, known)}; see --help")
    if unknown and f"{PREFIX}SERVICE_HOST" in environ:
        given.problems.append(
            f"{PREFIX}SERVICE_HOST is set by Kubernetes for a service named relay: set enableServiceLinks: false, or "
            "name the service differently"
        )
    return given


# --- Secrets ---------------------------------------------------------------------------------------------------------


def secret_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a secrets directory whose names begin as our variables do: the variable, and the file.

    The case of the name makes no difference: relay_x25519_secret is for RELAY_X25519_SECRET. What begins otherwise is
    another program's; directories of secrets are shared. As with `_FILE` the mode is not looked at: what a container
    runtime mounts is readable by all within it.

    Raises:
        OSError: the directory cannot be read.
    """
    for path in sorted(directory.iterdir()):
        if path.name.upper().startswith(PREFIX):
            yield path.name.upper(), path


def from_secrets(directory: Path, named: Origin, names: Names[Any]) -> Given:
    """Read the secrets directory: one file for each secret, and no setting that is none."""
    given = Given()
    try:
        files = list(secret_files(directory))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no directory can have this name"
        given.problems.append(f"secrets_dir is {str(directory)!r} ({named}): cannot read it: {reason}")
        return given
    for variable, path in files:
        if variable not in names.secrets:
            leaf = names.by_variable.get(variable)
            what = (
                f"there is no such secret{closest(variable, names.secrets)}"
                if leaf is None
                else f"{leaf.key} is no secret; set it as {leaf.variable}, {leaf.flag} or in relay.toml"
            )
            given.problems.append(f"{path}: {what}")
            continue
        leaf = names.secrets[variable]
        if leaf is not None:
            _read_secret(given, leaf, path, Origin("secrets", str(path)))
    return given


def _read_secret(given: Given, leaf: Leaf, path: Path, origin: Origin) -> None:
    try:
        # Without O_NONBLOCK a pipe under this name would hold us until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = os.read(descriptor, _SECRET_MOST + 1) if regular else b""
        finally:
            os.close(descriptor)
        text = content.decode().strip()
    except UnicodeDecodeError:
        given.problems.append(f"{leaf.key} ({origin}): {path} is not UTF-8 text")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
        given.problems.append(f"{leaf.key} ({origin}): cannot read {str(path)!r}: {reason}")
    else:
        if not regular:
            given.problems.append(f"{leaf.key} ({origin}): {path} is not a regular file")
        elif len(content) > _SECRET_MOST:
            given.problems.append(f"{leaf.key} ({origin}): {path} has more than {_SECRET_MOST} bytes")
        else:
            given.add(leaf, text, origin)


# --- relay.toml ------------------------------------------------------------------------------------------------------


def from_file(path: Path, names: Names[Any]) -> Given:
    """Read relay.toml. A path in it that is not absolute counts from the directory of the file, wherever we run."""
    given = Given()
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        given.problems.append(f"{path} is not TOML: {error}")
    except UnicodeDecodeError:
        given.problems.append(f"{path} is not TOML: it is not UTF-8 text")
    except RecursionError:
        given.problems.append(f"{path} is not TOML that can be used: its values are nested too deeply")
    except OSError as error:
        given.problems.append(f"cannot read {path}: {error.strerror}")
    else:
        _take(given, table, (), _Where(path, text), names)
        if mode & _OTHERS and any(names.leaves[at].secret for at in given.values):
            given.problems.append(
                f"{path} holds a secret and is open to others (mode {stat.S_IMODE(mode):04o}); close it with: "
                f"chmod o= {shlex.quote(str(path))}"
            )
    return given


class _Where:
    """Finds the lines on which keys stand: TOML's own reader tells none."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._lines: dict[tuple[str, ...], list[int]] = {}
        table: tuple[str, ...] = ()
        for number, line in enumerate(text.splitlines(), 1):
            found = _LINE.match(line)
            if found is None:
                continue
            key = tuple(part.strip("\"'") for part in _PART.findall(found[1] or found[2]))
            if found[1] is not None:
                table = key
                self._lines.setdefault(key, []).append(number)
            else:
                self._lines.setdefault((*table, *key), []).append(number)

    def __call__(self, key: tuple[str, ...]) -> Origin:
        lines = self._lines.get(key, [])
        # Within a text of several lines there may be what looks like a key: rather no line than a wrong one.
        return Origin("file", str(self.path), lines[0] if len(lines) == 1 else None)


def _take(given: Given, table: Mapping[str, Any], above: tuple[str, ...], where: _Where, names: Names[Any]) -> None:
    for name, value in table.items():
        path = (*above, name)
        origin = where(path)
        leaf = names.leaves.get(path)
        if leaf is not None and leaf.key not in NOT_IN_FILE:
            given.add(leaf, _from_here(value, where.path) if leaf.is_path else value, origin)
        elif path in names.tables:
            if isinstance(value, dict):
                _take(given, value, path, where, names)
            else:
                given.problems.append(
                    f"{'.'.join(path)} ({origin}): it is a table; write [{'.'.join(path)}] above its keys"
                )
        else:
            key = ".".join(path)
            if leaf is not None:
                what = "it says where this file is; give it as a flag or a variable"
            elif PREFIX + key.upper() in KEY_VARIABLES:
                what = (
                    "the relay's keys have no place here; name their file with the key `keys`, or set "
                    f"{PREFIX}{key.upper()}{FILE_SUFFIX}"
                )
            else:
                known = [each.key for each in names.leaves.values()]
                # By its last name too: what stands above or below the table that it belongs to.
                hint = closest(key, known) or closest(name, [each for each in known if each.endswith(f".{name}")])
                moved = [each for each in known if each.rpartition(".")[2] == name]
                what = f"there is no such key{hint or (f'; did you mean {moved[0]}?' if moved else '')}"
            given.problems.append(f"{key} ({origin}): {what}")


def _from_here(value: Any, file: Path) -> Any:
    """Return a path of relay.toml, or several, as they are meant."""
    if isinstance(value, list):
        return [_from_here(each, file) for each in value]
    # Nothing is made of an empty text: it is refused, and would otherwise be the directory.
    return str(file.parent / value) if isinstance(value, str) and value else value
