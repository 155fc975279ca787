"""The replay memory of a cluster: nodes that come later, that were separated, and that die while they hand it over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.backplane import nonces
from relay.backplane.link import GONE_AFTER
from relay.backplane.records import MEET, NEVER, SEEN, Kind
from relay.limits import Limits
from tests.relay.cluster import Cluster
from tests.relay.harness import identity, upgrade
from wire import commands as c

if TYPE_CHECKING:
    from relay.backplane.nonces import Nonces
    from relay.guard import ReplayMemory
    from tests.relay.harness import Peer


def take(cluster: Cluster, at: int, number: int) -> bytes:
    """Let a node take a handshake and a command of a client who then leaves; return the handshake."""
    client = cluster.labs[at].peer(number)
    client.transport.arrive(upgrade())
    hello = client.wire.hello()
    client.message(hello)
    cluster.run()
    assert client.of(c.HandshakeOk)
    client.say(c.Unsubscribe.of([client.public.x_pub]))
    cluster.run()
    client.transport.die()
    cluster.advance(0.2)
    return hello


def replay(cluster: Cluster, at: int, hello: bytes) -> Peer:
    """Let a thief say a recorded handshake at a node."""
    thief = cluster.labs[at].peer(999)
    thief.transport.arrive(upgrade())
    thief.message(hello)
    cluster.run()
    return thief


def join(cluster: Cluster) -> int:
    """Start another relay, and return its index once it has all that the others remember."""
    node = cluster.add()
    cluster.run()
    assert node.shares.nonces.whole
    node.shares.nonces.joined()
    return len(cluster.nodes) - 1


def leave(cluster: Cluster, at: int) -> None:
    """End a relay in order."""
    cluster.nodes[at].leave()
    cluster.run()
    cluster.nodes[at].stop()
    cluster.buses[at].die()


def memories(cluster: Cluster, at: int) -> list[list[tuple[bytes, bytes]]]:
    core = cluster.labs[at].core
    return [
        [(key, memory.ring(key)) for key in memory.latest()] for memory in (core.handshakes_seen, core.commands_seen)
    ]


def of(cluster: Cluster, at: int) -> Nonces:
    return cluster.nodes[at].shares.nonces


def fill(memory: ReplayMemory, keys: int, ring: int) -> None:
    for key in range(keys):
        for nonce in range(ring):
            memory.first_time(key.to_bytes(32, "big"), nonce.to_bytes(24, "big"))


def told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Return a list to which what nodes tell each other of nonces is added: at which node, what, and how many bytes."""
    heard: list[tuple[int, int, int]] = []
    for index, node in enumerate(cluster.nodes):
        record = node.record

        def listen(peer, kind, body, index=index, record=record):  # type: ignore[no-untyped-def]
            if kind in (Kind.MISSED, Kind.PAST_ASKED, Kind.PAST, Kind.PAST_ENDED):
                heard.append((index, kind, len(body)))
            record(peer, kind, body)

        monkeypatch.setattr(node, "record", listen)
    return heard


# --- Newcomers --------------------------------------------------------------------------------------------------------


def test_a_newcomer_knows_what_was_taken_before_it_came() -> None:
    cluster = Cluster()
    hellos = [take(cluster, at, at) for at in range(3)]
    new = join(cluster)
    assert memories(cluster, new) == memories(cluster, 0)
    for hello in hellos:
        assert replay(cluster, new, hello).close_code == 1008
    # And honest clients come in as ever.
    assert cluster.connect(new, 1)


def test_a_command_from_before_is_known_too() -> None:
    cluster = Cluster(1)
    [alice] = cluster.connect(0, 1)
    said = alice.command(c.Subscribe.of([identity(2).public.x_pub]))
    alice.message(said)
    cluster.run()
    alice.transport.die()
    cluster.advance(1.0)
    new = join(cluster)
    [again] = cluster.connect(new, 1)
    again.message(said)
    cluster.run()
    assert cluster.labs[new].core.sessions[again.id].watching is None


def test_what_was_taken_survives_that_every_relay_is_replaced() -> None:
    cluster = Cluster(2)
    hello = take(cluster, 0, 1)
    for old in range(6):
        join(cluster)
        leave(cluster, old)
    assert replay(cluster, 6, hello).over
    assert replay(cluster, 7, hello).over


