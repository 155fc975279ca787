"""From a socket to a session."""

import pytest

from keys.identity import Identity
from keys.packet import seal
from relay.about import About
from relay.limits import Limits
from relay.reasons import Ending, Refusal
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, client_frame, identity, upgrade
from tests.wire.pair import Counted
from wire import commands as c
from wire.frames import build_handshake
from wire.limits import MAX_FRAME, MAX_HANDSHAKE


@pytest.fixture
def lab() -> Lab:
    return Lab()


def websocket(lab: Lab, who: Identity | int = 1, *headers: str, address: str = "198.51.100.7") -> Peer:
    """Return a connection that is a WebSocket and nothing more."""
    peer = lab.peer(who, address)
    peer.transport.arrive(upgrade("/ws", *headers))
    lab.run()
    return peer


def hello(peer: Peer, version: int = 2) -> bytes:
    """Return a handshake request of any version."""
    return build_handshake(peer.identity, peer.shared, version=version, random=Counted(f"hello {peer.lab.number()}"))


def check_ended(peer: Peer, ending: Ending, code: int = 1008) -> None:
    peer.lab.run()
    assert peer.session.ended is ending
    assert peer.close_code == code
    assert peer.transport.ended
    assert peer.lab.core.sessions.get(peer.id) is not peer.session
    assert peer.session not in peer.lab.core.opening


# --- Let in ----------------------------------------------------------------------------------------------------------


def test_the_first_frame_is_the_answer_to_the_handshake(lab: Lab) -> None:
    alice = lab.peer(1).open()
    lab.run()
    assert [type(body) for body in alice.said] == [c.HandshakeOk, c.Challenge]
    assert lab.core.sessions == {alice.id: alice.session}
    assert lab.core.counters.admitted == 1
    assert not alice.session.opened_wire.proven


def test_the_notice_comes_after_the_answer_and_the_challenge_each_time() -> None:
    lab = Lab()
    lab.core.about = About(notice="Down on Sunday: é")
    for _ in range(2):
        alice = lab.peer(1).open()
        lab.run()
        assert [type(body) for body in alice.said] == [c.HandshakeOk, c.Challenge, c.Info]
        assert alice.of(c.Info) == [c.Info("Down on Sunday: é")]
        alice.close()
        lab.run()


def test_who_is_refused_gets_no_notice() -> None:
    lab = Lab()
    lab.core.about = About(notice="Down on Sunday")
    other = Identity(identity(1).seeds[0], bytes(32))
    lab.peer(1).open()
    refused = lab.peer(other).open()
    lab.run()
    assert refused.said == [c.IdInUse()]


def test_the_answer_comes_first_even_when_others_already_write(lab: Lab) -> None:
    (bob,) = lab.connect(2)
    alice = lab.peer(1).open()
    for _ in range(5):
        bob.send(alice)
    for _ in range(20):
        lab.loop.turn()
        bob.send(alice)
    lab.run()
    assert isinstance(alice.said[0], c.HandshakeOk)
    assert alice.delivered


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_an_opening_in_any_pieces(size: int, lab: Lab) -> None:
    alice = lab.peer(1)
    stream = upgrade() + client_frame(alice.wire.hello())
    for at in range(0, len(stream), size):
        alice.transport.arrive(stream[at : at + size])
    lab.run()
    assert isinstance(alice.said[0], c.HandshakeOk)


def test_what_is_sent_in_one_chunk_with_the_handshake_is_read_too(lab: Lab) -> None:
    (bob,) = lab.connect(2)
    alice = lab.peer(1)
    (one, first), (two, second) = alice.blind(bob), alice.blind(bob, MAX_FRAME)
    alice.transport.arrive(upgrade() + client_frame(alice.wire.hello()) + client_frame(one) + client_frame(two))
    lab.run()
    assert isinstance(alice.said[0], c.HandshakeOk)
    assert bob.delivered == [first, second]


