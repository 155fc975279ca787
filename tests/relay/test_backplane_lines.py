"""Several newcomers for one id, each at another node: who comes first is decided first, and nobody waits for ever."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from relay.limits import Limits
from relay.websocket import Phase
from tests.relay.cluster import Cluster
from tests.relay.harness import Peer, client_frame, identity
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable

PONG = 0xA


def holder(cluster: Cluster, at: int = 0) -> Peer:
    """A proven session of identity 1 that answers no pings."""
    [alice] = cluster.connect(at, 1)
    alice.say(c.Subscribe.of([identity(99).public.x_pub]))
    cluster.run()
    alice.answers_pings = False
    return alice


def newcomer(cluster: Cluster, at: int, wait: float = 0.2) -> Peer:
    peer = cluster.labs[at].peer(1).open()
    cluster.advance(wait)
    return peer


def check_one(cluster: Cluster, at: int) -> None:
    assert cluster.sessions(1) == [at]
    cluster.advance(12.0)
    assert cluster.sessions(1) == [at]
    cluster.check_settled()


def was_in(peer: Peer) -> bool:
    """Whether it was let in, and then met the next one as an unproven holder does."""
    return bool(peer.of(c.HandshakeOk)) and peer.over and peer.close_code == 1008


# --- Order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.01])
@pytest.mark.parametrize("nodes", list(permutations(range(3))))
def test_the_first_to_come_is_the_first_in_line(nodes: tuple[int, int, int], delay: float) -> None:
    cluster = Cluster()
    cluster.medium.delay = delay
    alice = holder(cluster, 0)
    # One of them is at the holder's own node.
    newcomers = [newcomer(cluster, at) for at in nodes]
    assert len(alice.pings) == 1, "one question at a time"
    cluster.advance(4.0)
    assert alice.over
    assert [was_in(each) for each in newcomers] == [True, True, False]
    check_one(cluster, nodes[2])


def test_who_comes_while_the_first_is_given_the_id_waits_behind_those_in_line() -> None:
    cluster = Cluster(4)
    cluster.medium.delay = 0.01
    holder(cluster, 3)
    first, second = newcomer(cluster, 2), newcomer(cluster, 1)
    cluster.advance(1.6)
    # The holder is put out now; whoever asks at this moment finds nobody who has the id.
    third = newcomer(cluster, 3, 0.03)
    cluster.advance(4.0)
    assert was_in(first)
    assert was_in(second)
    assert not third.over
    check_one(cluster, 3)


def test_each_in_line_is_judged_in_its_turn() -> None:
    cluster = Cluster(4)
    alice = holder(cluster)
    newcomers = [newcomer(cluster, at) for at in (3, 1, 2)]
    for count, each in enumerate(newcomers, 1):
        # The last waits for longer than a node may take to answer, and does not lose its place by that.
        cluster.advance(1.3 if count == 1 else 1.9)
        assert len(alice.pings) == count
        assert not each.said
        alice.transport.arrive(client_frame(alice.pings[-1], PONG))
        cluster.run()
        assert each.of(c.IdInUse)
        assert not any(later.said for later in newcomers[count:])
    check_one(cluster, 0)


def test_the_first_gives_up_and_the_next_moves_up() -> None:
    cluster = Cluster()
    alice = holder(cluster)
    first, second = newcomer(cluster, 2), newcomer(cluster, 1)
    first.transport.die()
    cluster.run()
    alice.transport.die()
    cluster.advance(0.5)
    assert second.of(c.HandshakeOk)
    check_one(cluster, 1)


def test_a_line_at_one_node_behind_one_elsewhere() -> None:
    """The newcomers of one node stand in line there; the first of them stands for all at the holder's."""
    cluster = Cluster()
    holder(cluster)
    newcomers = [newcomer(cluster, 2), newcomer(cluster, 2), newcomer(cluster, 1)]
    cluster.advance(4.0)
    assert [was_in(each) for each in newcomers] == [True, True, False]
    check_one(cluster, 1)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_of_three_who_claim_at_once_one_goes_on(order: tuple[int, int, int]) -> None:
    """Each hears the others' answers in another order; only the lowest number of all counts."""
    cluster = Cluster()
    carry = cluster.medium.carry

    def uneven(source: object, to: object, call: Callable[..., None], *args: object) -> None:
        index = [*map(id, cluster.buses)].index(id(source))
        cluster.loop.call_later(0.004 * (order[index] + 1), carry, source, to, call, *args)

    cluster.medium.carry = uneven  # type: ignore[method-assign]
    for lab in cluster.labs:
        lab.peer(1).open()
    for _ in range(200):
        cluster.advance(0.002)
        assert len(cluster.sessions(1)) <= 1
    cluster.advance(3.0)
    assert len(cluster.sessions(1)) == 1
    assert not sum(node.two_sessions for node in cluster.nodes)


