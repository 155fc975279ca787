"""Shared admission tokens: where they come from, and how a client shows one (PROTOCOL.md §8.8).

A token is a password for the relay as a whole: whoever has it may knock. It says nothing about who they are.
"""

import re
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs

from keys.errors import KeyFileError
from keys.primitives import KEY_SIZE, constant_time_equal, keyed_digest, random_bytes
from keys.private_file import read_private
from relay.access import AccessError
from relay.opening import Opening

if TYPE_CHECKING:
    from relay.settings import Settings

SETTING: Final = "token"
"""What errors call tokens of a variable, relay.toml or the secrets directory, and not of a file of their own."""
SUBPROTOCOL: Final = "blindrelay"
"""The subprotocol that the relay selects where it is offered: a browser that offered any insists on an answer."""
_OFFER: Final = "token."
_FORM: Final = re.compile(r"[A-Za-z0-9._~-]{16,128}")
_HOW: Final = (
    "a token has 16 to 128 characters of A-Z a-z 0-9 . _ ~ -, so that it is spelled alike in a header, a subprotocol "
    "and a URL; `openssl rand -hex 16` makes one"
)
_DIGEST: Final = 32


class Way(Enum):
    """How a client showed its token."""

    AUTHORIZATION = "the Authorization header"
    SUBPROTOCOL = "a subprotocol"
    QUERY = "the query"


class Shown(NamedTuple):
    """What a client showed."""

    token: str
    way: Way


class Tokens:
    """The tokens that are valid, as digests under a random key: all of one size, so that comparing tells no length."""

    def __init__(self, tokens: Iterable[str], random: Callable[[int], bytes] = random_bytes) -> None:
        self._secret = random(KEY_SIZE)
        self._digests = [self._digest(token) for token in dict.fromkeys(tokens)]

    def valid(self, token: str) -> bool:
        """Tell whether a token is one of them, in a time that depends on neither."""
        digest = self._digest(token)
        found = False
        for each in self._digests:
            found |= constant_time_equal(each, digest)
        return found

    def _digest(self, token: str) -> bytes:
        return keyed_digest(self._secret, token.encode("utf-8", "surrogatepass"), _DIGEST)

    def __len__(self) -> int:
        return len(self._digests)


def shown(opening: Opening) -> Shown | None:
    """Return the token that an opening shows: by header, subprotocol or query, the first of these that there is."""
    scheme, _, credentials = opening.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Shown(credentials.strip(), Way.AUTHORIZATION)
    for offer in offers(opening):
        if offer.startswith(_OFFER):
            return Shown(offer.removeprefix(_OFFER), Way.SUBPROTOCOL)
    if "token=" in opening.query:
        values = parse_qs(opening.query).get("token")
        if values:
            return Shown(values[0], Way.QUERY)
    return None


def offers(opening: Opening) -> list[str]:
    """Return the subprotocols that a client offers (RFC 6455 §4.1)."""
    header = opening.headers.get("sec-websocket-protocol")
    return [] if header is None else [offer.strip(" \t") for offer in header.split(",")]


def parse_tokens(text: str, name: str, part: str = "line") -> list[str]:
    """Read tokens, one a line; `#` begins a line that is a comment.

    Args:
        text: the lines.
        name: what errors call it.
        part: what errors call a line.

    Raises:
        AccessError: names the first line that holds no token, and never what it holds; or there is none at all.
    """
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if not _FORM.fullmatch(token):
            raise AccessError(f"{name}, {part} {number}: this cannot be a token: {_HOW}")
        tokens.append(token)
    if not tokens:
        raise AccessError(f"{name} holds no token, so that nobody could connect: {_HOW}")
    return tokens


class TokenSource(NamedTuple):
    """Where tokens are read from, again at each reload: a file that only its owner may read, and a setting."""

    path: Path | None
    setting: str | None

    def read(self) -> list[str]:
        """Return the tokens of both.

        Raises:
            AccessError: a file that cannot be used, or others may read; or what is no token.
        """
        tokens = [] if self.setting is None else parse_tokens("\n".join(self.setting.split()), SETTING, "word")
        if self.path is not None:
            try:
                if not self.path.exists():
                    raise AccessError(f"there is no token file {self.path}: make it with mode 0600, one token a line")
                tokens += parse_tokens(read_private(self.path).decode("ascii", "replace"), str(self.path))
            except KeyFileError as error:
                raise AccessError(str(error)) from None
            except OSError as error:
                raise AccessError(f"cannot read {self.path}: {error.strerror}") from None
        return tokens


def token_source(settings: "Settings") -> TokenSource | None:
    """Return where tokens come from, or None where the relay asks for none."""
    path, token = settings.token_file, settings.token
    if path is None and token is None:
        return None
    return TokenSource(path, None if token is None else token.get_secret_value())