def test_a_handshake_in_fragments(lab: Lab) -> None:
    alice, (bob,) = websocket(lab), lab.connect(2)
    request = alice.wire.hello()
    alice.transport.arrive(client_frame(request[:50], fin=False) + client_frame(request[50:], 0))
    lab.run()
    assert isinstance(alice.said[0], c.HandshakeOk)
    nonce = alice.send(bob, MAX_FRAME)
    lab.run()
    assert bob.delivered == [nonce]


def test_text_before_the_handshake_is_ignored(lab: Lab) -> None:
    alice = websocket(lab)
    alice.transport.arrive(client_frame(b"hello?", 1))
    alice.message(alice.wire.hello())
    lab.run()
    assert isinstance(alice.said[0], c.HandshakeOk)


# --- Not let in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_another_version_is_told_ours(version: int, lab: Lab) -> None:
    alice = websocket(lab)
    alice.wire.hello()
    alice.message(hello(alice, version))
    check_ended(alice, Ending.BAD_VERSION)
    assert alice.said == [c.BadVersion(2)]


@pytest.mark.parametrize("junk", [b"", bytes(112), bytes(136), bytes(172), b"\x01" * 4096])
def test_what_is_no_handshake_gets_no_answer(junk: bytes, lab: Lab) -> None:
    alice = websocket(lab).message(junk)
    check_ended(alice, Ending.BAD_HANDSHAKE)
    assert alice.raw == []


def test_a_handshake_signed_by_somebody_else(lab: Lab) -> None:
    alice, mallory = websocket(lab), identity(66)
    body = c.HandshakeRequest(alice.public.ed_pub).encode()
    alice.message(alice.public.x_pub + seal(b"\x00\x00\x01" + body, mallory, alice.shared))
    check_ended(alice, Ending.BAD_HANDSHAKE)


def test_a_handshake_for_another_relay(lab: Lab) -> None:
    alice = websocket(lab)
    shared = alice.identity.shared_with(identity(67).public.x_pub)
    alice.message(build_handshake(alice.identity, shared))
    check_ended(alice, Ending.BAD_HANDSHAKE)


def test_a_first_frame_beyond_its_limit_is_refused_before_it_came(lab: Lab) -> None:
    alice = websocket(lab)
    alice.transport.arrive(client_frame(bytes(MAX_HANDSHAKE + 1))[:8])
    check_ended(alice, Ending.PROTOCOL_ERROR, 1009)


def test_a_replayed_handshake_is_refused_without_an_answer(lab: Lab) -> None:
    alice = websocket(lab)
    request = alice.wire.hello()
    alice.message(request)
    lab.run()
    mallory = websocket(lab).message(request)
    check_ended(mallory, Ending.REPLAYED_HANDSHAKE)
    assert mallory.raw == []
    alice.close()
    lab.run()
    again = websocket(lab).message(request)
    check_ended(again, Ending.REPLAYED_HANDSHAKE)


def test_a_handshake_refused_for_its_version_can_be_sent_again(lab: Lab) -> None:
    """Its nonce is not remembered: nothing was opened with it."""
    alice = websocket(lab)
    alice.wire.hello()
    request = hello(alice, 9)
    alice.message(request)
    lab.run()
    assert len(lab.core.handshakes_seen) == 0


def test_a_second_handshake_is_a_malformed_frame(lab: Lab) -> None:
    (alice,) = lab.connect(1)
    alice.message(alice.command(c.HandshakeRequest(alice.public.ed_pub)))
    lab.run()
    assert lab.core.counters.refusals[Refusal.MALFORMED] == 1
    assert not alice.over


# --- Rates -----------------------------------------------------------------------------------------------------------


def burst(lab: Lab, count: int, address: str, *headers: str) -> list[Ending | None]:
    peers = []
    for _ in range(count):
        peer = websocket(lab, 1000 + lab.number(), *headers, address=address)
        peers.append(peer.message(peer.wire.hello()))
    lab.run()
    return [peer.session.ended for peer in peers]


