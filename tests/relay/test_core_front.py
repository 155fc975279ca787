"""Addresses of clients behind proxies, in a whole relay: PROXY headers, the rate by address, the warning of a crowd."""

from typing import Final

import pytest
from structlog.testing import capture_logs

from relay.crowding import EVERY, LEAST
from relay.limits import Limits
from relay.proxies import Front, TrustedProxies
from relay.proxy_header import LOCAL, SIGNATURE
from relay.reasons import Ending
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, client_frame, upgrade
from wire import commands as c

PROXY: Final = "10.1.2.3"
LINE: Final = b"PROXY TCP4 203.0.113.9 198.51.100.1 51234 443\r\n"
BINARY: Final = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((203, 0, 113, 9, 198, 51, 100, 1)) + b"\xc8\x22\x01\xbb"
CLIENT: Final = bytes((203, 0, 113, 9))


def lab(limits: Limits | None = None, *, proxy_header: bool = True) -> Lab:
    return Lab(limits, front=Front(TrustedProxies.parse("10.0.0.0/8"), proxy_header))


# --- PROXY headers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [LINE, BINARY])
@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_header_before_the_request_in_any_pieces(header: bytes, size: int) -> None:
    here = lab()
    alice = here.peer(1, PROXY)
    stream = header + upgrade("/ws", "X-Forwarded-For: 198.51.100.77") + client_frame(alice.wire.hello())
    for at in range(0, len(stream), size):
        alice.transport.arrive(stream[at : at + size])
    here.run()
    assert [type(body) for body in alice.said] == [c.HandshakeOk, c.Challenge]
    # The address itself is gone with the handshake; whoever comes from there shares its place.
    place = alice.session.place
    assert place is not None
    assert place is not here.core.door.tally.take(b"")
    assert place is here.core.door.tally.take(CLIENT)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL])
def test_the_proxy_for_its_own_sake(header: bytes) -> None:
    here = lab()
    for address in (PROXY, "127.0.0.1"):
        check = here.peer(1, address)
        check.transport.arrive(header + b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n")
        here.run()
        assert check.status.startswith(b"HTTP/1.1 200 ")


def check_refused(peer: Peer) -> None:
    peer.lab.run()
    assert peer.session.ended is Ending.BAD_PROXY
    assert peer.session.phase is Phase.LOST
    assert not peer.transport.written
    assert peer.lab.core.counters.endings[Ending.BAD_PROXY] == 1
    peer.lab.check_empty()


@pytest.mark.parametrize("data", [upgrade(), b"G", b"\x16\x03\x01", SIGNATURE + b"\x21\x11\xff\xff"])
def test_a_trusted_proxy_that_sends_no_header(data: bytes) -> None:
    peer = lab().peer(1, PROXY)
    peer.transport.arrive(data)
    check_refused(peer)


def test_others_are_refused_before_they_say_anything() -> None:
    check_refused(lab().peer(1, "203.0.113.9"))


def test_this_machine_names_nobody_unless_it_is_trusted() -> None:
    peer = lab().peer(1, "127.0.0.1")
    peer.transport.arrive(LINE + upgrade())
    check_refused(peer)


def test_a_header_where_none_is_expected_is_no_http() -> None:
    here = lab(proxy_header=False)
    peer = here.peer(1, PROXY)
    peer.transport.arrive(LINE + upgrade())
    here.run()
    assert peer.session.ended is Ending.NOT_WEBSOCKET
    assert not peer.status.startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize("header", [b"", LINE[:-1], BINARY[:-1], LINE, LINE + b"GET /ws HTTP/1.1\r\n"])
def test_the_opening_deadline_is_one_for_all(header: bytes) -> None:
    here = lab()
    peer = here.peer(1, PROXY)
    peer.transport.arrive(header)
    for _ in range(10):
        assert peer.session.phase is Phase.OPENING
        here.tick()
    here.tick()
    assert peer.session.ended is Ending.SLOW_OPENING
    assert peer.over


def test_the_header_counts_as_a_part_of_the_request() -> None:
    here = lab(Limits(request_size=1000))
    long = here.peer(1, PROXY)
    long.transport.arrive(LINE + b"GET /ws HTTP/1.1\r\nX: " + b"x" * (1000 - len(LINE) - 21 + 1))
    here.run()
    assert long.session.ended is Ending.BAD_REQUEST
    assert long.status.startswith(b"HTTP/1.1 431 ")


# --- What is counted by address --------------------------------------------------------------------------------------


def handshakes(here: Lab, count: int, *headers: str, address: str = PROXY, first: bytes = b"") -> list[Ending | None]:
    """Let so many connect one after the other; return how each ended."""
    ended = []
    for _ in range(count):
        peer = here.peer(here.number(), address)
        peer.transport.arrive(first + upgrade("/ws", *headers))
        peer.message(peer.wire.hello())
        here.run()
        ended.append(peer.session.ended)
        peer.transport.die()
        here.run()
    return ended


RATE: Final = Limits(handshakes_per_second=0.001, handshakes_burst=2)
OVER: Final = [None, None, Ending.HANDSHAKE_RATE]


def test_two_clients_behind_one_proxy_are_two() -> None:
    here = lab(RATE, proxy_header=False)
    assert handshakes(here, 3, "X-Forwarded-For: 203.0.113.9") == OVER
    assert handshakes(here, 3, "X-Forwarded-For: 203.0.113.10") == OVER
    assert handshakes(here, 1, "X-Forwarded-For: 203.0.113.11, 203.0.113.9") == [Ending.HANDSHAKE_RATE]
    assert handshakes(here, 1, "X-Forwarded-For: 203.0.113.11", "X-Forwarded-For: 203.0.113.9") == [
        Ending.HANDSHAKE_RATE
    ]


def test_two_clients_behind_one_proxy_that_sends_headers_are_two() -> None:
    here = lab(RATE)
    assert handshakes(here, 3, first=LINE) == OVER
    assert handshakes(here, 3, first=LINE.replace(b"203.0.113.9", b"203.0.113.10")) == OVER
    assert handshakes(here, 1, "X-Forwarded-For: 203.0.113.11", first=BINARY) == [Ending.HANDSHAKE_RATE]


def test_a_proxy_that_is_not_trusted_is_one_client() -> None:
    here = Lab(RATE)
    assert handshakes(here, 2, "X-Forwarded-For: 203.0.113.9") == OVER[:2]
    assert handshakes(here, 1, "X-Forwarded-For: 203.0.113.10") == OVER[2:]


# --- The warning -----------------------------------------------------------------------------------------------------


def test_one_address_with_most_sessions_is_warned_about_without_the_address() -> None:
    here = Lab()
    with capture_logs() as logs:
        crowd = here.connect(*range(1, LEAST))
        assert logs == []
        crowd += here.connect(*range(LEAST, LEAST + 10))
        (entry,) = logs
        assert entry["log_level"] == "warning"
        assert (entry["sessions"], entry["total"]) == (LEAST, LEAST)
        assert "--trusted-proxies" in entry["advice"]
        assert "198.51.100.7" not in repr(logs)
        here.advance(EVERY)
        crowd += here.connect(LEAST + 10)
        assert len(logs) == 2
    for peer in crowd:
        peer.transport.die()
    here.run()
    here.check_empty()


def test_sessions_behind_a_trusted_proxy_are_no_crowd() -> None:
    here = lab(proxy_header=False)
    with capture_logs() as logs:
        for number in range(2 * LEAST):
            here.peer(number, PROXY).open(f"X-Forwarded-For: 203.0.113.{number}")
        here.run()
        assert len(here.core.sessions) == 2 * LEAST
    assert logs == []
