import copy
import pickle

import pytest

from keys.errors import BadKey, OpenError
from keys.identity import SERVER_ID, Identity, PublicIdentity
from tests.keys.known import ALICE, BOB, NOT_CANONICAL_X, PARTIES, SERVER, VECTORS, drawn, party, unhex


@pytest.mark.parametrize("name", PARTIES)
def test_keys_and_ids(name: str) -> None:
    identity, entry = party(name), VECTORS[name]
    assert identity.public.x_pub.hex() == entry["x_pub"]
    assert identity.public.ed_pub.hex() == entry["ed_pub"]
    assert identity.id.hex() == identity.public.id.hex() == entry["id"]
    assert identity.seeds == (unhex(entry["x_seed"]), unhex(entry["ed_seed"]))


@pytest.mark.parametrize(("name", "client"), [("alice", ALICE), ("bob", BOB)])
def test_shared_secrets(name: str, client: Identity) -> None:
    shared = unhex(VECTORS["session_keys"][name]["shared"])
    assert client.shared_with(SERVER.public.x_pub) == shared
    assert SERVER.shared_with(client.public.x_pub) == shared


def test_generate_takes_64_random_bytes() -> None:
    assert Identity.generate(drawn(b"x" * 32, b"e" * 32)).seeds == (b"x" * 32, b"e" * 32)
    assert Identity.generate().public != Identity.generate().public


def test_the_zero_id_is_refused() -> None:
    with pytest.raises(BadKey, match="all-zero id"):
        PublicIdentity(SERVER_ID + b"\x05" * 24, ALICE.public.ed_pub)


@pytest.mark.parametrize("x_pub", NOT_CANONICAL_X)
def test_keys_that_are_not_canonical_are_refused(x_pub: str) -> None:
    with pytest.raises(BadKey):
        PublicIdentity(unhex(x_pub), ALICE.public.ed_pub)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_sizes(size: int) -> None:
    for call in (
        lambda: PublicIdentity(b"\x05" * size, ALICE.public.ed_pub),
        lambda: PublicIdentity(ALICE.public.x_pub, b"\x05" * size),
        lambda: Identity(b"\x05" * size, b"\x05" * 32),
        lambda: Identity(b"\x05" * 32, b"\x05" * size),
    ):
        with pytest.raises(BadKey, match="32 bytes"):
            call()


def test_a_public_identity_is_a_value() -> None:
    again = PublicIdentity(ALICE.public.x_pub, ALICE.public.ed_pub)
    assert again == ALICE.public
    assert hash(again) == hash(ALICE.public)
    assert again != BOB.public
    assert again != ALICE.public.x_pub
    with pytest.raises(AttributeError):
        again.x_pub = BOB.public.x_pub


def test_a_public_identity_is_copied_whole() -> None:
    public = ALICE.public
    for made in (copy.copy(public), copy.deepcopy(public), pickle.loads(pickle.dumps(public))):  # noqa: S301 - ours
        assert made == public


def test_an_open_error_survives_pickling() -> None:
    made = pickle.loads(pickle.dumps(OpenError()))  # noqa: S301 - ours
    assert isinstance(made, OpenError)
    assert str(made) == "does not open"
