"""Who is connected."""

import pytest

from keys.identity import PublicIdentity
from relay.hub import Hub
from tests.relay.harness import identity


class Someone:
    def __init__(self, public: PublicIdentity) -> None:
        self.public = public


ALICE, BOB = identity(1).public, identity(2).public
SAME_ID = PublicIdentity(ALICE.x_pub[:8] + bytes(23) + b"\x01", ALICE.ed_pub)
"""Another key with Alice's id: 64 bits can be searched for."""


def test_a_session_is_found_by_its_id_until_it_is_removed() -> None:
    hub: Hub[Someone] = Hub()
    alice, bob = Someone(ALICE), Someone(BOB)
    hub.add(alice)
    hub.add(bob)
    assert hub.sessions == {ALICE.id: alice, BOB.id: bob}
    assert hub.remove(alice)
    assert hub.sessions == {BOB.id: bob}
    assert not hub.remove(alice)


def test_an_id_has_one_session() -> None:
    hub: Hub[Someone] = Hub()
    alice = Someone(ALICE)
    hub.add(alice)
    for public in (ALICE, SAME_ID):
        with pytest.raises(AssertionError):
            hub.add(Someone(public))
    assert hub.sessions == {ALICE.id: alice}


def test_who_was_replaced_does_not_take_its_successor_along() -> None:
    hub: Hub[Someone] = Hub()
    old, new = Someone(ALICE), Someone(ALICE)
    hub.add(old)
    hub.remove(old)
    hub.add(new)
    assert not hub.remove(old)
    assert hub.sessions[ALICE.id] is new


def test_online_goes_by_the_whole_key_and_not_the_id_alone() -> None:
    hub: Hub[Someone] = Hub()
    alice = Someone(ALICE)
    hub.add(alice)
    assert hub.online(ALICE.x_pub) is alice
    assert hub.online(SAME_ID.x_pub) is None
    assert hub.online(BOB.x_pub) is None
    assert hub.online(ALICE.x_pub[:8]) is None
