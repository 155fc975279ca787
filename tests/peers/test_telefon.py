"""peers/telefon.py: the account file of the web app as it comes, and as it must be refused."""

import base64
import json
from typing import Any

import pytest

from keys import primitives as p
from keys.identity import Identity
from peers import telefon
from peers.telefon import AccountError, WrongAccountPassphrase
from tests.keys.known import ALICE, BOB, LOW_ORDER_X, NOTIFIER, unhex
from tests.peers.telefon_files import (
    BOB_INVITE,
    ED_SEED,
    NOTIFIER_INVITE,
    PASSPHRASE,
    SPELLINGS,
    X_SEED,
    b64,
    contact,
    fields,
    read,
    refused,
    sealed_fields,
    seeds,
)

# --- Plain ----------------------------------------------------------------------------------------------------------


def test_the_plain_form() -> None:
    account = read(fields())
    assert account.nickname == "Alice"
    assert seeds(account) == ALICE.seeds
    (bob,) = account.contacts
    assert bob.invite == BOB_INVITE
    assert bob.label == "Bob from work"
    assert bob.invite.nickname == "Robert"
    assert bob.type is None


def test_type_words_are_kept() -> None:
    notifier = contact(id=NOTIFIER.id.hex(), qr=NOTIFIER_INVITE.text, label="Push", type="info")
    account = read(fields(nickname="Alice\u241fclaude", contacts=[notifier]))
    assert account.nickname == "Alice\u241fclaude"
    assert account.contacts[0].type == "info"
    assert account.contacts[0].invite.nickname == "Push\u241finfo"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_bytes(spelling: str) -> None:
    spell = SPELLINGS[spelling]
    account = read(fields(seeds={"x": spell(X_SEED), "ed": spell(ED_SEED)}, contacts=[contact(id=spell(BOB.id))]))
    assert seeds(account) == ALICE.seeds
    sealed = sealed_fields(salt=spell(b"s" * 16), iv=spell(b"i" * 12))
    assert seeds(read(sealed, PASSPHRASE)) == ALICE.seeds


def test_seeds_in_which_both_alphabets_of_base64_differ() -> None:
    other = Identity(b"\xfb\xef\xff" * 10 + b"\xff\xff", b"\xff\xfe" * 16)
    for spell in SPELLINGS.values():
        x_seed, ed_seed = other.seeds
        assert seeds(read(fields(seeds={"x": spell(x_seed), "ed": spell(ed_seed)}))) == other.seeds


@pytest.mark.parametrize(
    "content",
    [
        fields(v=..., type=..., enc=...),
        fields(enc=None, more={"deep": [1]}, seeds={"x": b64(X_SEED), "ed": b64(ED_SEED), "z": 1}),
        fields(contacts=[contact(id=...)]),
        fields(contacts=[contact(id="", avatar="…")]),
        fields(contacts=[contact(id=None, qr=f" {BOB_INVITE.text}\n", type=None)]),
        fields(contacts=[contact(qr=f"https://telefon.example/?peer={BOB_INVITE.text}")]),
        "\ufeff" + json.dumps(fields()),
        " \r\n" + json.dumps(fields(), indent=4) + "\r\n",
    ],
)
def test_what_is_read_leniently(content: dict[str, Any] | str) -> None:
    account = read(content)
    assert seeds(account) == ALICE.seeds
    assert [(bob.invite, bob.label, bob.type) for bob in account.contacts] == [(BOB_INVITE, "Bob from work", None)]


@pytest.mark.parametrize("changes", [{"label": ...}, {"label": None}, {"label": ""}])
def test_a_missing_label_is_empty(changes: dict[str, Any]) -> None:
    assert read(fields(contacts=[contact(**changes)])).contacts[0].label == ""


@pytest.mark.parametrize("changes", [{"contacts": ...}, {"contacts": None}, {"contacts": []}])
def test_no_contacts(changes: dict[str, Any]) -> None:
    assert read(fields(**changes)).contacts == ()