def test_one_node_alone_gives_it_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(4)
    fill(cluster.labs[1].core.handshakes_seen, 1000, 20)
    cluster.run()
    cluster.add()
    heard = told(cluster, monkeypatch)
    cluster.run()
    asked = {at for at, kind, _ in heard if kind == Kind.PAST_ASKED}
    assert len(asked) == 1
    parts = [size for at, kind, size in heard if kind == Kind.PAST and at == 4]
    assert len(parts) > 1000 * 20 * 8 // nonces.SLICE
    assert max(parts) < nonces.SLICE + 20 * 8 + 64
    assert sum(parts) <= 1000 * (20 * 8 + 18) + len(parts)
    assert memories(cluster, 4) == memories(cluster, 0)
    # Nothing is held any more of what it was given from.
    assert all(of(cluster, at)._view is None for at in range(5))


def test_no_more_than_some_parts_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "SLICE", 64)
    cluster = Cluster(1)
    fill(cluster.labs[0].core.handshakes_seen, 200, 1)
    cluster.medium.delay = 0.1
    cluster.add()
    heard = told(cluster, monkeypatch)
    cluster.advance(1.0)
    # Two turns there and back at most since they met.
    assert nonces.AHEAD <= len([1 for at, kind, _ in heard if kind == Kind.PAST]) <= 4 * nonces.AHEAD
    cluster.advance(60.0)
    assert memories(cluster, 1) == memories(cluster, 0)


def test_what_is_taken_while_it_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "SLICE", 64)
    cluster = Cluster()
    for lab in cluster.labs:
        fill(lab.core.handshakes_seen, 30, 1)
    cluster.run()
    cluster.medium.delay = 0.05
    new = cluster.add()
    count = 1000
    while not new.shares.nonces.whole or count < 1090:
        for lab in cluster.labs[:3]:
            count += 1
            lab.core.handshakes_seen.first_time(count.to_bytes(32, "big"), bytes(24))
        cluster.advance(0.02)
    cluster.advance(1.0)
    found = [dict(memories(cluster, at)[0]) for at in range(4)]
    assert len(found[3]) == 30 + count - 1000
    assert found == [found[3]] * 4


