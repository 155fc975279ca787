"""The account backup of the telefon web app, ``telefon-account.json``: read in its three forms, and written.

    plain    {"v": 1, "type": "telefon-account", "enc": false, "nickname": …, "seeds": {"x": …, "ed": …},
              "contacts": [{"id": …, "qr": "K0…", "label": …, "type": …}, …]}
    sealed   {"v": 1, "type": "telefon-account", "enc": "aes-gcm", "kdf": "pbkdf2", "hash": "SHA-256", "iter": 200000,
              "salt": 16 bytes, "iv": 12 bytes, "ct": ciphertext tag(16)}, the plaintext being the JSON of the others
    text     one contact a line: id qr label              of old versions; it has no keys

Bytes are standard base64. Reading is lenient about spelling (base64url, hex, padding, white space, a byte order mark,
keys that we do not know), for files pass through mail programs and editors, but strict about meaning: what cannot be
read is an error that names the field. What stands in the file is never repeated, for most of it is secret.

The sealed form is as strong as its passphrase under PBKDF2, which is weaker than what we use ourselves
(:mod:`peers.sealed_archive`); it is here to move between programs.
"""

import base64
import json
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from keys import passphrase as pw
from keys import primitives as p
from keys.errors import BadInvite, BadKey, OpenError
from keys.identity import ID_SIZE, Identity
from keys.invite import INVITE_PREFIX, Invite, encode_nickname
from peers.telefon_fields import AccountError, Fields, unpack

__all__ = [
    "CONTACTS_MAX",
    "ITERATIONS",
    "ITERATIONS_MAX",
    "SIZE_MAX",
    "Account",
    "AccountContact",
    "AccountError",
    "WrongAccountPassphrase",
    "read",
    "write",
]

SIZE_MAX: Final = 16 << 20
"""Most bytes of a file that is read or written."""
CONTACTS_MAX: Final = 100_000
"""Most contacts in a file."""
ITERATIONS: Final = 200_000
"""Rounds of PBKDF2 in what is written, as the web app has them: about a tenth of a second."""
ITERATIONS_MAX: Final = 10_000_000
"""Most rounds that reading does, whatever a file says: some seconds."""

_VERSION: Final = 1
_TYPE: Final = "telefon-account"
_SALT_SIZE: Final = 16
_CIPHERTEXT_NAMES: Final = ("ct", "data", "ciphertext")
_INVITE_MIN: Final = 88


class WrongAccountPassphrase(AccountError):
    """The passphrase is wrong, or the sealed part was changed: the two cannot be told apart."""


@dataclass(frozen=True, slots=True, repr=False)
class AccountContact:
    """Somebody in an account file.

    Args:
        invite: their keys, and the nickname that they gave themselves.
        label: what the owner calls them; "" where the file has none, and the nickname serves.
        type: a word of the web app's for what they are (``info``, ``claude``, …), if it has one.

    Raises:
        AccountError: a text that UTF-8 cannot carry.
    """

    invite: Invite
    label: str = ""
    type: str | None = None

    def __post_init__(self) -> None:
        _check_text("label", self.label)
        if self.type is not None:
            _check_text("type", self.type)

    def __repr__(self) -> str:
        return "AccountContact(…)"


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """What an account file holds.

    Args:
        nickname: what the owner calls themselves, at most 256 bytes of UTF-8, with the type word that may end it.
        identity: the owner's keys; None in the text form.
        contacts: in the order of the file.

    Raises:
        AccountError: the nickname is too long.
    """

    nickname: str
    identity: Identity | None
    contacts: tuple[AccountContact, ...] = ()

    def __post_init__(self) -> None:
        try:
            encode_nickname(self.nickname)
        except BadInvite as error:
            raise AccountError(f"nickname: {error}") from None

    def __repr__(self) -> str:
        return "Account(…)"


def read(
    data: bytes,
    passphrase: Callable[[], str] | None = None,
    on_bad_contact: Callable[[AccountError], None] | None = None,
) -> Account:
    """Read an account file of any form. Takes up to some seconds if it is sealed: not on an event loop.

    Args:
        data: the whole file.
        passphrase: asked for the passphrase, only if the file is sealed.
        on_bad_contact: called for every contact that cannot be read, and the others are read. Without it the first of
            them is raised.

    Raises:
        WrongAccountPassphrase: the file does not open.
        AccountError: it cannot be read; the text names the field.
    """
    if len(data) > SIZE_MAX:
        raise AccountError(f"the file has {len(data)} bytes; {SIZE_MAX} are the most of a telefon account")
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise AccountError("the file is not UTF-8 text, so it is no telefon account") from None
    if not text:
        raise AccountError("the file is empty")

    def report(error: AccountError) -> None:
        if on_bad_contact is None:
            raise error
        on_bad_contact(error)

    if not text.startswith("{"):
        return Account("", None, tuple(_read_lines(text, report)))
    head = Fields.parse(text, "the file")
    _check_head(head)
    sealed = head.take("enc", default=False)
    if sealed is False or sealed is None:
        return _read_account(head, report)
    if not isinstance(sealed, str) or sealed.lower() != "aes-gcm":
        raise head.error("enc", "must be false or aes-gcm: another way of sealing is not known here")
    # Nothing but what was sealed counts: a contact beside the ciphertext could be anybody's.
    return _read_account(_open(head, passphrase), report)


