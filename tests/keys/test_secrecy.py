"""Nothing that holds a key shows it: not in repr, str or format, not in a pickle, not in a traceback."""

import copy
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from keys import passphrase as pw
from keys.contact import Contact
from keys.errors import KeysError
from keys.files import ClientKeys, ServerKeys
from keys.identity import Identity, PublicIdentity
from keys.invite import Invite, RelayCard
from keys.packet import open_packet
from keys.primitives import HeaderKeystream, aead_open, ed25519_keypair, secretbox_open, x25519_shared
from tests.keys.known import ALICE, BOB, CHEAP, LOW_ORDER_X, SERVER, unhex

SHARED = ALICE.shared_with(BOB.public.x_pub)
SECRET = [*ALICE.seeds, *SERVER.seeds, SHARED, b"k" * 32]
PUBLIC = [ALICE.public.x_pub, ALICE.public.ed_pub, ALICE.id, BOB.public.x_pub, BOB.public.ed_pub, BOB.id]
OBJECTS: dict[str, Any] = {
    "Identity": ALICE,
    "PublicIdentity": ALICE.public,
    "Contact": Contact(ALICE, BOB.public, "Robert"),
    "ServerKeys": ServerKeys(SERVER, BOB.id),
    "ClientKeys": ClientKeys(ALICE, "Robert"),
    "Invite": Invite(BOB.public, "Robert"),
    "RelayCard": RelayCard(BOB.public, "wss://robert.example/ws"),
    "HeaderKeystream": HeaderKeystream(b"k" * 32),
    "SealedBox": pw.seal(b"".join(ALICE.seeds), b"hunter2", CHEAP),
}
HOLDS_SECRETS = ["Identity", "Contact", "ServerKeys", "ClientKeys", "HeaderKeystream"]


def forms(value: bytes) -> Iterator[str]:
    yield value.hex()
    yield repr(value)[2:-1]
    yield str(list(value))[1:-1]


def assert_hidden(text: str, values: list[bytes]) -> None:
    for value in values:
        for form in forms(value):
            assert form not in text


@pytest.mark.parametrize("name", OBJECTS)
def test_texts_tell_the_type_alone(name: str) -> None:
    value = OBJECTS[name]
    for text in (repr(value), str(value), f"{value}", f"{value!r:>40}".strip(), repr([value])[1:-1]):
        assert text == f"{name}(…)"


@pytest.mark.parametrize("name", OBJECTS)
def test_there_is_no_dict_to_look_into(name: str) -> None:
    with pytest.raises(TypeError):
        vars(OBJECTS[name])


@pytest.mark.parametrize("name", HOLDS_SECRETS)
def test_secrets_are_neither_pickled_nor_copied(name: str) -> None:
    value = OBJECTS[name]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="in clear"):
            pickle.dumps(value, protocol)
    with pytest.raises(TypeError):
        copy.deepcopy(value)


def failures() -> dict[str, Callable[[], object]]:
    x_seed, ed_seed = ALICE.seeds
    contact = Contact(ALICE, BOB.public)
    low = unhex(LOW_ORDER_X[1])
    return {
        "short seed": lambda: Identity(x_seed[:-1], ed_seed),
        "long seed": lambda: Identity(x_seed, ed_seed + b"\0"),
        "keypair": lambda: ed25519_keypair(ed_seed[:-1]),
        "low order": lambda: x25519_shared(x_seed, low),
        "low order contact": lambda: Contact(ALICE, PublicIdentity(low, BOB.public.ed_pub)),
        "own contact": lambda: Contact(ALICE, ALICE.public),
        "not canonical": lambda: PublicIdentity(ALICE.public.x_pub[:-1] + b"\xff", ALICE.public.ed_pub),
        "contact": lambda: contact.open(contact.seal(b"plain text")),
        "packet": lambda: open_packet(contact.seal(b"plain text")[:-1], ALICE.public.ed_pub, SHARED),
        "aead": lambda: aead_open(SHARED, bytes(24), bytes(99)),
        "secretbox": lambda: secretbox_open(SHARED, bytes(99)),
        "invite": lambda: Invite.parse(Invite(ALICE.public, "Robert").text + "\x00"),
        "card": lambda: RelayCard(ALICE.public, "https://robert.example/"),
        "passphrase": lambda: OBJECTS["SealedBox"].open(b"hunter3"),
    }


@pytest.mark.parametrize("name", failures())
def test_tracebacks_hold_no_keys(name: str) -> None:
    with pytest.raises(KeysError) as caught:
        failures()[name]()
    text = "".join(traceback.format_exception(caught.value))
    assert_hidden(text + repr(caught.value) + repr(caught.value.args), SECRET + PUBLIC)
    assert "hunter" not in repr(caught.value)
    assert "Robert" not in repr(caught.value)
    assert "robert" not in repr(caught.value)


def test_the_search_finds_what_it_looks_for() -> None:
    for form in (ALICE.seeds[0].hex(), repr(ALICE.seeds), repr(bytearray(ALICE.seeds[0]))):
        with pytest.raises(AssertionError):
            assert_hidden(form, SECRET)
