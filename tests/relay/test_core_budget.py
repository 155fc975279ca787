"""All queues together: who gives way when the total is used up."""

import pytest

from relay.limits import KIB, Limits
from relay.reasons import Ending
from tests.relay.crowds import SMALL, fill, refusals, stalled, watch
from tests.relay.harness import Lab, client_frame, hang_up_all, identity
from wire import commands as c


@pytest.fixture
def lab() -> Lab:
    return Lab(SMALL)


def test_when_the_total_is_used_up_the_heaviest_gives_way(lab: Lab) -> None:
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    watch(alice, bob)
    old = fill(alice, stalled(bob, alice), 28 * KIB)
    lab.tick()
    for _ in range(9):
        lab.tick()
    fill(alice, stalled(carol, alice), 28 * KIB)
    assert alice.nacked == []
    fresh = fill(alice, stalled(dave, alice), 20 * KIB)
    assert alice.nacked == old
    assert refusals(lab) == {"shed": len(old)}
    assert lab.core.counters.shed == 1
    assert not bob.over
    assert lab.core.budget.used <= SMALL.queue_total
    alice.news()
    for peer in (bob, dave):
        peer.resume()
    lab.run()
    assert dave.delivered[1:] == fresh
    assert alice.news() == [c.PeerOnline((bob.public.x_pub,))]


def test_who_is_the_heaviest_and_asks_is_refused(lab: Lab) -> None:
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    fill(alice, stalled(bob, alice), 28 * KIB)
    for _ in range(10):
        lab.tick()
    fill(alice, stalled(carol, alice), 20 * KIB)
    fill(alice, stalled(dave, alice), 13 * KIB)
    refused = fill(alice, bob, 3 * KIB)
    assert alice.nacked == refused[-len(alice.nacked) :] != []
    assert refusals(lab) == {"total_full": len(alice.nacked)}
    assert lab.core.counters.shed == 0


def test_who_was_the_heaviest_is_looked_at_again_before_long(lab: Lab) -> None:
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    fill(alice, stalled(bob, alice), 16 * KIB)
    for _ in range(10):
        lab.tick()
    fill(alice, stalled(carol, alice), 28 * KIB)
    fill(alice, stalled(dave, alice), 19 * KIB)
    assert alice.nacked == []
    fill(alice, bob, 2 * KIB)
    assert refusals(lab) == {"total_full": 2}
    for _ in range(15):
        lab.tick()
    fill(alice, bob, KIB)
    assert refusals(lab)["total_full"] == 2
    assert refusals(lab)["shed"] == 28


def test_whoever_gives_way_to_its_own_frame_says_no_more() -> None:
    """Alice's frame makes the heaviest queue give way, and that is her own, with nothing left to give."""
    lab = Lab(
        Limits(
            flush_size=16 * KIB, queue_size=16 * KIB, queue_share=2 * KIB, queue_total=24 * KIB, handshakes_per_second=0
        )
    )
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    alice.stall()
    fill(bob, alice, 12 * KIB)
    for _ in range(10):
        lab.tick()
    fill(bob, stalled(carol, bob), 10 * KIB)
    packets = [alice.blind(carol, 3 * KIB)[0], *(alice.blind(dave)[0] for _ in range(3))]
    alice.transport.arrive(b"".join(map(client_frame, packets)))
    lab.run()
    assert alice.session.ended is Ending.STALLED
    assert dave.raw == []
    carol.resume()
    lab.run()
    assert len(carol.delivered) == 12


def test_answers_that_are_more_than_the_total_end_who_does_not_read_them() -> None:
    lab = Lab(
        Limits(flush_size=4 * KIB, queue_size=4 * KIB, queue_share=KIB, queue_total=4 * KIB, handshakes_per_second=0)
    )
    (alice,) = lab.connect(1)
    alice.stall()
    for _ in range(60):
        alice.send(identity(9).id)
    lab.run()
    assert alice.session.ended is Ending.STALLED
    assert lab.core.budget.used == 0


