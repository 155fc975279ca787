"""The settings of a profile, ``profile.toml``:

    relay = "R0…"                   the relay card
    token_file = "relay.token"      optional: where the relay's admission token is; relative to the profile
    auto_accept = 67108864          optional: bytes up to which offered files are taken unasked; 0 is never
    wake = true                     optional: whether to ask for a push to people who are not there
    read_receipts = true            optional: whether people are told what was read
    stamp_bits = 20                 optional: most bits of work for a deposit in a mailbox; each doubles it

Reading is strict: an unknown key, a wrong type or value are errors that name the file and the key, and no content.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w

from keys.errors import BadInvite, KeyFileError
from keys.invite import RelayCard
from keys.private_file import write_private
from keys.stamp import BITS_MAX
from peers.profile.errors import ProfileError

AUTO_ACCEPT: Final = 64 << 20
"""Bytes up to which files are taken unasked by default: photos and documents, and no film that fills a small disk."""
AUTO_ACCEPT_MAX: Final = (1 << 63) - 1
STAMP_BITS: Final = 20
"""Bits of work that are done for a deposit by default: some seconds of one core at most."""
SIZE_MAX: Final = 16384
"""Most bytes of profile.toml; a real one has some hundreds."""
_HEAD: Final = "# Settings of a blindrelay profile. The programs that use it read them when they start.\n"
_POSITION: Final = re.compile(r"line \d+, column \d+")
_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """What a person has set.

    Args:
        relay: the relay to connect to.
        token_file: where its admission token is, if it asks for one; relative to the directory of the profile.
        auto_accept: bytes up to which offered files are taken unasked; 0 is never.
        wake: whether to ask for a push to people who are not there.
        read_receipts: whether people are told what was read.
        stamp_bits: most bits of a stamp (docs/mailbox.md) that are minted to leave something in a mailbox; 0 to 30.

    Raises:
        ProfileError: a value that cannot be used.
    """

    relay: RelayCard
    token_file: Path | None = None
    auto_accept: int = AUTO_ACCEPT
    wake: bool = True
    read_receipts: bool = True
    stamp_bits: int = STAMP_BITS

    def __post_init__(self) -> None:
        if self.token_file is not None:
            try:
                empty = not str(self.token_file).encode().strip() or not self.token_file.name
            except UnicodeEncodeError:
                raise ProfileError("token_file must be a name in UTF-8") from None
            if empty or "\0" in str(self.token_file):
                raise ProfileError("token_file must name a file")
        if not 0 <= self.auto_accept <= AUTO_ACCEPT_MAX:
            raise ProfileError(f"auto_accept must be between 0 and {AUTO_ACCEPT_MAX} bytes")
        if not 0 <= self.stamp_bits <= BITS_MAX:
            raise ProfileError(f"stamp_bits must be between 0 and {BITS_MAX}")


def read_settings(path: Path) -> ProfileSettings:
    """Read a profile.toml. Who may read or change it is a matter of its directory.

    Raises:
        ProfileError: it cannot be read or used; the text says what to do.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise ProfileError(f'there is no {path}; it holds the relay card: relay = "R0…"') from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read {path}: {_reason(error)}") from None
    if len(raw) > SIZE_MAX:
        raise ProfileError(f"{path} is too big for settings (more than {SIZE_MAX} bytes)")
    values = _parse(path, raw)
    try:
        settings = _settings(values)
    except (ProfileError, BadInvite) as error:
        raise ProfileError(f"{path}: {'relay: ' if isinstance(error, BadInvite) else ''}{error}") from None
    for key in values:
        # A secret pasted before the equals sign is a key too.
        name = key if _KEY.fullmatch(key) else "one with another name"
        raise ProfileError(
            f"{path}: unknown key: {name}; there are relay, token_file, auto_accept, wake, read_receipts and stamp_bits"
        )
    return settings


def write_settings(path: Path, settings: ProfileSettings) -> None:
    """Write a profile.toml: mode 0600, whole or not at all, in place of the one that is there.

    Raises:
        ProfileError: it cannot be written.
    """
    fields: dict[str, Any] = {"relay": settings.relay.text}
    if settings.token_file is not None:
        fields["token_file"] = str(settings.token_file)
    fields |= {
        "auto_accept": settings.auto_accept,
        "wake": settings.wake,
        "read_receipts": settings.read_receipts,
        "stamp_bits": settings.stamp_bits,
    }
    try:
        write_private(path, (_HEAD + tomli_w.dumps(fields)).encode(), overwrite=True)
    except KeyFileError as error:
        raise ProfileError(str(error)) from None


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise ProfileError(f"{path} is not UTF-8 text") from None
    except RecursionError:
        raise ProfileError(f"{path}: its values are nested too deeply") from None
    except ValueError as error:
        # Only the place: the parser's texts quote what they stumbled over.
        place = _POSITION.search(str(error))
        raise ProfileError(f"{path} is not valid TOML{f' ({place[0]})' if place else ''}") from None


def _settings(values: dict[str, Any]) -> ProfileSettings:
    """Return the settings, and take from `values` what they are made of."""
    card = _take(values, "relay", str, "a string")
    if card is None:
        raise ProfileError('relay is missing: it is the relay card, relay = "R0…"')
    token_file = _take(values, "token_file", str, "a string")
    auto_accept = _take(values, "auto_accept", int, "a whole number of bytes")
    wake = _take(values, "wake", bool, "true or false")
    read_receipts = _take(values, "read_receipts", bool, "true or false")
    stamp_bits = _take(values, "stamp_bits", int, "a whole number of bits")
    return ProfileSettings(
        relay=RelayCard.parse(card),
        token_file=None if token_file is None else Path(token_file),
        auto_accept=AUTO_ACCEPT if auto_accept is None else auto_accept,
        wake=True if wake is None else wake,
        read_receipts=True if read_receipts is None else read_receipts,
        stamp_bits=STAMP_BITS if stamp_bits is None else stamp_bits,
    )


def _take(values: dict[str, Any], key: str, kind: type, what: str) -> Any:
    if key not in values:
        return None
    value = values.pop(key)
    if type(value) is not kind:  # not isinstance: true and false are no integers here
        raise ProfileError(f"{key} must be {what}")
    return value


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
