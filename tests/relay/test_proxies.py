"""Whose address counts, as a pure rule."""

from ipaddress import IPv6Network, ip_address, ip_network
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.proxies import DEFAULT_TRUSTED, Front, TrustedProxies, counted_as, parse_address, parse_hop, socket_peer

NET6: Final = bytes.fromhex("20010db8000100aa")
CLIENT: Final = bytes((203, 0, 113, 9))


def front(trusted: str = DEFAULT_TRUSTED, *, proxy_header: bool = False) -> Front:
    return Front(TrustedProxies.parse(trusted), proxy_header)


# --- Parsing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", CLIENT),
        ("203.0.113.9:5678", CLIENT),
        ('"203.0.113.9:5678"', CLIENT),
        ("\t203.0.113.9 ", CLIENT),
        ("::ffff:203.0.113.9", CLIENT),
        ("[::ffff:203.0.113.9]:443", CLIENT),
        ("2001:db8::1", bytes.fromhex("20010db8") + bytes(11) + b"\x01"),
        ("[2001:db8::1]", bytes.fromhex("20010db8") + bytes(11) + b"\x01"),
        ('"[2001:DB8::1]:443"', bytes.fromhex("20010db8") + bytes(11) + b"\x01"),
        ("fe80::1%eth0", bytes.fromhex("fe80") + bytes(13) + b"\x01"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("203.0.113", None),
        ("203.0.113.256", None),
        ("203.0.113.9:", None),
        ("203.0.113.9:123456", None),
        ("203.0.113.9/24", None),
        ("0203.0.113.9", None),
        ("[203.0.113.9", None),
        ("[2001:db8::1", None),
        ("[]:443", None),
        ("2001:db8::1]", None),
        ("1::2::3", None),
        ("203.0.113.9\x00", None),
        ("２０３.0.113.9", None),
        ("relay.example", None),
    ],
)
def test_one_entry(text: str, address: bytes | None) -> None:
    assert parse_hop(text) == address


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_hop(text)
    assert address is None or len(address) in (4, 16)


MAPPED = IPv6Network("::ffff:0:0/96")


@given(st.ip_addresses())
def test_addresses_are_read_as_the_standard_library_reads_them(address: Any) -> None:
    expected = getattr(address, "ipv4_mapped", None) or address
    assert parse_address(str(address)) == expected.packed


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy.lan", "::1/129", "10.0.0.0/8;::1", "UNIX"])
def test_what_is_no_network_is_named_with_what_it_should_be(text: str) -> None:
    with pytest.raises(ValueError, match="give networks as") as caught:
        TrustedProxies.parse(f"127.0.0.1, {text}")
    assert repr(text.partition(" ")[0]) in str(caught.value)


@pytest.mark.parametrize("text", ["10.0.0.0/8,::1", "10.0.0.0/8 ::1", " 10.0.0.0/8 ,\n ::1, "])
def test_networks_are_separated_by_commas_or_blanks(text: str) -> None:
    trusted = TrustedProxies.parse(text)
    assert len(trusted.networks) == 2
    assert not trusted.unix


@given(st.ip_addresses(), st.lists(st.tuples(st.ip_addresses(), st.integers(0, 128)), max_size=4))
def test_membership_is_that_of_the_standard_library(address: Any, networks: list[tuple[Any, int]]) -> None:
    made = [ip_network(f"{base}/{min(length, base.max_prefixlen)}", strict=False) for base, length in networks]
    assume(not any(network.version == 6 and network.subnet_of(MAPPED) for network in made))  # those are refused
    trusted = TrustedProxies.parse(",".join(map(str, made)))
    packed = parse_address(str(address))
    assert packed is not None
    real = ip_address(packed)
    assert (packed in trusted) == any(real in network for network in made if network.version == real.version)