def test_a_missing_nickname_is_empty() -> None:
    assert read(fields(nickname=...)).nickname == ""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "^the file is empty"),
        (b"\xef\xbb\xbf \n", "^the file is empty"),
        (b"\xff\xfe\x00", "^the file is not UTF-8"),
        ("hello\nworld", "^the file is no telefon account"),
        ("[]", "^the file is no telefon account"),
        ("{", r"^the file is not valid JSON \(line 1, column 2\)"),
        (json.dumps(fields())[:-1], "^the file is not valid JSON"),
        ('{"a":' * 100_000, "^the file is not JSON that can be read"),
        ('{"v": ' + "1" * 10_000 + "}", "^the file is not JSON that can be read"),
        (fields(type="other"), "^type: must be telefon-account"),
        (fields(v=2), "^v: must be 1"),
        (fields(v=True), "^v: must be 1"),
        (fields(v="1"), "^v: must be 1"),
        (fields(enc=True), "^enc: must be false or aes-gcm"),
        (fields(enc="aes-cbc"), "^enc: must be false or aes-gcm"),
        (fields(nickname=5), "^nickname: must be a string"),
        (fields(nickname="a" * 257), "^nickname: the nickname has 257 bytes"),
        (fields(nickname="\ud800"), "^nickname: .* UTF-8 cannot carry"),
        (fields(seeds=...), "^seeds: is missing"),
        (fields(seeds=[b64(X_SEED), b64(ED_SEED)]), "^seeds: must be an object"),
        (fields(seeds={"x": b64(X_SEED)}), r"^seeds\.ed: is missing"),
        (fields(seeds={"ed": b64(ED_SEED)}), r"^seeds\.x: is missing"),
        (fields(seeds={"x": 7, "ed": b64(ED_SEED)}), r"^seeds\.x: must be a string"),
        (fields(seeds={"x": b64(X_SEED[:-1]), "ed": b64(ED_SEED)}), r"^seeds\.x: has 31 bytes instead of 32"),
        (fields(seeds={"x": b64(X_SEED), "ed": ED_SEED.hex() + "00"}), r"^seeds\.ed: has 49 bytes instead of 32"),
        (fields(seeds={"x": b64(X_SEED)[:-2] + "!=", "ed": b64(ED_SEED)}), r"^seeds\.x: is neither base64 nor hex"),
        (fields(seeds={"x": b64(X_SEED) + "é", "ed": b64(ED_SEED)}), r"^seeds\.x: is neither base64 nor hex"),
        (fields(seeds={"x": "", "ed": b64(ED_SEED)}), r"^seeds\.x: has 0 bytes"),
        (fields(contacts={}), "^contacts: must be a list"),
        (fields(contacts=[contact(), "K0"]), r"^contacts\[1\]: must be an object"),
        (fields(contacts=[contact(), contact(qr=...)]), r"^contacts\[1\]\.qr: is missing"),
        (fields(contacts=[contact(qr=BOB_INVITE.text + "!")]), r"^contacts\[0\]\.qr: an invite holds only"),
        (fields(contacts=[contact(qr=BOB_INVITE.text[:40])]), r"^contacts\[0\]\.qr: an invite that is cut short"),
        (fields(contacts=[contact(qr=1)]), r"^contacts\[0\]\.qr: must be a string"),
        (fields(contacts=[contact(id=ALICE.id.hex())]), r"^contacts\[0\]\.id: is not that of the keys in qr"),
        (fields(contacts=[contact(id="bob")]), r"^contacts\[0\]\.id: has 2 bytes instead of 8"),
        (fields(contacts=[contact(id="bob?")]), r"^contacts\[0\]\.id: is neither"),
        (fields(contacts=[contact(label=["Bob"])]), r"^contacts\[0\]\.label: must be a string"),
        (fields(contacts=[contact(label="\udfff")]), r"^contacts\[0\]\.label: holds characters that UTF-8"),
        (fields(contacts=[contact(type="\udfff")]), r"^contacts\[0\]\.type: holds characters that UTF-8"),
        (fields(contacts=[contact(type=1)]), r"^contacts\[0\]\.type: must be a string"),
    ],
)
def test_what_is_refused_names_the_field(content: dict[str, Any] | str | bytes, why: str) -> None:
    refused(content, why)