def test_a_share_is_not_taken_by_who_holds_more(lab: Lab) -> None:
    """However long a small queue waits, one that holds more than its share gives way in its stead."""
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    small = fill(alice, stalled(bob, alice), 7 * KIB)
    for _ in range(25):
        lab.tick()
    fill(alice, stalled(carol, alice), 30 * KIB)
    fill(alice, stalled(dave, alice), 30 * KIB)
    assert refusals(lab) == {"shed": 30}
    assert lab.core.budget.used <= SMALL.queue_total
    bob.resume()
    lab.run()
    assert bob.delivered[1:] == small


def test_everybody_has_a_share_though_the_total_is_used_up(lab: Lab) -> None:
    alice, *greedy, bob = lab.connect(*range(1, 6))
    for peer in greedy:
        fill(alice, stalled(peer, alice), 21 * KIB)
    alice.news()
    own = fill(alice, stalled(bob, alice), 7 * KIB)
    bob.resume()
    lab.run()
    assert bob.delivered[1:] == own


def test_shares_do_not_add_up_to_more_than_the_total(lab: Lab) -> None:
    """A hundred readers that stopped with next to nothing, each of which then fills its share."""
    alice, *many = lab.connect(*range(1, 102))
    for peer in many:
        stalled(peer, alice)
    nonces = [nonce for peer in many for nonce in alice.send_many(peer, 7, KIB)]
    lab.run()
    assert lab.core.budget.used <= SMALL.queue_total
    assert lab.core.counters.shed > 0
    for peer in many:
        peer.resume()
    lab.advance(10.0)
    came = [nonce for peer in many for nonce in peer.delivered]
    assert set(nonces) <= set(came) | set(alice.nacked)
    assert not set(came) & set(alice.nacked)


def test_room_that_was_granted_and_is_not_used_makes_nobody_give_way() -> None:
    """Room is granted in steps; many small queues must not look like a full house."""
    lab = Lab(
        Limits(
            flush_size=KIB, queue_size=KIB * 256, queue_share=KIB * 128, queue_total=KIB * 512, handshakes_per_second=0
        )
    )
    alice, *many = lab.connect(*range(1, 42))
    for peer in many:
        stalled(peer, alice)
        alice.send_many(peer, 2, KIB)
    lab.run()
    assert refusals(lab) == {}
    fill(alice, many[0], 200 * KIB)
    fill(alice, many[1], 120 * KIB)
    assert refusals(lab) == {}
    assert lab.core.budget.used <= KIB * 512


def test_one_with_nothing_left_to_give_is_ended(lab: Lab) -> None:
    """The transports alone hold more than the total: frames that the kernel took in part cannot be taken back."""
    alice, *many = lab.connect(*range(1, 22))
    for peer in many:
        peer.stall(10)
        alice.send_many(peer, 4, 1000)
    lab.run()
    ended = [peer for peer in many if peer.session.ended is Ending.STALLED]
    assert ended
    assert lab.core.budget.used <= SMALL.queue_total
    assert not alice.over
    assert lab.core.counters.shed == len(ended)


def test_a_heavy_one_that_is_owed_answers_ends_rather_than_miss_one(lab: Lab) -> None:
    alice, bob, carol, dave = lab.connect(1, 2, 3, 4)
    bob.stall()
    for _ in range(30):
        bob.send(identity(9).id)
    lab.run()
    assert bob.session.blocked
    fill(alice, bob, 25 * KIB)
    bob.session.outbox.force(b"a word of ours", None)
    for _ in range(10):
        lab.tick()
    fill(alice, stalled(carol, alice), 28 * KIB)
    fill(alice, stalled(dave, alice), 20 * KIB)
    assert bob.session.ended is Ending.STALLED
    assert refusals(lab)["shed"] >= 20


def test_whoever_was_refused_last_is_not_remembered_when_gone(lab: Lab) -> None:
    alice, bob, carol, dave = peers = lab.connect(1, 2, 3, 4)
    fill(alice, stalled(bob, alice), 28 * KIB)
    for _ in range(10):
        lab.tick()
    fill(alice, stalled(carol, alice), 20 * KIB)
    fill(alice, stalled(dave, alice), 13 * KIB)
    fill(alice, bob, 3 * KIB)
    assert lab.core._heaviest is bob.session.outbox
    hang_up_all(peers)
    lab.run()
    lab.check_empty()
    assert lab.core._heaviest is None