@pytest.mark.parametrize("parts", [1, 5])
def test_a_node_that_dies_while_it_gives_is_replaced(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    monkeypatch.setattr(nonces, "SLICE", 64)
    monkeypatch.setattr(nonces, "AHEAD", 2)
    cluster = Cluster()
    fill(cluster.labs[0].core.handshakes_seen, 300, 1)
    cluster.run()
    cluster.medium.delay = 0.01
    new = cluster.add()
    heard = told(cluster, monkeypatch)
    while len([1 for at, kind, _ in heard if kind == Kind.PAST]) < parts:
        cluster.advance(0.01)
    donor = next(at for at, kind, _ in heard if kind == Kind.PAST_ASKED)
    cluster.buses[donor].die()
    cluster.advance(1.0)
    assert of(cluster, 3)._lacking
    cluster.advance(GONE_AFTER + 30.0)
    assert new.shares.nonces.whole
    assert len(memories(cluster, 3)[0]) == 300
    assert {at for at, kind, _ in heard if kind == Kind.PAST_ASKED} > {donor}


def test_newcomers_at_once_ask_those_who_were_there() -> None:
    cluster = Cluster(2)
    hello = take(cluster, 0, 1)
    for _ in range(3):
        cluster.add()
    cluster.run()
    for at in (2, 3, 4):
        assert of(cluster, at).whole
        assert replay(cluster, at, hello).over


def test_a_newcomer_with_less_room_keeps_what_was_used_last() -> None:
    cluster = Cluster(1)
    fill(cluster.labs[0].core.handshakes_seen, 50, 2)
    cluster._limits = Limits(replay_keys=10, replay_ring=1)
    new = join(cluster)
    assert memories(cluster, new)[0] == [(key, ring[-8:]) for key, ring in memories(cluster, 0)[0][:10]]


# --- Separations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.4, GONE_AFTER, 120.0])
def test_a_separation(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(4)
    take(cluster, 0, 50)
    cluster.medium.split(cluster.buses[:2], cluster.buses[2:])
    cluster.advance(seconds / 2)
    hellos = [take(cluster, at, at) for at in range(4)]
    cluster.advance(seconds / 2)
    # What cannot be promised: the other side takes it, as a relay that is alone.
    heard = told(cluster, monkeypatch)
    cluster.medium.heal()
    cluster.advance(5.0)
    for hello in hellos:
        for at in range(4):
            assert replay(cluster, at, hello).over
    # Each told what it took itself, and nobody gave all.
    assert not [kind for _, kind, _ in heard if kind != Kind.MISSED]
    entries = sum(size - 8 for _, kind, size in heard) // 25
    assert entries == (0 if seconds < GONE_AFTER else 4 * 2 * 2)


def test_nodes_that_never_met_have_all_of_each_other() -> None:
    cluster = Cluster(2)
    cluster.advance(1.0)
    hellos = [take(cluster, 0, 1)]
    cluster.medium.split(cluster.buses)
    node = cluster.add()
    cluster.buses[2].side = 1
    cluster.run()
    node.shares.nonces.joined()
    cluster.advance(20.0)
    hellos += [take(cluster, 1, 2), take(cluster, 2, 3)]
    cluster.medium.heal()
    cluster.advance(5.0)
    for hello in hellos:
        for at in range(3):
            assert replay(cluster, at, hello).over


def test_more_than_is_kept_for_a_separation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "LOGGED", 8)
    monkeypatch.setattr(nonces, "_TRIM", 4)
    cluster = Cluster(2)
    fill(cluster.labs[0].core.handshakes_seen, 100, 1)
    assert len(of(cluster, 0)._log) < 12 * 25
    cluster.run()
    cluster.medium.split(cluster.buses[:1], cluster.buses[1:])
    cluster.advance(GONE_AFTER + 4.0)
    for key in range(100, 200):
        cluster.labs[0].core.handshakes_seen.first_time(key.to_bytes(32, "big"), bytes(24))
    cluster.medium.heal()
    cluster.advance(5.0)
    assert of(cluster, 1).whole
    assert dict(memories(cluster, 1)[0]) == dict(memories(cluster, 0)[0])


def test_a_node_that_was_given_up_by_one_side_only() -> None:
    cluster = Cluster(2)
    # The second hears nothing, and is heard.
    cluster.medium.lose = lambda _source, to, _data: to is cluster.buses[1]
    cluster.advance(GONE_AFTER / 2)
    hello = take(cluster, 0, 1)
    cluster.advance(GONE_AFTER)
    cluster.medium.lose = lambda _source, _to, _data: False
    cluster.advance(5.0)
    assert replay(cluster, 1, hello).over


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "split", "heal", "wait", "lose", "join"]), st.integers(0, 9)), max_size=14
    )
)
def test_in_the_end_all_know_all(steps: list[tuple[str, int]]) -> None:
    cluster, taken = Cluster(), 0
    for what, number in steps:
        if what == "take":
            for _ in range(number):
                taken += 1
                memory = cluster.labs[taken % len(cluster.labs)].core.handshakes_seen
                memory.first_time(taken.to_bytes(32, "big"), bytes(24))
        elif what == "split":
            at = 1 + number % (len(cluster.buses) - 1)
            cluster.medium.split(cluster.buses[:at], cluster.buses[at:])
        elif what == "heal":
            cluster.medium.heal()
        elif what == "lose":
            lost = iter(range(number))
            cluster.medium.lose = lambda *_, lost=lost: next(lost, None) is not None
        elif what == "join" and len(cluster.nodes) < 6:
            new = cluster.add()
            cluster.buses[-1].side = cluster.buses[number % 3].side
            cluster.advance(3.0)
            new.shares.nonces.joined()
        cluster.advance(float(number))
    cluster.medium.heal()
    cluster.advance(GONE_AFTER + 5.0)
    for at in range(len(cluster.nodes)):
        assert len(memories(cluster, at)[0]) == taken
        assert of(cluster, at).whole
        assert not of(cluster, at)._giving


