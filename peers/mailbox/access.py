"""Who may deposit, for whom: the operator's files, as a rule. Tokens are kept as digests; each is shown once."""

import base64
import re
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from keys.errors import KeyFileError, KeysError
from keys.invite import INVITE_PREFIX, Invite
from keys.primitives import KEY_SIZE, random_bytes
from keys.private_file import read_private, write_private
from peers.mailbox.rules import AccessRule, Refused, check_recipient, token_digest
from peers.mailbox.settings import Settings
from peers.service.errors import BadSettings, ServiceError

TOKENS_FILE: Final = "mailbox.tokens"
_TOKEN_BYTES: Final = 24
_LABEL_MOST: Final = 64
_TOKENS_MOST: Final = 100
"""Each deposit is compared with all of them, and a private file has 16 KiB at most."""
_SHOWN: Final = 8
"""Hex digits of a digest by which a token is named."""
_SIZE_MOST: Final = 16 << 20
_HEX: Final = re.compile(rf"[0-9a-fA-F]{{{2 * KEY_SIZE}}}")
_LABEL: Final = frozenset(string.ascii_letters + string.digits + " ._@+-")
_HEAD: Final = (
    "# Tokens of a blindrelay mailbox, as digests: whoever shows the token of one may deposit.\n"
    "# `blindrelay-mailbox token` changes this file; the mailbox reads it when it starts and at SIGHUP.\n"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that may be shown.

    Attributes:
        digest: 32 bytes.
        label: what the operator calls it.
    """

    digest: bytes = field(repr=False)
    label: str

    @property
    def name(self) -> str:
        """By what it is listed and revoked; it tells nothing of the token."""
        return self.digest.hex()[:_SHOWN]


def read_tokens(directory: Path) -> list[Token]:
    """Return the tokens of a data directory, the oldest first; none if there is no file.

    Raises:
        KeyFileError: the file cannot be used.
    """
    path = directory / TOKENS_FILE
    if not path.exists():
        return []
    try:
        lines = read_private(path).decode().splitlines()
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is not UTF-8 text") from None
    tokens = []
    for number, line in enumerate(lines, 1):
        digest, _, label = line.strip().partition(" ")
        if not digest or digest.startswith("#"):
            continue
        if not _HEX.fullmatch(digest):
            raise KeyFileError(f"{path}: line {number} does not begin with {2 * KEY_SIZE} hex digits")
        tokens.append(Token(bytes.fromhex(digest), label.strip()))
    return tokens


def new_token(directory: Path, label: str) -> str:
    """Make a token, and write its digest down; return the token, which stands nowhere else.

    Raises:
        ServiceError: the label cannot be used, or there are too many.
        KeyFileError: the file cannot be read or written.
    """
    if len(label) > _LABEL_MOST or not set(label) <= _LABEL:
        raise ServiceError(f"a label has at most {_LABEL_MOST} letters, digits, blanks and . _ @ + -")
    tokens = read_tokens(directory)
    if len(tokens) >= _TOKENS_MOST:
        raise ServiceError(f"there are {_TOKENS_MOST} tokens already: revoke some")
    token = base64.urlsafe_b64encode(random_bytes(_TOKEN_BYTES)).decode()
    _write(directory, [*tokens, Token(token_digest(token.encode()), label.strip())])
    return token


def revoke_token(directory: Path, name: str) -> Token | None:
    """Take a token away; return it, or None if there is no such one.

    Raises:
        ServiceError: the name is that of several.
        KeyFileError: the file cannot be read or written.
    """
    tokens = read_tokens(directory)
    found = [token for token in tokens if len(name) >= _SHOWN and token.digest.hex().startswith(name.lower())]
    if len(found) > 1:
        raise ServiceError("several tokens begin so: write more of its digest")
    if not found:
        return None
    _write(directory, [token for token in tokens if token is not found[0]])
    return found[0]


def _write(directory: Path, tokens: list[Token]) -> None:
    lines = "".join(f"{token.digest.hex()} {token.label}".rstrip() + "\n" for token in tokens)
    write_private(directory / TOKENS_FILE, (_HEAD + lines).encode(), overwrite=True)


def read_recipients(path: Path) -> frozenset[bytes]:
    """Return the X25519 keys that a file of recipients names.

    Raises:
        BadSettings: it cannot be read, or a line names nobody; the text has the line's number and not what it holds.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_SIZE_MOST + 1)
        text = raw.decode()
    except OSError as error:
        raise BadSettings([f"recipients: cannot read {path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise BadSettings([f"recipients: {path} is not UTF-8 text"]) from None
    if len(raw) > _SIZE_MOST:
        raise BadSettings([f"recipients: {path} is larger than {_SIZE_MOST} bytes"])
    found, problems = set(), []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].split()
        if not entry:
            continue
        try:
            found.add(_read_recipient(entry[0]))
        except ServiceError as error:
            problems.append(f"recipients: line {number} of {path} {error}")
    if problems:
        raise BadSettings(problems)
    return frozenset(found)


def _read_recipient(text: str) -> bytes:
    if text.startswith(INVITE_PREFIX):
        try:
            return Invite.parse(text).public.x_pub
        except KeysError as error:
            raise ServiceError(f"begins as an invite and is none that can be used: {error}") from None
    if not _HEX.fullmatch(text):
        raise ServiceError(f"is neither an invite K0… nor a key of {2 * KEY_SIZE} hex digits")
    x_pub = bytes.fromhex(text)
    try:
        check_recipient(x_pub)
    except Refused:
        raise ServiceError(f"has {2 * KEY_SIZE} hex digits that can be nobody's key: copy it again") from None
    return x_pub


def read_access(settings: Settings) -> AccessRule:
    """Return the rule that the settings and their files make.

    Raises:
        BadSettings: a file cannot be used, or tokens are asked for and there are none.
        KeyFileError: the file of tokens cannot be used.
    """
    recipients = None if settings.recipients is None else read_recipients(settings.recipients)
    if not settings.tokens:
        return AccessRule(recipients)
    tokens = tuple(token.digest for token in read_tokens(settings.data_dir))
    if not tokens:
        # A rule without tokens would be one that asks for none.
        raise BadSettings(["tokens is on, and there is none yet: make one by `blindrelay-mailbox token new`"])
    return AccessRule(recipients, tokens)