@pytest.mark.parametrize("gap", [0.002, 0.03, 0.3])
@pytest.mark.parametrize("nodes", list(permutations(range(3), 2)))
def test_the_later_of_two_connections_stays_whichever_is_decided_first(nodes: tuple[int, int], gap: float) -> None:
    """As when a client loses its network just after its handshake: its first connection is dead, and nobody knows."""
    cluster = Cluster()
    cluster.medium.delay = 0.01
    earlier = newcomer(cluster, nodes[0], gap)
    later = newcomer(cluster, nodes[1], 3.0)
    assert earlier.over
    assert not later.over
    check_one(cluster, nodes[1])


# --- Bounds ----------------------------------------------------------------------------------------------------------


def test_the_line_is_bounded_at_each_node() -> None:
    most = 3
    cluster = Cluster(4, Limits(claim_queue=most, handshakes_per_second=0))
    holder(cluster)
    everybody = [newcomer(cluster, count % 4, 0.0) for count in range(40)]
    cluster.advance(0.5)
    waiting = [each for each in everybody if not each.over]
    assert len(cluster.labs[0].core.claims.line(identity(1).id)) == most
    for lab in cluster.labs:
        assert len(lab.core.claims.line(identity(1).id)) <= most
        assert sum(each.lab is lab for each in waiting) <= most
    assert all(each.of(c.IdInUse) for each in everybody if each.over)
    cluster.advance(6.0)
    assert len(cluster.sessions(1)) == 1
    cluster.advance(12.0)
    cluster.check_settled()


def test_an_answer_to_an_earlier_claim_is_none_to_the_next() -> None:
    cluster = Cluster(2)
    alice = holder(cluster)
    second = newcomer(cluster, 1)
    claims = cluster.nodes[1].claims
    [claim] = claims._claims.values()
    [peer] = cluster.nodes[1].peers
    old = claim.number
    # As after a while without a word: it leaves that line, and asks anew.
    claims._step_out(claim)
    claims._ask(claim)
    cluster.advance(0.2)
    assert claim.number != old
    claims.claim_answered(peer, old.to_bytes(4, "big") + b"\x01")
    cluster.run()
    assert not second.said
    cluster.advance(4.0)
    assert alice.over
    check_one(cluster, 1)


# --- Nodes leave, die, and come back ---------------------------------------------------------------------------------


def test_the_holders_node_leaves_while_a_line_waits() -> None:
    cluster = Cluster()
    alice = holder(cluster)
    newcomers = [newcomer(cluster, 2), newcomer(cluster, 1)]
    cluster.labs[0].core.draining = True
    alice.transport.die()
    cluster.run()
    cluster.nodes[0].leave()
    cluster.run()
    cluster.nodes[0].stop()
    cluster.buses[0].die()
    cluster.advance(1.0)
    # Nobody is left who knows who was first, and the lower number goes on; the other came earlier than what it meets.
    assert newcomers[0].close_code == 1008
    assert not newcomers[0].said
    assert not newcomers[1].over
    check_one(cluster, 1)


def test_a_newcomers_node_leaves_while_it_waits() -> None:
    cluster = Cluster()
    holder(cluster)
    newcomer(cluster, 2)
    second = newcomer(cluster, 1)
    cluster.nodes[2].leave()
    cluster.run()
    cluster.nodes[2].stop()
    cluster.buses[2].die()
    cluster.advance(4.0)
    assert second.of(c.HandshakeOk)
    check_one(cluster, 1)


def test_a_holders_node_that_drains_does_not_keep_those_in_line() -> None:
    cluster = Cluster()
    alice = holder(cluster)
    of_its_own = newcomer(cluster, 0)
    newcomers = [newcomer(cluster, 2), newcomer(cluster, 1)]
    cluster.labs[0].core.draining = True
    cluster.advance(4.0)
    assert alice.over
    assert not of_its_own.of(c.HandshakeOk)
    assert was_in(newcomers[0])
    of_its_own.transport.die()
    check_one(cluster, 1)


