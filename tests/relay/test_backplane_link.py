"""What goes between two nodes, looked at closely: seals, links, and what an adversary with NATS can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from keys.errors import OpenError
from relay.backplane.link import GONE_AFTER
from relay.backplane.node import MOST_NEWS, REFUSED
from relay.backplane.options import ClusterOptions
from relay.backplane.outgoing import WINDOW
from relay.backplane.records import Kind, parse_parcel
from relay.backplane.seals import ANSWER, ASK, DATA, HELLO, Seals
from relay.limits import Limits
from relay.metrics import Exposition
from tests.relay.cluster import OPTIONS, SECRET, Cluster
from tests.wire.pair import Counted
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.relay.cluster import MemoryBus

A, B, C = b"A" * 8, b"B" * 8, b"C" * 8
X, Y = b"x" * 16, b"y" * 16


def seals(number: bytes, secret: bytes = SECRET) -> Seals:
    return Seals(secret, "blindrelay", number, Counted(f"seals {number.hex()}"))


# --- Seals ------------------------------------------------------------------------------------------------------------


def test_both_ends_have_the_keys_of_a_link() -> None:
    ours, theirs = seals(A), seals(B)
    here, there = ours.link(X, B, Y), theirs.link(Y, A, X)
    assert here.id == there.id
    data = b"".join(ours.seal_data(here, 1, b"hello", B, theirs.own_subject))
    assert theirs.open_data(there, data) == b"hello"
    assert "x" * 16 not in repr(here)


@pytest.mark.parametrize("at", [0, 5, 10, 20, 30, -1])
def test_data_that_was_changed_does_not_open(at: int) -> None:
    ours, theirs = seals(A), seals(B)
    data = bytearray(b"".join(ours.seal_data(ours.link(X, B, Y), 7, b"hello", B, theirs.own_subject)))
    data[at] ^= 1
    with pytest.raises(OpenError):
        theirs.open_data(theirs.link(Y, A, X), bytes(data))


def test_data_is_bound_to_its_destination_direction_and_link() -> None:
    ours, theirs, other = seals(A), seals(B), seals(C)
    keys = ours.link(X, B, Y)
    data = b"".join(ours.seal_data(keys, 1, b"hello", B, theirs.own_subject))
    for reader, link in (
        (other, other.link(Y, A, X)),
        (theirs, theirs.link(X, A, Y)),
        (theirs, theirs.link(Y, C, X)),
        (ours, keys),
        (seals(B, bytes(32)), seals(B, bytes(32)).link(Y, A, X)),
    ):
        with pytest.raises(OpenError):
            reader.open_data(link, data)


def test_calls_are_bound_to_kind_destination_subject_and_context() -> None:
    ours, theirs = seals(A), seals(B)
    call = ours.seal_call(ANSWER, b"here", "subject", B, b"question")
    assert theirs.open_call(call, "subject", B, b"question") == (A, b"here")
    changes: tuple[Callable[[], object], ...] = (
        lambda: theirs.open_call(call, "another", B, b"question"),
        lambda: theirs.open_call(call, "subject", C, b"question"),
        lambda: theirs.open_call(call, "subject", B, b"another question"),
        lambda: theirs.open_call(bytes((ASK,)) + call[1:], "subject", B, b"question"),
        lambda: theirs.open_call(call[:1] + C + call[9:], "subject", B, b"question"),
        lambda: theirs.open_call(call[:20], "subject", B, b"question"),
        lambda: seals(B, bytes(32)).open_call(call, "subject", B, b"question"),
    )
    for changed in changes:
        with pytest.raises(OpenError):
            changed()


def test_subjects_are_equal_at_all_nodes_and_under_one_secret_alone() -> None:
    assert seals(A).id_subject(b"12345678") == seals(B).id_subject(b"12345678")
    assert seals(A).id_subject(b"12345678") != seals(A, bytes(32)).id_subject(b"12345678")
    name = seals(A).id_subject(b"12345678").rpartition(".")[2]
    assert name.isalnum()
    assert len(name) == 26


# --- An adversary who has NATS ----------------------------------------------------------------------------------------


class Recorded:
    """Two nodes, clients at both, and all messages between them."""

    def __init__(self) -> None:
        self.cluster = Cluster(2)
        [self.alice], [self.bob] = self.cluster.connect(0, 1), self.cluster.connect(1, 2)
        self.alice.send_many(self.bob, 3)
        self.cluster.advance(1.0)
        self.alice.send_many(self.bob, 3)
        self.cluster.advance(1.0)
        self.delivered = list(self.bob.delivered)
        self.seen = list(self.cluster.medium.seen)

    def repeat(self, kind: int, to: MemoryBus | None = None) -> int:
        """Publish again what was published, in the old order."""
        count = 0
        for subject, data in self.seen:
            for bus in [to] if to is not None else self.cluster.buses:
                if data[0] == kind and subject in bus.subjects:
                    count += 1
                    bus.subjects[subject](data, "", subject)
        self.cluster.run()
        return count


def test_repeated_data_is_refused() -> None:
    recorded = Recorded()
    node = recorded.cluster.nodes[1]
    before = node.refused["old_sequence"]
    assert recorded.repeat(DATA)
    assert recorded.bob.delivered == recorded.delivered
    assert node.refused["old_sequence"] > before
    sent = recorded.alice.send(recorded.bob)
    recorded.cluster.advance(1.0)
    assert recorded.bob.delivered[-1] == sent


def test_repeated_hellos_change_nothing() -> None:
    recorded = Recorded()
    cluster = recorded.cluster
    links = [peer._keys for node in cluster.nodes for peer in node.peers]
    assert recorded.repeat(HELLO)
    cluster.advance(1.0)
    assert recorded.repeat(DATA)
    assert [peer._keys for node in cluster.nodes for peer in node.peers] == links
    assert recorded.bob.delivered == recorded.delivered


def test_messages_to_a_node_of_before_are_nothing_to_the_next() -> None:
    recorded = Recorded()
    cluster = recorded.cluster
    cluster.buses[1].die()
    cluster.advance(GONE_AFTER + 2)
    node = cluster.add()
    bus = cluster.buses[-1]
    cluster.advance(1.0)
    refused = dict(node.refused)
    # Under the subject of the new node, which is another: nothing of what was recorded was for it.
    for _, data in recorded.seen:
        bus.subjects[node.seals.own_subject](data, "", node.seals.own_subject)
    cluster.run()
    assert sum(node.refused.values()) >= sum(refused.values()) + len(recorded.seen)
    assert node.records_in == 0 or all(peer.up for peer in node.peers)
    assert len(list(node.peers)) == 1


def test_a_dead_node_that_is_announced_again_is_soon_forgotten() -> None:
    recorded = Recorded()
    cluster = recorded.cluster
    cluster.buses[1].die()
    cluster.advance(GONE_AFTER + 2)
    node = cluster.nodes[0]
    assert not node.peers
    assert recorded.repeat(3, cluster.buses[0])
    assert len(node.peers) == 1
    assert not any(peer.up for peer in node.peers)
    # Nobody's fate depends on it meanwhile.
    lost = recorded.alice.send(recorded.bob)
    cluster.run()
    assert lost in recorded.alice.nacked
    cluster.advance(GONE_AFTER + 2)
    assert not node.peers


def test_without_the_secret_nothing_is_taken() -> None:
    cluster = Cluster(2)
    stranger = cluster.add(ClusterOptions(OPTIONS.servers, b"\x78" * 32))
    cluster.advance(3.0)
    assert not stranger.peers
    assert [len(node.peers) for node in cluster.nodes[:2]] == [1, 1]
    assert all(node.refused["not_sealed"] for node in cluster.nodes[:2])


def test_another_secret_is_said_once_by_both() -> None:
    with structlog.testing.capture_logs() as logs:
        cluster = Cluster(1)
        cluster.add(ClusterOptions(OPTIONS.servers, b"\x78" * 32))
        cluster.advance(20.0)
    said = [entry for entry in logs if entry["log_level"] != "info"]
    assert [(entry["event"], entry["log_level"]) for entry in said] == [("cluster_other_secret", "warning")] * 2
    assert {entry["node"] for entry in said} == {node.label for node in cluster.nodes}


@given(st.binary(max_size=200), st.sampled_from(range(6)))
def test_any_bytes_are_counted_and_no_more(data: bytes, kind: int) -> None:
    cluster = GARBAGE
    node, bus = cluster.nodes[0], cluster.buses[0]
    before = sum(node.refused.values())
    for message in (data, bytes((kind,)) + cluster.nodes[1].number + data):
        for subject, received in list(bus.subjects.items()):
            received(message, "", subject)
    cluster.run()
    assert sum(node.refused.values()) > before
    assert all(peer.up for peer in node.peers)


@given(st.integers(2, 40), st.binary(max_size=120))
@example(3, bytes(17))
def test_any_record_of_a_node_is_taken_without_an_error(kind: int, body: bytes) -> None:
    # The nodes trust each other; a mistake of one must all the same not end another's reading.
    cluster = GARBAGE
    if kind == Kind.LEAVE:
        return
    node = cluster.nodes[0]
    for peer in node.peers:
        node.record(peer, kind, body)
    cluster.run()


GARBAGE = Cluster(2)


# --- Links ------------------------------------------------------------------------------------------------------------


def test_what_is_on_its_way_is_bounded() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.advance(0.1)
    cluster.buses[1].pause()
    alice.send_many(bob, 400, 8192)
    cluster.run()
    [peer] = cluster.nodes[0].peers
    assert peer._sent_bytes <= WINDOW + 8192 * 2
    assert peer.waiting > 3_000_000
    cluster.buses[1].read_on()
    cluster.advance(1.0)
    assert len(bob.delivered) == 401


def test_a_node_that_cannot_keep_up_is_given_up_and_begins_anew() -> None:
    cluster = Cluster(2, Limits(queue_total=32 << 20))
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.say(c.Subscribe.of([bob.public.x_pub]))
    cluster.run()
    node = cluster.nodes[0]
    [peer] = node.peers
    cluster.buses[1].pause()
    for _ in range((peer.bound + MOST_NEWS) // 32_000 + 1):
        peer.put(Kind.WHO, bytes(4) + bytes(32) * 1000)
    cluster.advance(0.5)
    assert not peer.alive
    assert peer.waiting == 0
    cluster.buses[1].read_on()
    cluster.advance(5.0)
    assert [each.up for each in node.peers] == [True]
    assert alice.presence[-1] == (True, bob.public.x_pub)
    sent = alice.send(bob)
    cluster.advance(1.0)
    assert bob.delivered == [sent]


def test_a_node_that_was_away_does_not_believe_what_lay_unread() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    cluster.advance(0.1)
    node, bus = cluster.nodes[1], cluster.buses[1]
    # As after SIGSTOP: its beats stand still, and what comes waits in its socket.
    beat = node._beat
    node._beat = lambda: cluster.loop.call_later(0.25, node._beat)  # type: ignore[method-assign, assignment]
    bus.pause()
    lost = alice.send_many(bob, 3)
    cluster.advance(GONE_AFTER + 1)
    assert alice.nacked == lost
    bus.read_on()
    cluster.run()
    node._beat = beat  # type: ignore[method-assign]
    cluster.advance(3.0)
    assert not set(bob.delivered) & set(lost)
    assert alice.send(bob) not in lost
    cluster.advance(1.0)
    assert len(bob.delivered) == 2


def test_parcels() -> None:
    assert parse_parcel(Kind.FRAME, bytes(16)) is None
    parcel = parse_parcel(Kind.INTRODUCE, b"\x01" + b"t" * 8 + b"s" * 8 + b"rest")
    assert parcel is not None
    assert (parcel.tries, parcel.target, parcel.sender, parcel.payload) == (1, b"t" * 8, b"s" * 8, b"rest")
    assert parse_parcel(Kind.INTRODUCE, parcel.encode()[5:]) == parcel


def test_a_slow_answer_to_a_subscription_is_not_waited_for() -> None:
    cluster = Cluster(2)
    [alice, carol], [bob] = cluster.connect(0, 1, 3), cluster.connect(1, 2)
    cluster.buses[1].pause()
    alice.say(c.Subscribe.of([bob.public.x_pub, carol.public.x_pub]))
    cluster.run()
    assert not alice.presence
    cluster.advance(1.1)
    assert alice.presence == [(True, carol.public.x_pub)]
    cluster.buses[1].read_on()
    cluster.run()
    assert alice.presence[1:] == [(True, bob.public.x_pub)]


def test_options() -> None:
    for wrong in (
        {"servers": ()},
        {"secret": b"short"},
        {"prefix": "a..b"},
        {"prefix": "a b"},
        {"password": "p"},
    ):
        with pytest.raises(ValueError, match=r"\w"):
            ClusterOptions(**({"servers": ("nats://a",), "secret": SECRET} | wrong))  # type: ignore[arg-type]
    options = ClusterOptions(("nats://a",), SECRET, user="u", password="p4ssw0rd")
    assert "p4ssw0rd" not in repr(options)
    assert repr(SECRET) not in repr(options)


def test_metrics_have_bounded_labels_and_name_nobody() -> None:
    cluster = Cluster(2)
    [alice], [bob] = cluster.connect(0, 1), cluster.connect(1, 2)
    alice.send(bob)
    alice.send(b"12345678")
    cluster.advance(1.0)
    text = Exposition(cluster.labs[0].core).plain()
    assert "blindrelay_cluster_nodes 2.0" in text
    assert "blindrelay_cluster_links 1.0" in text
    assert "blindrelay_cluster_lookups_total 2.0" in text
    for reason in REFUSED:
        assert f'blindrelay_cluster_messages_refused_total{{reason="{reason}"}} 0.0' in text
    for secret in (alice.id, bob.id, cluster.nodes[1].number):
        assert secret.hex() not in text
    cluster.nodes[0].stop()
    assert "cluster" not in Exposition(cluster.labs[0].core).plain()
