import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.contact import Contact
from keys.errors import BadKey, OpenError
from keys.identity import Identity, PublicIdentity
from keys.invite import Invite
from tests.keys.known import ALICE, BOB, LOW_ORDER_X, SERVER, VECTORS, drawn, unhex

BOB_SEEN_BY_ALICE = Contact(ALICE, BOB.public, "Bob")
ALICE_SEEN_BY_BOB = Contact.from_invite(BOB, Invite(ALICE.public, "Алиса\u241finfo"))


def test_the_recorded_text() -> None:
    inner, packet = unhex(VECTORS["text"]["inner"]), unhex(VECTORS["text"]["packet"])
    assert BOB_SEEN_BY_ALICE.seal(inner, drawn(packet[:24])) == packet
    assert ALICE_SEEN_BY_BOB.open(packet) == inner


@given(st.binary(max_size=300))
def test_both_ways(plaintext: bytes) -> None:
    assert ALICE_SEEN_BY_BOB.open(BOB_SEEN_BY_ALICE.seal(plaintext)) == plaintext
    assert BOB_SEEN_BY_ALICE.open(ALICE_SEEN_BY_BOB.seal(plaintext)) == plaintext


def test_invites_both_ways() -> None:
    ours, theirs = Invite(ALICE.public, "Alice").text, Invite(BOB.public, "Bob").text
    to_bob = Contact.from_invite(ALICE, Invite.parse(theirs))
    to_alice = Contact.from_invite(BOB, Invite.parse(ours))
    assert (to_bob.nickname, to_alice.nickname) == ("Bob", "Alice")
    assert (to_bob.id, to_alice.id) == (BOB.id, ALICE.id)
    assert to_alice.open(to_bob.seal(b"hello")) == b"hello"


def test_a_packet_that_is_sent_back_does_not_open() -> None:
    with pytest.raises(OpenError):
        BOB_SEEN_BY_ALICE.open(BOB_SEEN_BY_ALICE.seal(b"hello"))


def test_a_packet_of_another_contact_does_not_open() -> None:
    with pytest.raises(OpenError):
        ALICE_SEEN_BY_BOB.open(Contact(SERVER, BOB.public).seal(b"hello"))


def test_the_name_to_show() -> None:
    assert ALICE_SEEN_BY_BOB.nickname == "Алиса\u241finfo"
    assert ALICE_SEEN_BY_BOB.display_name == "Алиса"


def test_our_own_keys_are_no_contact() -> None:
    # With one signing key on both sides, a packet sent back would open as if they had written it.
    for public in (
        ALICE.public,
        PublicIdentity(BOB.public.x_pub, ALICE.public.ed_pub),
        PublicIdentity(ALICE.public.x_pub, BOB.public.ed_pub),
    ):
        with pytest.raises(BadKey, match="our own"):
            Contact(ALICE, public)


@pytest.mark.parametrize("x_pub", LOW_ORDER_X[1:])
def test_low_order_points_are_no_contact(x_pub: str) -> None:
    with pytest.raises(BadKey, match="low order"):
        Contact(Identity.generate(), PublicIdentity(unhex(x_pub), BOB.public.ed_pub))
