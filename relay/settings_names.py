"""What each setting is called: the key in relay.toml, the flag and the variable; all three follow from the field.

`limits.queue_size` is `--limits.queue-size` and `RELAY_LIMITS_QUEUE_SIZE`.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

PREFIX: Final = "RELAY_"
FILE_SUFFIX: Final = "_FILE"
"""Appended to the variable of a secret it names a file that holds the secret, unless a setting has that variable."""
KEY_VARIABLES: Final = (f"{PREFIX}X25519_SECRET", f"{PREFIX}ED25519_SECRET")
"""The relay's own two secrets: no settings, and nobody but `relay.own_keys` looks at their values."""
SECRET_VARIABLES: Final = (*KEY_VARIABLES,)
"""All secrets that are no settings: a module that reads another one by itself has it added here, and it is known."""
NOT_IN_FILE: Final = frozenset(("config",))
"""What cannot stand in relay.toml: it says where that is."""
_MANY: Final = frozenset((list, tuple, set, frozenset))


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting that has a value, be it a field of `Settings` or one of a table in it."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def key(self) -> str:
        """Its name in relay.toml, with the table: `limits.queue_size`."""
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        """Its flag: `--limits.queue-size`."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its variable: `RELAY_LIMITS_QUEUE_SIZE`."""
        return PREFIX + "_".join(self.path).upper()

    @property
    def secret(self) -> bool:
        """Whether its value is shown to nobody: its type is one of pydantic's secrets."""
        return any(part in (SecretStr, SecretBytes) for part in _parts(self.field.annotation))

    @property
    def many(self) -> bool:
        """Whether it holds several values: a flag given again, or a text with commas."""
        return any(part in _MANY for part in _parts(self.field.annotation))

    @property
    def is_path(self) -> bool:
        """Whether it names a file or directory."""
        return any(part is Path for part in _parts(self.field.annotation))

    @property
    def switch(self) -> bool:
        """Whether it is on or off: the flag needs no value."""
        return any(part is bool for part in _parts(self.field.annotation))

    @property
    def value_name(self) -> str:
        """What stands for its value in a help text."""
        parts = list(_parts(self.field.annotation))
        for part in parts:
            if get_origin(part) is Literal:
                return "|".join(map(str, get_args(part)))
        if self.is_path:
            return "PATH"
        return "NUMBER" if int in parts or float in parts else "TEXT"

    @property
    def about(self) -> str:
        """Its docstring, on one line; empty for what goes with the setting before it."""
        return " ".join((self.field.description or "").split())

    def value_of(self, settings: object) -> Any:
        """Return its value in settings."""
        value = settings
        for name in self.path:
            value = getattr(value, name)
        return value


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of, and their origins."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _parts(part)
    elif origin is Annotated:
        yield from _parts(get_args(annotation)[0])
    elif origin is Literal:
        yield annotation
    elif origin is not None:
        yield origin
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


Model_co = TypeVar("Model_co", bound=BaseModel, covariant=True)


class Names(Generic[Model_co]):
    """All settings of a class, in the order in which they stand there.

    Args:
        of: the class; a field whose type is a pydantic dataclass or model is a table.
    """

    def __init__(self, of: type[Model_co]) -> None:
        self.of = of
        self.leaves: Mapping[tuple[str, ...], Leaf] = {leaf.path: leaf for leaf in _leaves(of.model_fields, ())}
        self.tables = frozenset(path[:-1] for path in self.leaves)
        self.by_flag: Mapping[str, Leaf] = {leaf.flag: leaf for leaf in self.leaves.values()}
        self.by_variable: Mapping[str, Leaf] = {leaf.variable: leaf for leaf in self.leaves.values()}
        self.secrets: Mapping[str, Leaf | None] = {
            **dict.fromkeys(SECRET_VARIABLES),
            **{leaf.variable: leaf for leaf in self.leaves.values() if leaf.secret},
        }
        """What may come from the secrets directory, by its variable; None for those that are no settings."""
        self.file_variables: Mapping[str, str] = {
            f"{variable}{FILE_SUFFIX}": variable
            for variable in self.secrets
            if f"{variable}{FILE_SUFFIX}" not in self.by_variable
        }
        """The variables that name a file with a secret, and whose; not where a setting has that variable already."""

    def file_setting(self, leaf: Leaf) -> Leaf | None:
        """Return the setting that is a file of such secrets, and so has the variable of this one with `_FILE`."""
        return self.by_variable.get(f"{leaf.variable}{FILE_SUFFIX}")


def _leaves(fields: Mapping[str, FieldInfo], above: tuple[str, ...]) -> Iterator[Leaf]:
    for name, field in fields.items():
        inner = _table(field.annotation)
        if inner is None:
            yield Leaf((*above, name), field)
        else:
            yield from _leaves(inner, (*above, name))


def _table(annotation: Any) -> Mapping[str, FieldInfo] | None:
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return annotation.model_fields
        if is_dataclass(annotation) and hasattr(annotation, "__pydantic_fields__"):
            return cast("Mapping[str, FieldInfo]", annotation.__pydantic_fields__)
    return None
