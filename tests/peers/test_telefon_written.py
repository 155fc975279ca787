"""peers/telefon.py: the account file of the web app as we write it, any bytes, and the web app's own cryptography."""

import base64
import json
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys import primitives as p
from keys.identity import Identity
from keys.invite import Invite
from peers import telefon
from peers.telefon import Account, AccountContact, AccountError, WrongAccountPassphrase
from tests.keys.known import ALICE, BOB, NOTIFIER, SERVER, drawn
from tests.peers.telefon_files import (
    BOB_INVITE,
    ED_SEED,
    NOTIFIER_INVITE,
    PASSPHRASE,
    SECRETS,
    X_SEED,
    b64,
    fields,
    never,
    seeds,
)

# --- Written --------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
SEEDS = st.binary(min_size=32, max_size=32)
CONTACTS = st.builds(
    AccountContact,
    st.builds(
        Invite,
        st.builds(Identity, SEEDS, SEEDS).map(lambda identity: identity.public),
        st.text(st.characters(codec="utf-8"), max_size=60),
    ),
    TEXTS,
    st.none() | TEXTS,
)
ACCOUNTS = st.builds(
    Account,
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.builds(Identity, SEEDS, SEEDS),
    st.lists(CONTACTS, max_size=4).map(tuple),
)


def assert_same(one: Account, other: Account) -> None:
    assert one.nickname == other.nickname
    assert seeds(one) == seeds(other)
    assert one.contacts == other.contacts


@settings(deadline=None)
@given(ACCOUNTS)
def test_plain_round_trip(account: Account) -> None:
    assert_same(telefon.read(telefon.write(account), never), account)


@settings(deadline=None, max_examples=5)
@given(ACCOUNTS, st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_sealed_round_trip(account: Account, passphrase: str) -> None:
    written = telefon.write(account, passphrase)
    assert_same(telefon.read(written, lambda: passphrase), account)


ACCOUNT = Account(
    "Alice\u241fclaude",
    ALICE,
    (AccountContact(BOB_INVITE, "Bób\n"), AccountContact(NOTIFIER_INVITE, "", "info")),
)


def test_what_is_written_is_what_the_web_app_reads() -> None:
    assert json.loads(telefon.write(ACCOUNT)) == {
        "v": 1,
        "type": "telefon-account",
        "enc": False,
        "nickname": "Alice\u241fclaude",
        "seeds": {"x": b64(X_SEED), "ed": b64(ED_SEED)},
        "contacts": [
            {"id": BOB.id.hex(), "qr": BOB_INVITE.text, "label": "Bób\n"},
            {"id": NOTIFIER.id.hex(), "qr": NOTIFIER_INVITE.text, "label": "", "type": "info"},
        ],
    }
    written = json.loads(telefon.write(ACCOUNT, PASSPHRASE, drawn(b"s" * 16, b"i" * 12)))
    assert {name: value for name, value in written.items() if name != "ct"} == {
        "v": 1,
        "type": "telefon-account",
        "enc": "aes-gcm",
        "kdf": "pbkdf2",
        "hash": "SHA-256",
        "iter": 200_000,
        "salt": b64(b"s" * 16),
        "iv": b64(b"i" * 12),
    }


def test_a_sealed_account_shows_nothing() -> None:
    one, other = telefon.write(ACCOUNT, PASSPHRASE), telefon.write(ACCOUNT, PASSPHRASE)
    for word in (b"Alice", b"seeds", b"contacts", BOB_INVITE.text[:40].encode(), b64(X_SEED).encode()):
        assert word not in one
    for name in ("salt", "iv", "ct"):
        assert json.loads(one)[name] != json.loads(other)[name]


def test_what_cannot_be_written() -> None:
    with pytest.raises(AccountError, match="needs keys"):
        telefon.write(Account("", None, ()))
    for passphrase, why in (("", "empty"), ("a" * 4097, "longer than"), ("\ud800", "UTF-8")):
        with pytest.raises(AccountError, match=why):
            telefon.write(ACCOUNT, passphrase)
    bob = AccountContact(BOB_INVITE)
    with pytest.raises(AccountError, match="100001 contacts; 100000 are the most"):
        telefon.write(Account("", ALICE, (bob,) * 100_001))
    with pytest.raises(AccountError, match="16777216 are the most"):
        telefon.write(Account("", ALICE, (AccountContact(BOB_INVITE, "a" * telefon.SIZE_MAX),)))


def test_values_are_checked_when_made() -> None:
    with pytest.raises(AccountError, match="nickname"):
        Account("a" * 257, ALICE)
    for label, kind in (("\ud800", None), ("", "\ud800")):
        with pytest.raises(AccountError, match="UTF-8"):
            AccountContact(BOB_INVITE, label, kind)


def test_texts_tell_the_type_alone() -> None:
    assert repr(ACCOUNT) == str(ACCOUNT) == "Account(…)"
    assert repr(ACCOUNT.contacts[0]) == "AccountContact(…)"


# --- Any bytes ------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from([b64(X_SEED), BOB_INVITE.text, "aes-gcm"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["v", "type", "enc", "seeds", "x", "ed", "contacts", "qr", "id", "label", "iter", "salt", "iv", "ct"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(st.characters(codec="utf-8"), max_size=100).map(str.encode)
    | st.builds(
        lambda changes: json.dumps(fields() | changes).encode(), st.dictionaries(st.sampled_from(list(fields())), JSON)
    )
    | st.builds(lambda change: json.dumps(fields(contacts=[change])).encode(), JSON)
    | JSON.map(lambda value: json.dumps({"v": 1, "seeds": fields()["seeds"], "contacts": value}).encode())
)
def test_any_bytes_give_an_account_or_an_account_error(data: bytes) -> None:
    try:
        account = telefon.read(data, lambda: "")
    except AccountError as error:
        assert not any(secret in str(error) for secret in SECRETS)
    else:
        assert isinstance(account, Account)