def test_a_newcomer_that_is_decided_while_its_node_drains_keeps_nothing() -> None:
    cluster = Cluster()
    alice = holder(cluster, 1)
    draining = newcomer(cluster, 0)
    cluster.labs[0].core.draining = True
    alice.transport.die()
    cluster.advance(1.0)
    assert not draining.said
    assert len(cluster.nodes[0].holdings) == 0
    other = newcomer(cluster, 2, 0.5)
    assert other.of(c.HandshakeOk)
    check_one(cluster, 2)


def test_a_holder_that_ends_while_a_claim_is_on_its_way() -> None:
    cluster = Cluster()
    alice = holder(cluster)
    cluster.medium.delay = 0.05
    second = newcomer(cluster, 1, 0.12)
    # Asked and answered; the claim itself is under way.
    assert cluster.nodes[1].claims._judged
    assert not cluster.nodes[0].claims._elsewhere
    alice.transport.die()
    third = newcomer(cluster, 2, 1.0)
    assert was_in(second)
    assert not third.over
    check_one(cluster, 2)


@pytest.mark.parametrize("seconds", [3.0, 7.0])
def test_a_holders_node_that_is_cut_off_and_comes_back_within_a_claim(seconds: float) -> None:
    cluster = Cluster(limits=Limits(claim_wait=30.0))
    alice = holder(cluster)
    second = newcomer(cluster, 1)
    cluster.medium.split(cluster.buses[:1], cluster.buses[1:])
    cluster.advance(seconds)
    cluster.medium.heal()
    cluster.advance(10.0)
    if seconds < 5.0:
        # The line is as it was.
        assert not second.said
        alice.transport.arrive(client_frame(alice.pings[-1], PONG))
        cluster.advance(1.0)
        assert second.of(c.IdInUse)
        check_one(cluster, 0)
    else:
        assert second.of(c.HandshakeOk)
        check_one(cluster, 1)


def test_a_node_that_dies_with_the_id_that_was_given_to_its_newcomer() -> None:
    cluster = Cluster()
    holder(cluster)
    newcomer(cluster, 2)
    second = newcomer(cluster, 1)
    cluster.advance(1.5)
    cluster.buses[2].pause()
    cluster.advance(1.0)
    assert cluster.sessions(1) == []
    cluster.advance(6.0)
    assert second.of(c.HandshakeOk)
    cluster.buses[2].read_on()
    cluster.advance(20.0)
    assert len(cluster.sessions(1)) == 1
    cluster.check_settled()


def test_a_node_that_lives_and_never_says_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    holder(cluster)
    newcomer(cluster, 2)
    second = newcomer(cluster, 1)
    monkeypatch.setattr(cluster.nodes[2].claims, "_ask", lambda _: None)
    cluster.advance(11.0)
    assert not second.said
    cluster.advance(2.5)
    assert second.of(c.HandshakeOk)
    assert second.session.phase is Phase.OPEN


def test_two_lines_that_wait_for_each_other_do_not_wait_for_long() -> None:
    """Both nodes have a session, as after a split, when the other's newcomer asks, and none when it has its answer."""
    cluster = Cluster(2)
    cluster.medium.split(*([bus] for bus in cluster.buses))
    cluster.advance(7.0)
    holders = [holder(cluster, 0), holder(cluster, 1)]
    cluster.medium.heal()
    cluster.advance(0.3)
    cluster.medium.delay = 0.05
    for each in holders:
        each.transport.die()
    newcomers = [newcomer(cluster, 0, 0.0), newcomer(cluster, 1, 0.0)]
    cluster.advance(3.0)
    assert any(each.of(c.HandshakeOk) for each in newcomers)
    cluster.advance(12.0)
    assert len(cluster.sessions(1)) == 1
    cluster.check_settled()


# --- Who watches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0.0, 1.9, 2.15, 2.25])
def test_who_begins_to_watch_while_a_claim_is_decided_knows_in_the_end(when: float) -> None:
    cluster = Cluster()
    cluster.medium.delay = 0.02
    alice = holder(cluster)
    [bob] = cluster.connect(2, 2)
    newcomer(cluster, 1, when)
    bob.say(c.Subscribe.of([alice.public.x_pub]))
    cluster.advance(6.0)
    assert cluster.sessions(1) == [1]
    assert bob.presence[-1] == (True, alice.public.x_pub)
    sent = bob.send(alice)
    cluster.advance(1.0)
    assert not bob.nacked
    cluster.labs[1].core.sessions[alice.id].transport.abort()
    cluster.advance(1.0)
    assert bob.presence[-1] == (False, alice.public.x_pub)
    assert sent
