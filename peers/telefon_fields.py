"""The fields of a telefon account file, taken one by one: each checked, each error naming its place and no content."""

import base64
import binascii
import json
import re
from typing import Any, Final

_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_MISSING: Final = object()


class AccountError(Exception):
    """An account file that cannot be read or written. The text names the field and says what to do; no secrets."""


class Fields:
    """One object of the file. What is taken from it is checked, and errors name it; what is left over is let be."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix

    @classmethod
    def parse(cls, text: str, what: str) -> "Fields":
        """Return the fields of a JSON object; `what` is its name in errors.

        Raises:
            AccountError: it is none.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            # Only the place: no parser promises not to quote what it stumbled over.
            raise AccountError(f"{what} is not valid JSON (line {error.lineno}, column {error.colno})") from None
        except (ValueError, RecursionError):  # a number of thousands of digits; values nested too deeply
            raise AccountError(f"{what} is not JSON that can be read") from None
        if not isinstance(values, dict):
            raise AccountError(f"{what} must be a JSON object")
        return cls(values)

    @classmethod
    def of(cls, value: object, place: str) -> "Fields":
        """Return the fields of a value that stands at `place`.

        Raises:
            AccountError: it is no object.
        """
        if not isinstance(value, dict):
            raise AccountError(f"{place}: must be an object")
        return cls(value, f"{place}.")

    def error(self, name: str, text: str) -> AccountError:
        """Return the error that says `text` of the field `name`."""
        return AccountError(f"{self._prefix}{name}: {text}")

    def take(self, name: str, *, default: object = _MISSING) -> Any:
        """Return a value of any kind; without `default` one that is missing is an AccountError."""
        value = self._values.get(name, default)
        if value is _MISSING:
            raise self.error(name, "is missing")
        return value

    def take_text(self, name: str, *, default: str | None = None) -> str:
        """Return a string; null is as good as missing."""
        value = self.take(name, default=None)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(name, "is missing")
        if not isinstance(value, str):
            raise self.error(name, "must be a string")
        return value

    def take_fields(self, name: str) -> "Fields":
        """Return an object within this one."""
        return Fields.of(self.take(name), f"{self._prefix}{name}")

    def take_bytes(self, name: str, size: int | None = None) -> bytes:
        """Return bytes (see :func:`unpack`)."""
        try:
            return unpack(self.take_text(name), size)
        except ValueError as error:
            raise self.error(name, str(error)) from None

    def has(self, name: str) -> bool:
        """Tell whether there is such a field, be it null."""
        return name in self._values


def unpack(text: str, size: int | None) -> bytes:
    """Return bytes from base64, base64url or, where `size` says how long they are, hex.

    The spellings of one size differ in length, so that a text means the same in whatever way it is looked at.

    Raises:
        ValueError: it is none of these, or of another size; the text says which and does not repeat it.
    """
    text = "".join(text.split())
    if size is not None and len(text) == 2 * size and _HEX.fullmatch(text):
        return bytes.fromhex(text)
    body = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise ValueError("is neither base64 nor hex" if size is not None else "is not base64") from None
    if size is not None and len(raw) != size:
        raise ValueError(f"has {len(raw)} bytes instead of {size}")
    return raw