# --- Who counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "key"),
    [
        # Straight from the network: the address counts, whatever the client claims.
        ("203.0.113.9", None, CLIENT),
        ("203.0.113.9", "198.51.100.1", CLIENT),
        ("203.0.113.9", "127.0.0.1", CLIENT),
        ("10.0.0.5", "198.51.100.1", bytes((10, 0, 0, 5))),
        ("2001:db8:1:aa:1:2:3:4", None, NET6),
        ("2001:db8:1:aa:ffff::1", "::1", NET6),
        ("fe80::1%eth0", None, bytes.fromhex("fe80000000000000")),
        ("::ffff:203.0.113.9", None, CLIENT),
        # A proxy on this machine: whom it names counts.
        ("127.0.0.1", "203.0.113.9", CLIENT),
        ("127.0.0.1", "2001:db8:1:aa::7", NET6),
        ("127.0.0.1", "::ffff:203.0.113.9", CLIENT),
        ("127.8.9.10", "203.0.113.9", CLIENT),
        ("::1", "203.0.113.9", CLIENT),
        ("::ffff:127.0.0.1", "203.0.113.9", CLIENT),
        ("127.0.0.1", "203.0.113.9:5678", CLIENT),
        # What a client wrote stands before what the proxy added.
        ("127.0.0.1", "198.51.100.1, 203.0.113.9", CLIENT),
        ("127.0.0.1", "127.0.0.1, 203.0.113.9", CLIENT),
        ("127.0.0.1", "unknown, 203.0.113.9", CLIENT),
        # A second proxy on this machine.
        ("127.0.0.1", "198.51.100.1, 203.0.113.9, 127.0.0.1", CLIENT),
        ("127.0.0.1", "203.0.113.9,, ,127.0.0.1, ", CLIENT),
        # Nobody in particular.
        ("127.0.0.1", None, b""),
        ("::1", None, b""),
        ("::ffff:127.0.0.1", None, b""),
        ("127.0.0.1", "127.0.0.1", b""),
        ("127.0.0.1", "::1", b""),
        ("127.0.0.1", "::ffff:127.0.0.1", b""),
        ("127.0.0.1", "", b""),
        ("127.0.0.1", " , ", b""),
        ("127.0.0.1", "unknown", b""),
        ("127.0.0.1", "_hidden", b""),
        ("127.0.0.1", "203.0.113.9, unknown", b""),
        ("127.0.0.1", "203.0.113.9, unknown, 127.0.0.1", b""),
        ("", None, b""),
        ("", "203.0.113.9", b""),
        ("not an address", "203.0.113.9", b""),
    ],
)
def test_by_default_this_machine_is_trusted(peer: str, forwarded_for: str | None, key: bytes) -> None:
    assert front().address((peer, 4711), forwarded_for) == key


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded_for", "key"),
    [
        # Setting the list replaces it: loopback is then an address as any other.
        ("10.0.0.0/8", "127.0.0.1", "203.0.113.9", bytes((127, 0, 0, 1))),
        ("10.0.0.0/8", "127.0.0.1", None, bytes((127, 0, 0, 1))),
        ("", "127.0.0.1", "203.0.113.9", bytes((127, 0, 0, 1))),
        ("127.0.0.1", "127.0.0.1", "203.0.113.9, 127.0.0.2", bytes((127, 0, 0, 2))),
        ("127.0.0.1", "127.0.0.1", None, b""),
        ("", "198.51.100.1", "203.0.113.9", bytes((198, 51, 100, 1))),
        ("10.0.0.0/8", "10.1.2.3", "203.0.113.9", CLIENT),
        ("10.0.0.0/8", "11.1.2.3", "203.0.113.9", bytes((11, 1, 2, 3))),
        ("10.1.2.3", "10.1.2.3", "203.0.113.9", CLIENT),
        ("10.1.2.3", "10.1.2.4", "203.0.113.9", bytes((10, 1, 2, 4))),
        ("2001:db8:9::/48", "2001:db8:9::1", "2001:db8:1:aa::1", NET6),
        # A proxy that names nobody must not make all clients one.
        ("10.0.0.0/8", "10.1.2.3", None, b""),
        # Through two proxies, of which the outer one is reached from anywhere.
        ("10.0.0.0/8, 192.0.2.0/24", "10.1.2.3", "198.51.100.1, 203.0.113.9, 192.0.2.7", CLIENT),
        ("10.0.0.0/8", "10.1.2.3", "198.51.100.1, 203.0.113.9, 192.0.2.7", bytes((192, 0, 2, 7))),
        # Somebody inside the trusted network.
        ("10.0.0.0/8", "10.1.2.3", "10.7.7.7", bytes((10, 7, 7, 7))),
        ("10.0.0.0/8", "10.1.2.3", "10.7.7.7, 10.8.8.8", bytes((10, 7, 7, 7))),
        # However long it is.
        ("10.0.0.0/8", "10.1.2.3", "203.0.113.9, " + "10.0.0.1, " * 32, b""),
        ("10.0.0.0/8", "10.1.2.3", "203.0.113.9, " + "10.0.0.1, " * 31, CLIENT),
    ],
)
def test_other_networks(trusted: str, peer: str, forwarded_for: str | None, key: bytes) -> None:
    assert front(trusted).address((peer, 4711), forwarded_for) == key


