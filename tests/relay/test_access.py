"""Lists of clients and addresses."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.access import AccessError, AccessList, parse_list, read_list
from relay.proxies import Front

KEY = bytes(range(1, 33))


def address(text: str) -> bytes:
    """Return an address as sessions have it."""
    return Front().address((text, 1), None)


def refused(text: str) -> str:
    with pytest.raises(AccessError) as caught:
        parse_list(text, "deny.txt")
    return str(caught.value)


def test_a_list_of_everything() -> None:
    text = f"""# of clients
    {KEY[:8].hex().upper()}   # Mallory

    {(KEY[::-1]).hex()}
    # and of addresses
    192.0.2.7
    198.51.100.0/24
    2001:db8::/48
    2001:db9:0:1::/64"""
    listed = parse_list(text, "x")
    assert len(listed) == 6
    assert listed.names_clients
    assert listed.has_client(KEY)
    assert listed.has_client(KEY[::-1])
    for there in ("192.0.2.7", "198.51.100.255", "2001:db8:0:ffff::1", "2001:db9:0:1:2:3:4:5"):
        assert listed.has_address(address(there)), there
    for elsewhere in ("192.0.2.8", "198.51.101.0", "2001:db8:1::1", "2001:db9::1"):
        assert not listed.has_address(address(elsewhere)), elsewhere


def test_a_key_says_more_than_an_id() -> None:
    other = KEY[:8] + bytes(24)
    assert parse_list(KEY[:8].hex(), "x").has_client(other)
    assert not parse_list(KEY.hex(), "x").has_client(other)


def test_nobody_is_on_an_empty_list_and_the_unknown_address_is_on_none() -> None:
    nothing = parse_list("\n # nobody\n", "x")
    assert len(nothing) == 0
    assert not nothing.names_clients
    assert not nothing.has_client(KEY)
    assert not parse_list("0.0.0.0/0\n::/0", "x").has_address(b"")


def test_an_ipv4_network_is_no_ipv6_network() -> None:
    everything = parse_list("0.0.0.0/0", "x")
    assert everything.has_address(address("203.0.113.1"))
    assert not everything.has_address(address("2001:db8::1"))


@pytest.mark.parametrize(
    ("entry", "fix"),
    [
        ("0123456789abcde", "16 hex digits"),
        ("alice", "put # before it"),
        ("192.0.2.300", "correct it"),
        ("192.0.2.7/24", "write 192.0.2.0/24"),
        ("2001:db8::1", "write 2001:db8::/64"),
        ("2001:db8::/65", "write 2001:db8::/64"),
        ("::ffff:192.0.2.7", "write it as IPv4"),
        ("192.0.2.7 192.0.2.8", "correct it"),
    ],
)
def test_an_entry_that_cannot_be_used_is_told_with_its_line_and_the_fix(entry: str, fix: str) -> None:
    error = refused(f"192.0.2.1\n\n{entry} # who\n")
    assert error.startswith("deny.txt, line 3: ")
    assert fix in error


def test_many_wrong_lines() -> None:
    lines = refused("?\n" * 15).splitlines()
    assert [line.partition(":")[0] for line in lines[:10]] == [f"deny.txt, line {number}" for number in range(1, 11)]
    assert lines[10:] == ["and 5 more"]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "allow"
    with pytest.raises(AccessError, match=r"cannot read .*allow: No such file"):
        read_list(path)
    path.write_bytes(b"\xef\xbb\xbf192.0.2.7\r\n")
    assert read_list(path).has_address(address("192.0.2.7"))
    path.write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(AccessError, match="UTF-8"):
        read_list(path)


networks = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)) | st.tuples(st.ip_addresses(v=6), st.integers(0, 64))


@given(networks, st.ip_addresses(), st.booleans())
def test_against_the_standard_library(network: tuple[object, int], other: object, inside: bool) -> None:
    made = ip_network(f"{network[0]}/{network[1]}", strict=False)
    who = ip_address(made.network_address if inside else str(other))
    packed = who.packed[:8] if who.version == 6 else who.packed
    listed = AccessList(networks=[made])
    if who.version == made.version:
        # Of IPv6 only the first half is known.
        assert listed.has_address(packed) == (who in made)
    else:
        assert not listed.has_address(packed)
