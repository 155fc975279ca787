"""Key files and key settings: where the secrets of a relay or of a person rest.

Both files are TOML, mode 0600, written whole or not at all (see :mod:`keys.private_file`). A relay's:

    x25519_secret = "64 hex digits"         the X25519 secret (32 bytes)
    ed25519_secret = "64 hex digits"        the Ed25519 seed (32 bytes)
    notifier_id = "16 hex digits"           optional: the client id of the push notifier (8 bytes)

A person's has a `nickname` instead of the notifier, and that tells the two apart; "" is a nickname too:

    x25519_secret = "64 hex digits"
    ed25519_secret = "64 hex digits"
    nickname = "Alice"                      at most 256 bytes of UTF-8

Under a passphrase it holds nothing but this table, whose box is ``nonce(24) ciphertext tag(16)`` over
``x_seed(32) ed_seed(32) nickname(utf-8)``, so that the nickname cannot be changed either:

    [sealed]
    kdf = "argon2id"                        the only one
    opslimit = 3                            passes; bounded on reading, see keys.passphrase.Cost
    memlimit = 268435456                    bytes; bounded as well
    salt = "32 hex digits"                  16 bytes
    box = "208 to 720 hex digits"

Reading is strict: an unknown key, a wrong type or length, half a pair are errors that name the file and the key. What
stands in the file is never repeated, for it may be a secret in the wrong place.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w

from keys import passphrase as pw
from keys import primitives as p
from keys.errors import BadInvite, BadKey, KeyFileError
from keys.identity import ID_SIZE, SERVER_ID, Identity
from keys.invite import NICKNAME_MAX, Invite, encode_nickname
from keys.private_file import SIZE_MAX, read_private, write_private

X_VARIABLE: Final = "RELAY_X25519_SECRET"
ED_VARIABLE: Final = "RELAY_ED25519_SECRET"
FILE_SUFFIX: Final = "_FILE"

_X_SECRET: Final = "x25519_secret"  # noqa: S105 - the name of a key
_ED_SECRET: Final = "ed25519_secret"  # noqa: S105
_NOTIFIER_ID: Final = "notifier_id"
_NICKNAME: Final = "nickname"
_SEALED: Final = "sealed"
_SEEDS_SIZE: Final = 2 * p.KEY_SIZE
_BOX_MIN: Final = p.SECRETBOX_OVERHEAD + _SEEDS_SIZE
_HEX: Final = re.compile(r"[0-9a-fA-F]*")
_POSITION: Final = re.compile(r"line \d+, column \d+")
_SERVER_HEAD: Final = (
    "# Keys of a blindrelay server. Whoever reads this file can pose as the server; without it nobody can.\n"
)
_CLIENT_HEAD: Final = (
    "# Keys of a blindrelay client. Whoever reads this file can pose as its owner; without it nobody can.\n"
)
_TYPES: Final = {str: "a string", int: "an integer", dict: "a table"}


@dataclass(frozen=True, slots=True, repr=False)
class ServerKeys:
    """What a relay keeps secret, and whom it lets push.

    Args:
        identity: the relay's keys.
        notifier_id: the client id (8 bytes) of the push notifier, if there is one.

    Raises:
        KeyFileError: a `notifier_id` of another size, or the all-zero one.
    """

    identity: Identity
    notifier_id: bytes | None = None

    def __post_init__(self) -> None:
        if self.notifier_id is None:
            return
        if len(self.notifier_id) != ID_SIZE:
            raise KeyFileError(f"{_NOTIFIER_ID} must have {ID_SIZE} bytes ({2 * ID_SIZE} hex digits)")
        if self.notifier_id == SERVER_ID:
            raise KeyFileError(f"{_NOTIFIER_ID} must not be all zeros: that id belongs to the server")

    def __repr__(self) -> str:
        return "ServerKeys(…)"


@dataclass(frozen=True, slots=True, repr=False)
class ClientKeys:
    """A person's keys and the nickname that they give themselves.

    Raises:
        BadInvite: the nickname is longer than 256 bytes of UTF-8.
    """

    identity: Identity
    nickname: str = ""

    def __post_init__(self) -> None:
        encode_nickname(self.nickname)

    @property
    def invite(self) -> Invite:
        """What they hand to others."""
        return Invite(self.identity.public, self.nickname)

    def __repr__(self) -> str:
        return "ClientKeys(…)"


def read_keys(path: Path, passphrase: Callable[[], bytes] | None = None) -> ServerKeys | ClientKeys:
    """Read a key file of either kind.

    Args:
        path: where it is.
        passphrase: asked for the passphrase, only if the file is sealed under one.

    Raises:
        KeyFileError: it cannot be used; the text says why and what to do.
        OpenError: the passphrase is wrong, or the sealed part was changed: the two cannot be told apart.
    """
    table = _Table.load(path)
    if table.has(_SEALED):
        return _open_client(table, passphrase)
    return _client(table) if table.has(_NICKNAME) else _server(table)


def read_server_keys(path: Path) -> ServerKeys:
    """Read a relay's key file.

    Raises:
        KeyFileError: it cannot be used; the text says why and what to do.
    """
    table = _Table.load(path)
    if table.has(_SEALED) or table.has(_NICKNAME):
        raise KeyFileError(f"{path} is the key file of a client, not of a server")
    return _server(table)


def write_server_keys(path: Path, keys: ServerKeys, *, overwrite: bool = False) -> None:
    """Write a relay's key file: mode 0600, atomically, its directories made with 0700 where they are missing.

    Raises:
        KeyFileError: it exists and `overwrite` is not given, or it cannot be written.
    """
    fields: dict[str, Any] = _secrets(keys.identity)
    if keys.notifier_id is not None:
        fields[_NOTIFIER_ID] = keys.notifier_id.hex()
    _write(path, _SERVER_HEAD, fields, overwrite=overwrite)


def read_identity(path: Path, passphrase: Callable[[], bytes] | None = None) -> ClientKeys:
    """Read a person's key file. Arguments and errors are those of :func:`read_keys`."""
    keys = read_keys(path, passphrase)
    if isinstance(keys, ServerKeys):
        raise KeyFileError(f"{path} is the key file of a server (it has no {_NICKNAME}), not of a client")
    return keys