def write(
    account: Account,
    passphrase: str | None = None,
    random_bytes: Callable[[int], bytes] = p.random_bytes,
) -> bytes:
    """Return `account` as a file for the web app, sealed if a `passphrase` is given, else with the secrets in clear.

    Takes a tenth of a second if it is sealed. The caller keeps a plain one from others (mode 0600).

    Args:
        account: what to write.
        passphrase: as a person typed it, up to 4096 bytes of UTF-8 in composed form (NFC).
        random_bytes: the source of salt and nonce (16 and 12 bytes, in this order).

    Raises:
        AccountError: the account has no keys or is too big, or the passphrase is empty or too long.
    """
    if account.identity is None:
        raise AccountError("a telefon account needs keys, and this one has none")
    if len(account.contacts) > CONTACTS_MAX:
        raise AccountError(f"there are {len(account.contacts)} contacts; {CONTACTS_MAX} are the most")
    x_seed, ed_seed = account.identity.seeds
    fields = {
        "nickname": account.nickname,
        "seeds": {"x": _base64(x_seed), "ed": _base64(ed_seed)},
        "contacts": [_contact_fields(contact) for contact in account.contacts],
    }
    head: dict[str, Any] = {"v": _VERSION, "type": _TYPE}
    if passphrase is None:
        written = _json({**head, "enc": False, **fields})
    else:
        try:
            encoded = pw.encode_typed(passphrase)
        except ValueError as error:
            raise AccountError(str(error)) from None
        salt, nonce = random_bytes(_SALT_SIZE), random_bytes(p.AES_GCM_NONCE_SIZE)
        key = p.pbkdf2_hmac_sha256(encoded, salt, ITERATIONS)
        written = _json(
            {
                **head,
                "enc": "aes-gcm",
                "kdf": "pbkdf2",
                "hash": "SHA-256",
                "iter": ITERATIONS,
                "salt": _base64(salt),
                "iv": _base64(nonce),
                "ct": _base64(p.aes256_gcm_seal(key, nonce, _json(fields))),
            }
        )
    if len(written) > SIZE_MAX:
        raise AccountError(f"the account takes {len(written)} bytes; {SIZE_MAX} are the most")
    return written


# --- Reading --------------------------------------------------------------------------------------------------------


def _check_head(head: Fields) -> None:
    if head.take("type", default=_TYPE) != _TYPE:
        raise head.error("type", f"must be {_TYPE}: this file is something else")
    version = head.take("v", default=_VERSION)
    if isinstance(version, bool) or version != _VERSION:
        raise head.error("v", f"must be {_VERSION}: the file is of a version that is not known here")


def _open(head: Fields, passphrase: Callable[[], str] | None) -> Fields:
    if head.take_text("kdf", default="pbkdf2").lower() != "pbkdf2":
        raise head.error("kdf", "must be pbkdf2")
    if head.take_text("hash", default="SHA-256").lower() not in ("sha-256", "sha256"):
        raise head.error("hash", "must be SHA-256")
    iterations = head.take("iter")
    if isinstance(iterations, bool) or not isinstance(iterations, int) or not 1 <= iterations <= ITERATIONS_MAX:
        raise head.error("iter", f"must be a whole number between 1 and {ITERATIONS_MAX}")
    salt = head.take_bytes("salt", _SALT_SIZE)
    nonce = head.take_bytes("iv", p.AES_GCM_NONCE_SIZE)
    name = next((name for name in _CIPHERTEXT_NAMES if head.has(name)), _CIPHERTEXT_NAMES[0])
    sealed = head.take_bytes(name)
    if passphrase is None:
        raise AccountError("the account is sealed under a passphrase, and none is given")
    for encoded in _spellings(passphrase()):
        try:
            content = p.aes256_gcm_open(p.pbkdf2_hmac_sha256(encoded, salt, iterations), nonce, sealed)
        except OpenError:
            continue
        try:
            return Fields.parse(content.decode(), "the sealed part")
        except UnicodeDecodeError:
            raise AccountError("the sealed part is not UTF-8 text") from None
    raise WrongAccountPassphrase("the passphrase is wrong, or the file was changed")


