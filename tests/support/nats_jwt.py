"""Operators, accounts and users of NATS, as `nsc` makes them: JWTs of version 2 under nkeys, and credentials files."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from keys.primitives import ed25519_keypair, ed25519_sign
from keys.private_file import write_private

if TYPE_CHECKING:
    from pathlib import Path

_SEED: Final = 18 << 3
_KINDS: Final = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_UNBOUNDED: Final = {"subs": -1, "data": -1, "payload": -1}
_OF_AN_ACCOUNT: Final = {"imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}


class Nkey:
    """A key pair of one kind, and what it vouches for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        raw = secrets.token_bytes(32)
        public, self._signing = ed25519_keypair(raw)
        self.public = _text(bytes((_KINDS[kind],)) + public)
        # Five bits say "seed", the next five whose.
        self.seed = _text(bytes((_SEED | _KINDS[kind] >> 5, (_KINDS[kind] & 31) << 3)) + raw)

    def vouch(self, subject: Nkey, **claims: Any) -> str:
        """Return a JWT for another key, or for this one itself."""
        body = {
            "jti": secrets.token_hex(16),
            "iat": 1_700_000_000,
            "iss": self.public,
            "name": subject.kind,
            "sub": subject.public,
            "nats": {**claims, "type": subject.kind, "version": 2},
        }
        signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return f"{signed}.{_base64(ed25519_sign(self._signing, signed.encode()))}"


class Operator:
    """An operator with one account; a NATS server that trusts it knows no user."""

    def __init__(self) -> None:
        self._key, self._account = Nkey("operator"), Nkey("account")
        account = self._key.vouch(self._account, limits={**_UNBOUNDED, **_OF_AN_ACCOUNT})
        self.config = (
            f'operator: "{self._key.vouch(self._key)}"\nresolver: MEMORY\n'
            f'resolver_preload: {{ {self._account.public}: "{account}" }}\n'
        )

    def user(self, path: Path, subjects: str) -> Path:
        """Write the credentials file of a new user, who may use these subjects and no others."""
        user = Nkey("user")
        jwt = self._account.vouch(user, pub={"allow": [subjects]}, sub={"allow": [subjects]}, **_UNBOUNDED)
        parts = (("NATS USER JWT", jwt), ("USER NKEY SEED", user.seed))
        text = "\n".join(f"-----BEGIN {what}-----\n{part}\n------END {what}------\n" for what, part in parts)
        write_private(path, text.encode())
        return path


def _text(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