@pytest.mark.parametrize(
    ("trusted", "forwarded_for", "key"),
    [
        (DEFAULT_TRUSTED, "203.0.113.9", CLIENT),
        (DEFAULT_TRUSTED, None, b""),
        ("10.0.0.0/8", "203.0.113.9", b""),
        ("unix", "203.0.113.9, 127.0.0.1", bytes((127, 0, 0, 1))),
    ],
)
@pytest.mark.parametrize("peername", ["", b""])
def test_the_unix_socket(peername: object, trusted: str, forwarded_for: str | None, key: bytes) -> None:
    assert front(trusted).address(peername, forwarded_for) == key


@pytest.mark.parametrize("trusted", [DEFAULT_TRUSTED, "unix"])
def test_a_peer_without_a_name_is_not_the_unix_socket(trusted: str) -> None:
    """A socket of TCP that was reset has none: whoever hangs up must not be believed for that."""
    assert socket_peer(None) == b""
    here = front(trusted, proxy_header=True)
    assert here.address(None, "203.0.113.9") == b""
    assert not here.may_connect(socket_peer(None))
    assert not here.may_tell(socket_peer(None), CLIENT)


def test_networks_of_ipv4_written_as_ipv6_are_refused() -> None:
    with pytest.raises(ValueError, match="write it as IPv4"):
        TrustedProxies.parse("::ffff:10.0.0.0/104")


@pytest.mark.parametrize(
    ("told", "forwarded_for", "key"),
    [
        ("203.0.113.9", None, CLIENT),
        # It stands nearer to us than the header, which is then the claim of the one that it names.
        ("203.0.113.9", "198.51.100.1", CLIENT),
        ("2001:db8:1:aa::7", None, NET6),
        # Unless that one is a proxy itself.
        ("192.0.2.7", "198.51.100.1, 203.0.113.9", CLIENT),
        ("192.0.2.7", "unknown", b""),
        ("192.0.2.7", None, bytes((192, 0, 2, 7))),
        ("127.0.0.1", None, b""),
        # None: the proxy asks for its own sake.
        (None, None, b""),
        (None, "203.0.113.9", CLIENT),
    ],
)
def test_a_proxy_header_and_what_comes_with_it(told: str | None, forwarded_for: str | None, key: bytes) -> None:
    source = None if told is None else parse_address(told)
    assert front("127.0.0.1, 192.0.2.0/24").address(("127.0.0.1", 4711), forwarded_for, source) == key


@given(st.text(alphabet='0123456789.:,[]" abcdefunkow_%', max_size=100))
def test_no_client_can_choose_its_address(claim: str) -> None:
    """Whatever a client sends, its proxy adds what it saw."""
    assert front().address(("127.0.0.1", 1), f"{claim}, 203.0.113.9") == CLIENT
    assert front().address(("203.0.113.9", 1), claim) == CLIENT
    assert front().address(("127.0.0.1", 1), claim, CLIENT) == CLIENT


@given(st.ip_addresses())
def test_keys_are_short_and_of_networks(address: Any) -> None:
    packed = parse_address(str(address))
    key = counted_as(packed)
    assert packed is not None
    assert packed.startswith(key)
    assert len(key) == (4 if len(packed) == 4 else 8)


def test_nobody_is_counted_as_nobody() -> None:
    assert counted_as(None) == b""


# --- Who may connect where PROXY headers are expected ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "connects", "names_others"),
    [
        (("10.1.2.3", 1), True, True),
        (("127.0.0.1", 1), True, False),  # the health check of this machine
        (("::1", 1), True, False),
        (("203.0.113.9", 1), False, False),
        (("not an address", 1), False, False),
        ("", True, False),
    ],
)
def test_who_may_send_a_proxy_header(peer: object, connects: bool, names_others: bool) -> None:
    behind = front("10.0.0.0/8", proxy_header=True)
    address = socket_peer(peer)
    assert behind.may_connect(address) is connects
    assert behind.may_tell(address, CLIENT) is names_others
    assert behind.may_tell(address, None)
    assert front("10.0.0.0/8").may_connect(address)