def write_identity(
    path: Path,
    keys: ClientKeys,
    *,
    passphrase: bytes | None = None,
    cost: pw.Cost = pw.DEFAULT_COST,
    overwrite: bool = False,
    random_bytes: Callable[[int], bytes] = p.random_bytes,
) -> None:
    """Write a person's key file as :func:`write_server_keys` does, sealed if a `passphrase` is given.

    Raises:
        KeyFileError: it exists and `overwrite` is not given, it cannot be written, or the passphrase is empty or takes
            more memory than there is.
    """
    if passphrase is None:
        fields: dict[str, Any] = {**_secrets(keys.identity), _NICKNAME: keys.nickname}
    else:
        content = b"".join(keys.identity.seeds) + encode_nickname(keys.nickname)
        try:
            sealed = pw.seal(content, passphrase, cost, random_bytes)
        except ValueError as error:
            raise KeyFileError(f"cannot write {path}: {error}") from None
        except MemoryError:
            raise _no_memory(path, cost) from None
        fields = {
            _SEALED: {
                "kdf": "argon2id",
                "opslimit": cost.opslimit,
                "memlimit": cost.memlimit,
                "salt": sealed.salt.hex(),
                "box": sealed.box.hex(),
            }
        }
    _write(path, _CLIENT_HEAD, fields, overwrite=overwrite)