def _spellings(passphrase: str) -> list[bytes]:
    """Return what the web app may have made of a passphrase: it takes the bytes as they come from the keyboard, of
    which some compose letters and marks and some do not."""
    forms = (passphrase, unicodedata.normalize("NFC", passphrase), unicodedata.normalize("NFD", passphrase))
    try:
        return list(dict.fromkeys(form.encode() for form in forms))
    except UnicodeEncodeError:
        raise AccountError("the passphrase is not UTF-8 text") from None


def _read_account(fields: Fields, report: Callable[[AccountError], None]) -> Account:
    nickname = fields.take_text("nickname", default="")
    seeds = fields.take_fields("seeds")
    x_seed, ed_seed = seeds.take_bytes("x", p.KEY_SIZE), seeds.take_bytes("ed", p.KEY_SIZE)
    try:
        identity = Identity(x_seed, ed_seed)
    except BadKey as error:
        raise fields.error("seeds", f"these keys must not be used: {error}") from None
    return Account(nickname, identity, tuple(_read_contacts(fields, report)))


def _read_contacts(fields: Fields, report: Callable[[AccountError], None]) -> Iterator[AccountContact]:
    entries = fields.take("contacts", default=None)
    if entries is None:
        return
    if not isinstance(entries, list):
        raise fields.error("contacts", "must be a list")
    if len(entries) > CONTACTS_MAX:
        raise fields.error("contacts", f"has {len(entries)} entries; {CONTACTS_MAX} are the most")
    for i, entry in enumerate(entries):
        try:
            yield _read_contact(Fields.of(entry, f"contacts[{i}]"))
        except AccountError as error:
            report(error)


def _read_contact(fields: Fields) -> AccountContact:
    invite = _read_invite(fields, fields.take_text("id", default=""), fields.take_text("qr"))
    label = fields.take_text("label", default="")
    kind = fields.take_text("type") if fields.take("type", default=None) is not None else None
    for name, value in (("label", label), ("type", kind)):
        try:
            _check_text(name, value or "")
        except AccountError as error:
            raise fields.error(name, str(error).removeprefix(f"{name}: ")) from None
    return AccountContact(invite, label, kind)


def _read_lines(text: str, report: Callable[[AccountError], None]) -> Iterator[AccountContact]:
    # Not splitlines(): that breaks labels at characters which are no line breaks to an editor.
    lines = [(number, words) for number, line in enumerate(text.split("\n"), 1) if (words := line.strip())]
    if len(lines) > CONTACTS_MAX:
        raise AccountError(f"the file has {len(lines)} lines; {CONTACTS_MAX} contacts are the most")
    if not any(INVITE_PREFIX in line for _, line in lines):
        raise AccountError("the file is no telefon account: neither JSON nor lines of `id qr label`")
    for number, line in lines:
        fields = Fields({}, f"line {number}, ")
        try:
            yield _read_line(fields, line)
        except AccountError as error:
            report(error)


def _read_line(fields: Fields, line: str) -> AccountContact:
    first, *rest = line.split(maxsplit=1)
    if first.startswith(INVITE_PREFIX) and len(first) >= _INVITE_MIN:  # no id is so long
        return AccountContact(_read_invite(fields, "", first), rest[0] if rest else "")
    if not rest:
        raise fields.error("qr", "is missing: a line is `id qr label`")
    qr, *label = rest[0].split(maxsplit=1)
    return AccountContact(_read_invite(fields, first, qr), label[0] if label else "")


def _read_invite(fields: Fields, contact_id: str, qr: str) -> Invite:
    try:
        invite = Invite.parse(qr)
    except BadInvite as error:
        raise fields.error("qr", str(error)) from None
    if contact_id.strip():
        try:
            told = unpack(contact_id, ID_SIZE)
        except ValueError as error:
            raise fields.error("id", str(error)) from None
        if told != invite.public.id:
            # Either may be the one that was changed; whoever guesses may seal for a stranger.
            raise fields.error("id", "is not that of the keys in qr; ask the contact for a new invite")
    return invite


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise AccountError(f"{name}: holds characters that UTF-8 cannot carry") from None


# --- Writing --------------------------------------------------------------------------------------------------------


def _contact_fields(contact: AccountContact) -> dict[str, str]:
    fields = {"id": contact.invite.public.id.hex(), "qr": contact.invite.text, "label": contact.label}
    if contact.type is not None:
        fields["type"] = contact.type
    return fields


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _json(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False, indent=2) + "\n").encode()
