"""The environment of telefon's bridge, `wschat`, whose names ours takes as they are.

    WSCHAT_X_SEED, WSCHAT_ED_SEED               our seeds, 32 bytes each
    WSCHAT_NICK                                 what we call ourselves; optional
    WSCHAT_PEER_QR                              invites (K0…) of our peers, between them commas or white space
    WS_URL                                      the relay's address, ws://… or wss://…
    WSCHAT_SERVER_X_PUB, WSCHAT_SERVER_ED_PUB   its public keys, 32 bytes each
    WSCHAT_WATCH                                a file whose new lines are sent; optional

Keys are 64 hex digits, or base64 of either alphabet, padded or not. Errors name the variable and never repeat its
value.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keys.errors import BadInvite, BadKey
from keys.files import ClientKeys
from keys.identity import Identity, PublicIdentity
from keys.invite import Invite, RelayCard
from keys.primitives import KEY_SIZE
from peers.profile import ProfileError

X_SEED: Final = "WSCHAT_X_SEED"
ED_SEED: Final = "WSCHAT_ED_SEED"
NICK: Final = "WSCHAT_NICK"
PEERS: Final = "WSCHAT_PEER_QR"
URL: Final = "WS_URL"
SERVER_X: Final = "WSCHAT_SERVER_X_PUB"
SERVER_ED: Final = "WSCHAT_SERVER_ED_PUB"
WATCH: Final = "WSCHAT_WATCH"
_NEEDED: Final = (X_SEED, ED_SEED, PEERS, URL, SERVER_X, SERVER_ED)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")


@dataclass(frozen=True, slots=True, repr=False)
class Surroundings:
    """Who we are, where the relay is, and with whom we talk, as the environment says."""

    keys: ClientKeys
    relay: RelayCard
    peers: tuple[Invite, ...]

    def __repr__(self) -> str:
        return "Surroundings(…)"


def is_given(environ: Mapping[str, str]) -> bool:
    """Whether the environment names an identity or peers. The relay's address alone is no sign: other programs use that
    name too."""
    return any(environ.get(name) for name in _NEEDED if name != URL)


def read(environ: Mapping[str, str]) -> Surroundings:
    """Read the environment.

    Raises:
        ProfileError: something is missing or cannot be used; the text names the variable.
    """
    missing = [name for name in _NEEDED if not environ.get(name, "").strip()]
    if missing:
        raise ProfileError(
            f"not set: {', '.join(missing)}. The bridge takes all of {', '.join(_NEEDED)}, or none and a --profile"
        )
    return Surroundings(_keys(environ), _relay(environ), _peers(environ))


def watched(environ: Mapping[str, str]) -> Path | None:
    """Return the file to be watched, if one is named.

    Raises:
        ProfileError: the name is none.
    """
    name = environ.get(WATCH)
    if not name:
        return None
    if "\0" in name:
        raise ProfileError(f"{WATCH} cannot hold a zero byte")
    return Path(name)


def _keys(environ: Mapping[str, str]) -> ClientKeys:
    seeds = _key(environ, X_SEED), _key(environ, ED_SEED)
    try:
        identity = Identity(*seeds)
    except BadKey:
        raise ProfileError(f"{X_SEED} or {ED_SEED} is no seed that can be used: make new ones") from None
    try:
        return ClientKeys(identity, environ.get(NICK, ""))
    except BadInvite as error:
        raise ProfileError(f"{NICK}: {error}") from None


def _relay(environ: Mapping[str, str]) -> RelayCard:
    try:
        public = PublicIdentity(_key(environ, SERVER_X), _key(environ, SERVER_ED))
    except BadKey as error:
        raise ProfileError(f"{SERVER_X} or {SERVER_ED} must not be used: {error}") from None
    try:
        return RelayCard(public, environ[URL].strip())
    except BadInvite as error:
        raise ProfileError(f"{URL}, {SERVER_X} or {SERVER_ED}: {error}") from None


def _peers(environ: Mapping[str, str]) -> tuple[Invite, ...]:
    peers: dict[PublicIdentity, Invite] = {}
    for number, text in enumerate(re.split(r"[,\s]+", environ[PEERS].strip(", \t\r\n")), 1):
        try:
            invite = Invite.parse(text)
        except BadInvite as error:
            raise ProfileError(f"{PEERS}, number {number}: {error}") from None
        peers.setdefault(invite.public, invite)
    return tuple(peers.values())


def _key(environ: Mapping[str, str], name: str) -> bytes:
    text = environ[name].strip()
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text)
    if _BASE64.fullmatch(text):
        raw = base64.urlsafe_b64decode(text.rstrip("=").replace("+", "-").replace("/", "_") + "=")
        if len(raw) == KEY_SIZE:
            return raw
    raise ProfileError(f"{name} is no key: 32 bytes, as 64 hex digits or as base64 (43 characters, or 44 with =)")
