"""The registry of telefon's notifier: a JSON file. Read leniently, for it has had several forms; never written.

    {ID: TOKENS, …}    or  [{"id": ID, …TOKEN}, …]    also under a key "registry", "tokens", "clients" or "devices"

An ID is 16 hex digits, or base64 of 8 bytes. TOKENS is one TOKEN or a list of them. A TOKEN is

    {"kind": 1, "token": …}       the kind as a number, a number in a text, or a name
    {"endpoint": …, "keys": …}    a Web Push subscription as it is
    "…"                           a text: a subscription's JSON, else an FCM token

What cannot be read is passed over and named by its position: ids and tokens are not repeated.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from keys.identity import ID_SIZE, SERVER_ID
from peers.notifier.errors import NotifierError
from wire.commands import PushKind
from wire.limits import MAX_PUSH_TOKEN

SIZE_MAX: Final = 256 << 20
"""Most bytes of such a file: half a million of the longest subscriptions."""
_WRAPPERS: Final = ("registry", "tokens", "clients", "devices")
_ID_NAMES: Final = ("id", "client_id", "clientId", "sender_id", "senderId")
_TOKEN_NAMES: Final = ("token", "push_token", "pushToken", "subscription")
_KIND_NAMES: Final = ("kind", "type", "service")
_HEX: Final = re.compile(rf"[0-9a-fA-F]{{{2 * ID_SIZE}}}")
_KINDS: Final = {
    **{each.name.lower().replace("_", ""): each for each in PushKind},
    "android": PushKind.FCM,
    "firebase": PushKind.FCM,
    "vapid": PushKind.WEB_PUSH,
    "web": PushKind.WEB_PUSH,
    "ntfy": PushKind.UNIFIED_PUSH,
    "ios": PushKind.APNS,
}


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """A registration: id, kind and token."""

    client_id: bytes
    kind: int
    token: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Read:
    """What was found: registrations, and what could not be read, each as `entry 3, token 2: why`."""

    entries: list[Entry]
    problems: list[str]


Check = Callable[[int, bytes], None]
"""Takes a kind and a token, and raises ValueError for a token that can never be used."""


def _any(_kind: int, _token: bytes) -> None:
    """Take any token."""


def read_registry(path: Path, check: Check = _any) -> Read:
    """Read the file.

    Raises:
        NotifierError: it cannot be read, or is no such registry at all.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise NotifierError(f"cannot read the registry {path}: {error.strerror}") from None
    if len(raw) > SIZE_MAX:
        raise NotifierError(f"the registry {path} has more than {SIZE_MAX} bytes")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        # Without the parser's own text: it may quote what it stumbled over.
        raise NotifierError(
            f"the registry {path} is not JSON; remove the setting `registry` to go on without"
        ) from None
    return parse_registry(content, path, check)


def parse_registry(content: Any, path: Path = Path("registry.json"), check: Check = _any) -> Read:
    """Read the content of the file.

    Raises:
        NotifierError: it is no such registry at all.
    """
    while isinstance(content, dict) and not any(_is_id(key) for key in content):
        inner = [content[name] for name in _WRAPPERS if isinstance(content.get(name), dict | list)]
        if not inner:
            break
        content = inner[0]
    if isinstance(content, dict):
        pairs: Iterator[tuple[Any, Any]] = iter(content.items())
    elif isinstance(content, list):
        pairs = ((_first(each, _ID_NAMES), each) for each in content)
    else:
        raise NotifierError(f"{path} is no registry: neither an object nor a list")
    read = Read([], [])
    for number, (name, value) in enumerate(pairs, 1):
        client_id = _id(name)
        if client_id is None:
            read.problems.append(f"entry {number}: no id of {ID_SIZE} bytes")
            continue
        tokens = value if isinstance(value, list) else _tokens_of(value)
        for place, each in enumerate(tokens, 1):
            try:
                kind, token = _token(each)
                check(kind, token)
            except ValueError as error:
                read.problems.append(f"entry {number}, token {place}: {error}")
            else:
                read.entries.append(Entry(client_id, kind, token))
    return read


def _first(value: Any, names: tuple[str, ...]) -> Any:
    found = [value[name] for name in names if name in value] if isinstance(value, dict) else []
    return found[0] if found else None


def _tokens_of(value: Any) -> list[Any]:
    """Return the tokens of what stands under an id, or beside it."""
    if isinstance(value, dict):
        several = _first(value, ("tokens", "devices"))
        if isinstance(several, list):
            return several
    return [value]


def _is_id(value: Any) -> bool:
    return _id(value) is not None


def _id(value: Any) -> bytes | None:
    if not isinstance(value, str):
        return None
    if _HEX.fullmatch(value):
        client_id = bytes.fromhex(value)
    else:
        try:
            text = value.rstrip("=").replace("-", "+").replace("_", "/")
            client_id = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            return None
    return client_id if len(client_id) == ID_SIZE and client_id != SERVER_ID else None


def _token(value: Any) -> tuple[int, bytes]:
    kind = None
    if isinstance(value, dict) and "endpoint" not in value:
        kind = _kind(_first(value, _KIND_NAMES))
        value = _first(value, _TOKEN_NAMES)
    if isinstance(value, dict):
        if "endpoint" not in value:
            raise ValueError("no token")
        token, guess = json.dumps(value, separators=(",", ":")), PushKind.WEB_PUSH
    elif isinstance(value, str) and value:
        token = value
        guess = PushKind.WEB_PUSH if value.lstrip().startswith("{") else PushKind.FCM
    else:
        raise ValueError("no token")
    try:
        encoded = token.encode()
    except UnicodeEncodeError:
        raise ValueError("a token that is no text") from None
    if len(encoded) > MAX_PUSH_TOKEN:
        raise ValueError(f"a token of more than {MAX_PUSH_TOKEN} bytes")
    return guess if kind is None else kind, encoded


def _kind(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        name = re.sub(r"[^a-z0-9]", "", value.lower())
        value = int(name) if re.fullmatch(r"[0-9]{1,3}", name) else _KINDS.get(name)
    if type(value) is bool or not isinstance(value, int) or value not in set(PushKind) - {PushKind.NONE}:
        raise ValueError("a kind that nobody knows")
    return int(value)