def test_keys_of_low_order_are_refused() -> None:
    raw = unhex(LOW_ORDER_X[2]) + BOB.public.ed_pub
    qr = "K0" + base64.urlsafe_b64encode(raw).decode().rstrip("=")
    refused(fields(contacts=[contact(id="", qr=qr)]), r"^contacts\[0\]\.qr: .*low order")


def test_bad_contacts_can_be_passed_over() -> None:
    entries = [contact(qr="x"), contact(), contact(id="ff" * 8), 5, contact(label="again"), contact(label=1)]
    problems: list[str] = []
    account = telefon.read(
        json.dumps(fields(contacts=entries)).encode(), None, lambda error: problems.append(str(error))
    )
    assert [bob.label for bob in account.contacts] == ["Bob from work", "again"]
    assert [text.partition(":")[0] for text in problems] == [
        "contacts[0].qr",
        "contacts[2].id",
        "contacts[3]",
        "contacts[5].label",
    ]


def test_bounds() -> None:
    refused(b" " * (telefon.SIZE_MAX + 1), "16777217 bytes; 16777216 are the most")
    refused(fields(contacts=[0] * 100_001), "^contacts: has 100001 entries; 100000 are the most")
    refused("K0\n" * 100_001, "100001 lines; 100000 contacts are the most")
    refused(fields(contacts=[0] * 100_000), r"^contacts\[0\]: must be an object")


# --- Text -----------------------------------------------------------------------------------------------------------


def test_the_text_form() -> None:
    text = (
        f"\ufeff{BOB.id.hex()} {BOB_INVITE.text} Bob  from work\r\n"
        "\r\n"
        f"  {b64(NOTIFIER.id)}\t{NOTIFIER_INVITE.text}\n"
        f"{BOB_INVITE.text} no\u2028id\u0085 \n"
        f"{BOB_INVITE.text}"
    )
    account = read(text)
    assert account.identity is None
    assert account.nickname == ""
    assert [(found.invite, found.label) for found in account.contacts] == [
        (BOB_INVITE, "Bob  from work"),
        (NOTIFIER_INVITE, ""),
        (BOB_INVITE, "no\u2028id"),
        (BOB_INVITE, ""),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"{ALICE.id.hex()} {BOB_INVITE.text} Bob", "^line 3, id: is not that of the keys"),
        (f"bob {BOB_INVITE.text}", "^line 3, id: has 2 bytes"),
        (f"{BOB.id.hex()}", "^line 3, qr: is missing: a line is `id qr label`"),
        (f"{BOB.id.hex()} Bob {BOB_INVITE.text}", "^line 3, qr: an invite begins with K0"),
        (f"{BOB.id.hex()} {BOB_INVITE.text[:50]} Bob", "^line 3, qr: an invite that is cut short"),
    ],
)
def test_lines_that_are_refused(line: str, why: str) -> None:
    text = f"{BOB.id.hex()} {BOB_INVITE.text} Bob\n\n{line}\n{BOB_INVITE.text} the rest\n"
    refused(text, why)
    problems: list[AccountError] = []
    account = telefon.read(text.encode(), None, problems.append)
    assert [found.label for found in account.contacts] == ["Bob", "the rest"]
    assert len(problems) == 1


# --- Sealed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ct", "data", "ciphertext"])
def test_the_sealed_form(name: str) -> None:
    content = sealed_fields()
    content[name] = content.pop("ct")
    account = read(content, PASSPHRASE)
    assert seeds(account) == ALICE.seeds
    assert account.nickname == "Alice"
    assert account.contacts[0].label == "Bob from work"


@pytest.mark.parametrize(
    "changes",
    [{"kdf": ..., "hash": ...}, {"kdf": "PBKDF2", "hash": "sha256", "enc": "AES-GCM"}, {"v": ..., "type": ...}],
)
def test_sealed_heads_that_are_read_leniently(changes: dict[str, Any]) -> None:
    assert seeds(read(sealed_fields(**changes), PASSPHRASE)) == ALICE.seeds