# --- WebCrypto ------------------------------------------------------------------------------------------------------

WEB_APP = r"""
const webcrypto = require("node:crypto").webcrypto;
const subtle = webcrypto.subtle;
const read = (text) => Buffer.from(text, "base64");
const base64 = (bytes) => Buffer.from(bytes).toString("base64");

async function keyOf(passphrase, salt, iterations) {
  const secret = await subtle.importKey("raw", new TextEncoder().encode(passphrase), "PBKDF2", false, ["deriveKey"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt, iterations };
  return subtle.deriveKey(how, secret, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
}

async function main() {
  let input = "";
  for await (const part of process.stdin) input += part;
  const { passphrase, file, content } = JSON.parse(input);
  if (file) {
    const key = await keyOf(passphrase, read(file.salt), file.iter);
    const opened = await subtle.decrypt({ name: "AES-GCM", iv: read(file.iv) }, key, read(file.ct));
    process.stdout.write(new TextDecoder("utf-8", { fatal: true }).decode(opened));
    return;
  }
  const salt = webcrypto.getRandomValues(new Uint8Array(16));
  const iv = webcrypto.getRandomValues(new Uint8Array(12));
  const key = await keyOf(passphrase, salt, 200000);
  const sealed = await subtle.encrypt({ name: "AES-GCM", iv }, key, new TextEncoder().encode(JSON.stringify(content)));
  const head = { v: 1, type: "telefon-account", enc: "aes-gcm", kdf: "pbkdf2", hash: "SHA-256", iter: 200000 };
  process.stdout.write(JSON.stringify({ ...head, salt: base64(salt), iv: base64(iv), ct: base64(sealed) }));
}
main();
"""


def web_app(asked: dict[str, Any]) -> bytes:
    done = subprocess.run(
        ["node", "-e", WEB_APP], input=json.dumps(asked).encode(), capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.needs("node")
@pytest.mark.parametrize("passphrase", [PASSPHRASE, "\u00e9t\u00e9 🐎", "e\u0301te\u0301"])
def test_what_webcrypto_seals_is_read(passphrase: str) -> None:
    file = web_app({"passphrase": passphrase, "content": fields(nickname="Алиса\u241fclaude")})
    account = telefon.read(file, lambda: passphrase)
    assert seeds(account) == ALICE.seeds
    assert account.nickname == "Алиса\u241fclaude"
    assert account.contacts == (AccountContact(BOB_INVITE, "Bob from work"),)
    with pytest.raises(WrongAccountPassphrase):
        telefon.read(file, lambda: passphrase + "!")


@pytest.mark.needs("node")
@pytest.mark.parametrize("passphrase", [PASSPHRASE, "\u00e9t\u00e9 🐎"])
def test_webcrypto_opens_what_is_written(passphrase: str) -> None:
    opened = json.loads(web_app({"passphrase": passphrase, "file": json.loads(telefon.write(ACCOUNT, passphrase))}))
    plain = json.loads(telefon.write(ACCOUNT))
    assert opened == {name: plain[name] for name in ("nickname", "seeds", "contacts")}


def test_the_sealed_part_holds_the_other_fields() -> None:
    account = Account("", SERVER)
    written = json.loads(telefon.write(account, PASSPHRASE, drawn(bytes(range(16)), bytes(range(12)))))
    key = p.pbkdf2_hmac_sha256(PASSPHRASE.encode(), bytes(range(16)), 200_000)
    content = p.aes256_gcm_open(key, bytes(range(12)), base64.b64decode(written["ct"], validate=True))
    x_seed, ed_seed = SERVER.seeds
    assert json.loads(content) == {"nickname": "", "seeds": {"x": b64(x_seed), "ed": b64(ed_seed)}, "contacts": []}