def server_keys_from_environment(environ: Mapping[str, str]) -> ServerKeys | None:
    """Return the keys that `environ` gives, or None if it gives none.

    RELAY_X25519_SECRET and RELAY_ED25519_SECRET hold 64 hex digits each. With ``_FILE`` appended they name files that
    do (a line break may follow). Of these the mode is not checked: secrets that a container runtime mounts are readable
    by all within it.

    Raises:
        KeyFileError: one key without the other, a key given both ways, an empty variable (nobody means that, and taking
            it for none would change the relay's identity in silence), or a value that is no key.
    """
    x_seed = _from_environment(environ, X_VARIABLE)
    ed_seed = _from_environment(environ, ED_VARIABLE)
    if x_seed is None and ed_seed is None:
        return None
    if x_seed is None or ed_seed is None:
        given, missing = (ED_VARIABLE, X_VARIABLE) if x_seed is None else (X_VARIABLE, ED_VARIABLE)
        raise KeyFileError(f"{given} is given, so {missing} (or {missing}{FILE_SUFFIX}) is needed too: they are a pair")
    return ServerKeys(_identity("the environment", x_seed, ed_seed))


class _Table:
    """One table of a key file. Whatever is taken from it is checked, and what is left over is an error."""

    def __init__(self, path: Path, values: dict[str, Any], name: str = "") -> None:
        self.path = path
        self._values = dict(values)
        self._prefix = f"{name}." if name else ""

    @classmethod
    def load(cls, path: Path) -> "_Table":
        content = read_private(path)
        try:
            return cls(path, tomllib.loads(content.decode()))
        except UnicodeDecodeError:
            raise KeyFileError(f"{path} is not a key file: it is not UTF-8 text") from None
        except RecursionError:
            raise KeyFileError(f"{path} is not a key file: its values are nested too deeply") from None
        except ValueError as error:
            # Only the place: the parser's texts quote what they stumbled over.
            place = _POSITION.search(str(error))
            raise KeyFileError(f"{path} is not valid TOML{f' ({place[0]})' if place else ''}") from None

    def has(self, key: str) -> bool:
        return key in self._values

    def error(self, text: str) -> KeyFileError:
        return KeyFileError(f"{self.path}: {text}")

    def take(self, key: str, kind: type) -> Any:
        if key not in self._values:
            raise self.error(f"{self._prefix}{key} is missing")
        value = self._values.pop(key)
        if type(value) is not kind:  # not isinstance: true and false are no integers here
            raise self.error(f"{self._prefix}{key} must be {_TYPES[kind]}")
        return value

    def take_hex(self, key: str, least: int, most: int | None = None) -> bytes:
        try:
            return _unhex(self.take(key, str), least, most)
        except ValueError as error:
            raise self.error(f"{self._prefix}{key} {error}") from None

    def take_table(self, key: str) -> "_Table":
        return _Table(self.path, self.take(key, dict), f"{self._prefix}{key}")

    def finish(self) -> None:
        for key in self._values:
            # A secret pasted before the equals sign is a key too.
            name = (
                f"{self._prefix}{key}" if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,31}", key) else "one with another name"
            )
            raise self.error(f"unknown key: {name}")


def _server(table: _Table) -> ServerKeys:
    identity = _take_identity(table)
    notifier_id = table.take_hex(_NOTIFIER_ID, ID_SIZE) if table.has(_NOTIFIER_ID) else None
    table.finish()
    try:
        return ServerKeys(identity, notifier_id)
    except KeyFileError as error:
        raise table.error(str(error)) from None


def _client(table: _Table) -> ClientKeys:
    identity = _take_identity(table)
    nickname = table.take(_NICKNAME, str)
    table.finish()
    try:
        return ClientKeys(identity, nickname)
    except BadInvite as error:
        raise table.error(str(error)) from None


