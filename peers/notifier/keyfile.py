"""The notifier's secrets: two files of mode 0600 in its data directory.

`notifier.keys` is who it is: a person's key file (`keys.files`), whose id the relay is told as its notifier's.
`push.keys` is what it keeps tokens under, and as whom it speaks to Web Push services:

    registry_secret = "64 hex digits"       the registry cannot be read without it
    vapid_secret = "64 hex digits"          a P-256 secret (RFC 8292); clients subscribe under its public half

They are apart because each can be replaced alone: an identity may come from the environment, as in older setups, and
must not take all subscriptions with it.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tomli_w

from keys.errors import KeyFileError
from keys.files import ClientKeys, read_identity, write_identity
from keys.identity import Identity
from keys.primitives import KEY_SIZE, random_bytes
from keys.private_file import read_private, write_private
from peers.notifier.errors import NotifierError
from peers.notifier.vapid import VapidKey

IDENTITY_FILE: Final = "notifier.keys"
PUSH_FILE: Final = "push.keys"
NICKNAME: Final = "notifier"

_REGISTRY: Final = "registry_secret"
_VAPID: Final = "vapid_secret"
_HEX: Final = re.compile(rf"[0-9a-fA-F]{{{2 * KEY_SIZE}}}")
_HEAD: Final = (
    "# Keys of a blindrelay notifier. Whoever reads this file and the registry can push to all who registered;\n"
    "# without it nobody can read the registry, and every browser has to subscribe anew.\n"
)


@dataclass(frozen=True, slots=True, repr=False)
class PushKeys:
    """What tokens are kept under, and as whom Web Push services know us.

    Args:
        registry: 32 bytes.
        vapid: the key that browsers subscribe under.
    """

    registry: bytes
    vapid: VapidKey

    @classmethod
    def generate(cls) -> "PushKeys":
        """Make new ones."""
        return cls(random_bytes(KEY_SIZE), VapidKey.generate())

    def __repr__(self) -> str:
        return "PushKeys(…)"


def mint(directory: Path) -> list[Path]:
    """Make the files that are missing, and the directory; return which were made.

    Raises:
        KeyFileError: one cannot be written.
    """
    made = mint_push_keys(directory)
    path = directory / IDENTITY_FILE
    if not path.exists():
        write_identity(path, ClientKeys(Identity.generate(), NICKNAME))
        made.append(path)
    return made


def mint_push_keys(directory: Path) -> list[Path]:
    """Make `push.keys` alone, for an identity that comes from elsewhere; otherwise as :func:`mint`."""
    path = directory / PUSH_FILE
    if path.exists():
        return []
    keys = PushKeys.generate()
    fields = {_REGISTRY: keys.registry.hex(), _VAPID: keys.vapid.secret.hex()}
    write_private(path, (_HEAD + tomli_w.dumps(fields)).encode())
    return [path]


def read_push_keys(directory: Path) -> PushKeys:
    """Read `push.keys`.

    Raises:
        KeyFileError: it cannot be used; the text says why and never holds what stands in it.
        NotifierError: it is not there.
    """
    path = directory / PUSH_FILE
    _require(path)
    try:
        values = tomllib.loads(read_private(path).decode())
    except (UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError):
        raise KeyFileError(f"{path} is not a key file: it is no TOML") from None
    if set(values) != {_REGISTRY, _VAPID}:
        raise KeyFileError(f"{path} is to hold {_REGISTRY} and {_VAPID}, and nothing else")
    for name, value in values.items():
        if not isinstance(value, str) or not _HEX.fullmatch(value):
            raise KeyFileError(f"{path}: {name} must be {2 * KEY_SIZE} hex digits and nothing else")
    try:
        return PushKeys(bytes.fromhex(values[_REGISTRY]), VapidKey(bytes.fromhex(values[_VAPID])))
    except ValueError as error:
        raise KeyFileError(f"{path}: {_VAPID}: {error}") from None


def read_notifier_identity(directory: Path) -> Identity:
    """Read `notifier.keys`.

    Raises:
        KeyFileError: it cannot be used.
        NotifierError: it is not there.
    """
    path = directory / IDENTITY_FILE
    _require(path)
    return read_identity(path).identity


def _require(path: Path) -> None:
    # Said here, because the text of read_private names the program that makes a relay's keys.
    if not path.exists():
        raise NotifierError(f"there is no key file {path}; `blindrelay-notifier keygen` makes it")