def test_only_what_was_sealed_counts() -> None:
    inner = fields(v=..., type=..., enc=..., nickname=..., contacts=...)
    account = read(sealed_fields(inner, nickname="Mallory", contacts=[contact()]), PASSPHRASE)
    assert account.nickname == ""
    assert account.contacts == ()
    refused(sealed_fields({"nickname": "A"}, seeds=fields()["seeds"]), "^seeds: is missing", PASSPHRASE)


@pytest.mark.parametrize("other", ["", "correct hors", "Correct horse", "correct horse\n"])
def test_another_passphrase(other: str) -> None:
    with pytest.raises(WrongAccountPassphrase, match="passphrase is wrong, or the file was changed"):
        read(sealed_fields(), other)


def test_the_passphrase_opens_however_it_was_composed() -> None:
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    for typed in (composed, decomposed):
        key = p.pbkdf2_hmac_sha256(typed.encode(), b"s" * 16, 1000)
        content = json.dumps(fields()).encode()
        sealed = sealed_fields(ct=b64(p.aes256_gcm_seal(key, b"i" * 12, content)))
        assert seeds(read(sealed, composed)) == seeds(read(sealed, decomposed)) == ALICE.seeds


def test_every_change_of_the_ciphertext_is_refused() -> None:
    content = sealed_fields(b"{}")
    raw = base64.b64decode(content["ct"])
    for at in range(len(raw)):
        for changed in (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], raw[:at]):
            with pytest.raises(WrongAccountPassphrase):
                read(content | {"ct": b64(changed)}, PASSPHRASE)
    for name, size in (("salt", 16), ("iv", 12)):
        with pytest.raises(WrongAccountPassphrase):
            read(content | {name: b64(bytes(size))}, PASSPHRASE)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kdf": "scrypt"}, "^kdf: must be pbkdf2"),
        ({"kdf": 1}, "^kdf: must be a string"),
        ({"hash": "SHA-1"}, "^hash: must be SHA-256"),
        ({"iter": ...}, "^iter: is missing"),
        ({"iter": 0}, "^iter: must be a whole number between 1 and 10000000"),
        ({"iter": 10_000_001}, "^iter: must be a whole number"),
        ({"iter": 1 << 70}, "^iter: must be a whole number"),
        ({"iter": True}, "^iter: must be a whole number"),
        ({"iter": 1000.0}, "^iter: must be a whole number"),
        ({"iter": "1000"}, "^iter: must be a whole number"),
        ({"salt": ...}, "^salt: is missing"),
        ({"salt": b64(b"s" * 15)}, "^salt: has 15 bytes instead of 16"),
        ({"iv": b64(b"i" * 13)}, "^iv: has 13 bytes instead of 12"),
        ({"iv": None}, "^iv: is missing"),
        ({"ct": ...}, "^ct: is missing"),
        ({"ct": "????"}, "^ct: is not base64"),
        ({"ct": 5}, "^ct: must be a string"),
    ],
)
def test_hostile_parameters_are_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], why: str
) -> None:
    content = sealed_fields(**changes)
    monkeypatch.setattr(p, "pbkdf2_hmac_sha256", lambda *_: pytest.fail("derived a key"))
    refused(content, why)


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        (b"\xff", "the sealed part is not UTF-8"),
        (b"[]", "the sealed part must be a JSON object"),
        (b'{"nickname": "correct horse"', r"the sealed part is not valid JSON \(line 1"),
        (fields(contacts=[contact(id="ff" * 8)]), r"contacts\[0\]\.id"),
    ],
)
def test_sealed_parts_that_are_refused(inner: dict[str, Any] | bytes, why: str) -> None:
    refused(sealed_fields(inner), why, PASSPHRASE)


def test_a_passphrase_that_is_not_given() -> None:
    with pytest.raises(AccountError, match="sealed under a passphrase, and none is given"):
        telefon.read(json.dumps(sealed_fields()).encode())
    refused(sealed_fields(), "the passphrase is not UTF-8", "\ud800")