def test_handshakes_are_counted_by_address() -> None:
    lab = Lab(Limits(handshakes_burst=2, handshakes_per_second=1))
    assert burst(lab, 3, "203.0.113.1") == [None, None, Ending.HANDSHAKE_RATE]
    assert burst(lab, 1, "203.0.113.2") == [None]
    lab.advance(1.0)
    assert burst(lab, 2, "203.0.113.1") == [None, Ending.HANDSHAKE_RATE]


def test_behind_a_proxy_they_are_counted_by_whom_it_names() -> None:
    lab = Lab(Limits(handshakes_burst=1, handshakes_per_second=1))
    assert burst(lab, 2, "127.0.0.1", "X-Forwarded-For: 203.0.113.1") == [None, Ending.HANDSHAKE_RATE]
    assert burst(lab, 1, "127.0.0.1", "X-Forwarded-For: 6.6.6.6, 203.0.113.2") == [None]
    assert burst(lab, 1, "127.0.0.1", "X-Forwarded-For: 203.0.113.1, 203.0.113.3") == [None]
    assert burst(lab, 3, "127.0.0.1") == [None] * 3


def test_a_claim_from_the_network_is_not_believed() -> None:
    lab = Lab(Limits(handshakes_burst=1, handshakes_per_second=1))
    assert burst(lab, 1, "203.0.113.1", "X-Forwarded-For: 1.1.1.1") == [None]
    assert burst(lab, 1, "203.0.113.1", "X-Forwarded-For: 2.2.2.2") == [Ending.HANDSHAKE_RATE]


def test_too_many_handshakes_cost_no_key_exchange_and_say_try_later() -> None:
    lab = Lab(Limits(handshakes_burst=1, handshakes_per_second=1))
    alice = websocket(lab, 1, address="203.0.113.1")
    assert burst(lab, 1, "203.0.113.1") == [None]
    alice.message(b"not even a handshake")
    check_ended(alice, Ending.HANDSHAKE_RATE, 1013)


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "code"), [("/healthz", b"200"), ("/", b"200"), ("/nowhere", b"404"), ("/ws", b"426")])
def test_plain_requests_are_answered_and_hung_up_on(path: str, code: bytes, lab: Lab) -> None:
    browser = lab.peer(1)
    browser.transport.arrive(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    lab.run()
    assert browser.status.split()[1] == code
    assert browser.session.ended is Ending.NOT_WEBSOCKET
    assert browser.transport.ended
    browser.transport.hang_up()
    lab.run()
    lab.check_empty()


def test_an_endless_request(lab: Lab) -> None:
    browser = lab.peer(1)
    for _ in range(5):
        browser.transport.arrive(b"X" * 4096)
    lab.run()
    assert browser.transport.ended
    assert browser.session.ended is Ending.BAD_REQUEST
    assert bytes(browser.transport.written).startswith(b"HTTP/1.1 431 ")


def test_who_comes_while_sessions_are_closed_one_after_another(lab: Lab) -> None:
    early = lab.peer(1)
    early.transport.arrive(upgrade())
    lab.run()
    lab.core.draining = True
    late = lab.peer(2).open()
    early.message(early.wire.hello())
    lab.run()
    assert late.status == b"HTTP/1.1 503 Service Unavailable"
    assert b"\r\nRetry-After: " in late.transport.written
    check_ended(early, Ending.SHUTDOWN, 1001)
    assert not lab.core.sessions


def test_who_connects_while_the_relay_stops(lab: Lab) -> None:
    lab.core.draining = lab.core.stopping = True
    alice = lab.peer(1)
    lab.run()
    assert alice.session.ended is Ending.SHUTDOWN
    assert alice.session.phase is Phase.LOST
    lab.check_empty()


def test_who_hangs_up_while_opening_leaves_nothing(lab: Lab) -> None:
    for sent in (b"", b"GET /ws", upgrade(), upgrade() + client_frame(bytes(200))[:50]):
        peer = lab.peer(1)
        if sent:
            peer.transport.arrive(sent)
        lab.run()
        peer.transport.hang_up()
        lab.run()
        lab.check_empty()