def test_nodes_of_the_past_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "_NODES", 4)
    cluster = Cluster(2)
    for old in range(2, 9):
        join(cluster)
        leave(cluster, old)
    have = of(cluster, 0)._have
    assert len(have) <= 4
    assert cluster.nodes[1].number in have


def test_what_cannot_be_is_not_taken() -> None:
    cluster = Cluster(2)
    node = cluster.nodes[0]
    [peer] = node.peers
    before = node.refused["malformed"]
    for kind, body in (
        (Kind.SEEN, bytes(10)),
        (Kind.MEET, bytes(16)),
        (Kind.MEET, MEET.pack(2**63 + 1, NEVER, True)),
        (Kind.MISSED, b"\xff" * 8),
        (Kind.MISSED, b""),
    ):
        node.record(peer, kind, body)
    assert node.refused["malformed"] == before + 5
    # Nobody asked for it.
    node.record(peer, Kind.PAST, b"\0" + bytes(16) + b"\0\1" + bytes(8))
    node.record(peer, Kind.PAST_ENDED, bytes(16))
    cluster.run()
    assert memories(cluster, 0) == [[], []]


# --- Moments ----------------------------------------------------------------------------------------------------------


def slow(monkeypatch: pytest.MonkeyPatch, old: int) -> Cluster:
    """Return nodes that remember 60 nonces, and one more that has begun to ask one of them for these."""
    monkeypatch.setattr(nonces, "SLICE", 32)
    monkeypatch.setattr(nonces, "AHEAD", 2)
    cluster = Cluster(old)
    fill(cluster.labs[0].core.handshakes_seen, 60, 1)
    cluster.run()
    cluster.medium.delay = 0.01
    cluster.add()
    while not any(of(cluster, at)._giving for at in range(old)):
        cluster.advance(0.01)
    return cluster


def test_what_was_taken_after_the_last_newcomer_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = slow(monkeypatch, 1)
    for key in range(100, 110):
        cluster.labs[0].core.handshakes_seen.first_time(key.to_bytes(32, "big"), bytes(24))
    cluster.add()
    cluster.advance(0.1)
    assert len(of(cluster, 0)._giving) == 2
    cluster.advance(10.0)
    assert [len(memories(cluster, at)[0]) for at in range(3)] == [70, 70, 70]


def test_what_a_node_took_that_is_gone_since_the_last_newcomer_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = slow(monkeypatch, 2)
    donor = next(at for at in range(2) if of(cluster, at)._giving)
    cluster.labs[1 - donor].core.handshakes_seen.first_time(bytes(32), b"\1" * 24)
    cluster.advance(0.05)
    cluster.nodes[1 - donor].leave()
    cluster.advance(0.05)
    cluster.buses[1 - donor].die()
    assert of(cluster, donor)._giving
    cluster.add()
    cluster.advance(10.0)
    assert memories(cluster, 3)[0] == memories(cluster, donor)[0]


def test_a_separation_while_it_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = slow(monkeypatch, 1)
    cluster.medium.split(cluster.buses[:1], cluster.buses[1:])
    cluster.advance(GONE_AFTER + 4.0)
    assert not of(cluster, 0)._giving
    cluster.medium.heal()
    cluster.advance(10.0)
    assert memories(cluster, 1) == memories(cluster, 0)


def test_new_nodes_tell_each_other_what_they_took() -> None:
    cluster = Cluster(0)
    cluster.add()
    fill(cluster.labs[0].core.handshakes_seen, 5, 1)
    cluster.add()
    cluster.run()
    assert len(memories(cluster, 1)[0]) == 5


def test_a_repetition_is_one_only_where_nobody_else_can_have_told_of_it() -> None:
    cluster = Cluster(2)
    fill(cluster.labs[1].core.handshakes_seen, 1, 1)
    cluster.run()
    [(key, digest)] = memories(cluster, 0)[0]
    node = cluster.nodes[0]
    [peer] = node.peers
    node.record(peer, Kind.SEEN, SEEN.pack(7, 0, key, digest))
    assert not of(cluster, 0).repeated(peer, bytes(32))
    node.record(peer, Kind.SEEN, SEEN.pack(1, 0, key, digest))
    assert of(cluster, 0).repeated(peer, bytes(32))
