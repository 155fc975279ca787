"""Which addresses a stranger may make us connect to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.notifier.addresses import is_public, parse_nat64

PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "223.255.255.255",
          "2606:4700:4700::1111", "2a00:1450:4001:81b::200a", "2001:200::1", "2001:4860:4860::8888"]  # fmt: skip
NOT_PUBLIC = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0", "fe80::1%2"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "unique local": ["fc00::1", "fd12:3456::1"],
    "site-local": ["fec0::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "broadcast and reserved": ["255.255.255.255", "240.0.0.1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::7f00:1"],
    "6to4": ["2002:7f00:1::1", "2002:808:808::1", "192.88.99.1"],
    "Teredo": ["2001:0:7f00:1::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:7f00:1"],
    "IPv4-compatible": ["::127.0.0.1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1"],
    "discard": ["100::1"],
    "segment routing": ["5f00::1"],
    "no address": ["", "localhost", "0x7f.1", "2130706433", "127.1", "0177.0.0.1", "1.2.3.4.5", "[::1]", "1.1.1.1 ",
    "١.1.1.1"],
}  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(("kind", "address"), [(kind, each) for kind, all_ in NOT_PUBLIC.items() for each in all_])
def test_not_public(kind: str, address: str) -> None:
    assert not is_public(address), kind


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_in_disguise_never_passes(number: int) -> None:
    inner = int(IPv4Address(number))
    for prefix in (0, 0xFFFF << 32, 0xFFFF << 48, 0x64_FF9B << 96, 0x64_FF9B_0001 << 80, 0x2002 << 112 | inner << 80):
        assert not is_public(str(IPv6Address(prefix | inner)))


# RFC 6052 §2.4, with an address of the public internet in place of 192.0.2.33.
TRANSLATED = [
    ("2a01:db8::/32", "2a01:db8:101:808::"), ("2a01:db8:100::/40", "2a01:db8:101:108:8::"),
    ("2a01:db8:122::/48", "2a01:db8:122:101:8:800::"), ("2a01:db8:122:300::/56", "2a01:db8:122:301:1:808::"),
    ("2a01:db8:122:344::/64", "2a01:db8:122:344:1:108:800:0"), ("2a01:db8:122:344::/96", "2a01:db8:122:344::1.1.8.8"),
    ("64:ff9b::/96", "64:ff9b::1.1.8.8"), ("64:ff9b:1::/48", "64:ff9b:1:101:8:800::"),
]  # fmt: skip


@pytest.mark.parametrize(("prefix", "address"), TRANSLATED)
def test_behind_a_nat64_it_is_the_address_within_that_counts(prefix: str, address: str) -> None:
    nat64 = [parse_nat64(prefix)]
    assert is_public(address, nat64)
    length = nat64[0].prefixlen
    inner = {"1.1.8.8": True, "127.0.0.1": False, "10.1.2.3": False, "169.254.169.254": False, "100.64.0.1": False}
    for each, public in inner.items():
        bits = f"{int(IPv4Address(each)):032b}"
        before = f"{int(nat64[0].network_address):0128b}"[:length]
        if length == 96:
            whole = before + bits
        else:
            room = 64 - length
            whole = before + bits[:room] + "0" * 8 + bits[room:]
        made = IPv6Address(int(whole.ljust(128, "0"), 2))
        assert (str(made) == str(IPv6Address(address))) == (each == "1.1.8.8")
        assert is_public(str(made), nat64) is public, each
        if length < 96:
            assert not is_public(str(IPv6Address(int(made) | 1 << 56)), nat64), "octet 8"
            assert not is_public(str(IPv6Address(int(made) | 1)), nat64), "the suffix"
    assert is_public("2606:4700:4700::1111", nat64)
    assert not is_public("::1", nat64)


@pytest.mark.parametrize(
    "text", ["", "x", "64:ff9b::/95", "64:ff9b::1/96", "10.0.0.0/8", "::/0", "2a01:0:0:0:100::/96"]
)
def test_prefixes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="NAT64"):
        parse_nat64(text)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_never_more_than_the_standard_library_takes_for_global(address: IPv4Address | IPv6Address) -> None:
    if is_public(str(address)):
        assert ip_address(str(address)).is_global
        assert not address.is_multicast


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert is_public(text) in (True, False)
