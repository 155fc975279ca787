"""Account files of the web app, for the tests of peers/telefon.py."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from keys import primitives as p
from keys.invite import Invite
from peers import telefon
from peers.telefon import Account, AccountError
from tests.keys.known import ALICE, BOB, NOTIFIER

PASSPHRASE = "correct horse"
X_SEED, ED_SEED = ALICE.seeds
BOB_INVITE = Invite(BOB.public, "Robert")
NOTIFIER_INVITE = Invite(NOTIFIER.public, "Push\u241finfo")
SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda raw: base64.b64encode(raw).decode(),
    "base64 without padding": lambda raw: base64.b64encode(raw).decode().rstrip("="),
    "base64url": lambda raw: base64.urlsafe_b64encode(raw).decode(),
    "base64url without padding": lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="),
    "hex": bytes.hex,
    "HEX": lambda raw: raw.hex().upper(),
    "base64 in lines": lambda raw: "\r\n".join(
        [" " + base64.b64encode(raw).decode()[:7], base64.b64encode(raw).decode()[7:]]
    ),
}
SECRETS = [spell(seed) for spell in SPELLINGS.values() for seed in ALICE.seeds] + [BOB_INVITE.text[2:], PASSPHRASE]


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def fields(**changes: Any) -> dict[str, Any]:
    plain = {
        "v": 1,
        "type": "telefon-account",
        "enc": False,
        "nickname": "Alice",
        "seeds": {"x": b64(X_SEED), "ed": b64(ED_SEED)},
        "contacts": [contact()],
    }
    return {name: value for name, value in (plain | changes).items() if value is not ...}


def contact(**changes: Any) -> dict[str, Any]:
    plain = {"id": BOB.id.hex(), "qr": BOB_INVITE.text, "label": "Bob from work"}
    return {name: value for name, value in (plain | changes).items() if value is not ...}


def sealed_fields(content: dict[str, Any] | bytes | None = None, **changes: Any) -> dict[str, Any]:
    if content is None:
        content = fields(v=..., type=..., enc=...)
    plaintext = content if isinstance(content, bytes) else json.dumps(content).encode()
    key = p.pbkdf2_hmac_sha256(PASSPHRASE.encode(), b"s" * 16, 1000)
    plain = {
        "v": 1,
        "type": "telefon-account",
        "enc": "aes-gcm",
        "kdf": "pbkdf2",
        "hash": "SHA-256",
        "iter": 1000,
        "salt": b64(b"s" * 16),
        "iv": b64(b"i" * 12),
        "ct": b64(p.aes256_gcm_seal(key, b"i" * 12, plaintext)),
    }
    return {name: value for name, value in (plain | changes).items() if value is not ...}


def read(content: dict[str, Any] | str | bytes, passphrase: str | None = None) -> Account:
    if isinstance(content, dict):
        content = json.dumps(content)
    data = content if isinstance(content, bytes) else content.encode()
    return telefon.read(data, never if passphrase is None else lambda: passphrase)


def never() -> str:
    raise AssertionError("asked for a passphrase")


def seeds(account: Account) -> tuple[bytes, bytes]:
    assert account.identity is not None
    return account.identity.seeds


def refused(content: dict[str, Any] | str | bytes, why: str, passphrase: str | None = None) -> None:
    with pytest.raises(AccountError, match=why) as caught:
        read(content, passphrase)
    for secret in SECRETS:
        assert secret not in str(caught.value)