def _open_client(table: _Table, passphrase: Callable[[], bytes] | None) -> ClientKeys:
    sealed = table.take_table(_SEALED)
    table.finish()
    if sealed.take("kdf", str) != "argon2id":
        raise sealed.error("sealed.kdf must be argon2id")
    opslimit, memlimit = sealed.take("opslimit", int), sealed.take("memlimit", int)
    salt = sealed.take_hex("salt", p.SALT_SIZE)
    ciphertext = sealed.take_hex("box", _BOX_MIN, _BOX_MIN + NICKNAME_MAX)
    sealed.finish()
    try:
        box = pw.SealedBox(pw.Cost(opslimit, memlimit), salt, ciphertext)
    except ValueError as error:
        raise sealed.error(f"sealed: {error}") from None
    if passphrase is None:
        raise KeyFileError(f"{table.path} is sealed under a passphrase, and none is given")
    try:
        content = box.open(passphrase())
    except MemoryError:
        raise _no_memory(table.path, box.cost) from None
    identity = _identity(str(table.path), content[: p.KEY_SIZE], content[p.KEY_SIZE : _SEEDS_SIZE])
    try:
        return ClientKeys(identity, content[_SEEDS_SIZE:].decode())
    except UnicodeDecodeError:
        raise table.error("the sealed nickname is not UTF-8") from None


def _take_identity(table: _Table) -> Identity:
    has_x, has_ed = table.has(_X_SECRET), table.has(_ED_SECRET)
    if has_x != has_ed:
        given, missing = (_X_SECRET, _ED_SECRET) if has_x else (_ED_SECRET, _X_SECRET)
        raise table.error(f"has {given} but no {missing}: they are a pair")
    x_seed, ed_seed = table.take_hex(_X_SECRET, p.KEY_SIZE), table.take_hex(_ED_SECRET, p.KEY_SIZE)
    return _identity(str(table.path), x_seed, ed_seed)


def _identity(where: str, x_seed: bytes, ed_seed: bytes) -> Identity:
    try:
        return Identity(x_seed, ed_seed)
    except BadKey as error:
        raise KeyFileError(f"{where}: these keys must not be used: {error}") from None


def _secrets(identity: Identity) -> dict[str, str]:
    x_seed, ed_seed = identity.seeds
    return {_X_SECRET: x_seed.hex(), _ED_SECRET: ed_seed.hex()}


def _write(path: Path, head: str, fields: dict[str, Any], *, overwrite: bool) -> None:
    write_private(path, (head + tomli_w.dumps(fields)).encode(), overwrite=overwrite)


def _from_environment(environ: Mapping[str, str], name: str) -> bytes | None:
    file_name = name + FILE_SUFFIX
    if name in environ and file_name in environ:
        raise KeyFileError(f"{name} and {file_name} are both given: keep one")
    source = name if name in environ else file_name
    value = environ.get(source)
    if value is None:
        return None
    if not value:
        raise KeyFileError(f"{source} is empty: give it a value or remove it")
    if source == file_name:
        # The texts name the variable alone: what it holds may be the secret itself, given to the wrong variable.
        try:
            with Path(value).open("rb") as file:
                # Latin-1 takes any byte; what is no hex digit is told below.
                value = file.read(SIZE_MAX).decode("latin-1").rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise KeyFileError(f"the file of {source} cannot be read: {reason or 'not a file name'}") from None
        source = f"the file of {source}"
    try:
        return _unhex(value, p.KEY_SIZE)
    except ValueError as error:
        raise KeyFileError(f"{source} {error}") from None


def _unhex(text: str, least: int, most: int | None = None) -> bytes:
    """Return `text` as bytes, `least` of them or up to `most`. Not bytes.fromhex alone: that skips white space."""
    digits = str(2 * least) if most is None else f"{2 * least} to {2 * most}"
    if not _HEX.fullmatch(text):
        raise ValueError(f"must be {digits} hex digits and nothing else")
    if len(text) % 2 or not 2 * least <= len(text) <= 2 * (least if most is None else most):
        raise ValueError(f"has {len(text)} hex digits instead of {digits}")
    return bytes.fromhex(text)


def _no_memory(path: Path, cost: pw.Cost) -> KeyFileError:
    return KeyFileError(f"{path}: its passphrase takes {cost.memlimit >> 20} MiB of memory, which cannot be had")
