"""Which IP addresses a stranger may make us connect to: those of the public internet, and no others.

Whoever registers for pushes chooses the host that we connect to, and so decides what the names behind it resolve to.
Without this check the notifier would be a way into the network that it stands in (SSRF).
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

# IPv6 by what is allowed: IANA gives out global unicast addresses from this block alone. That leaves out loopback, ::,
# unique local, link-local, multicast, and every form that carries an IPv4 address beyond the check below: mapped
# (::ffff:0:0/96), compatible (::/96), translated (64:ff9b::/96 and 64:ff9b:1::/48, the NAT64 ones).
_UNICAST: Final = IPv6Network("2000::/3")
# What is special within (IANA IPv6 Special-Purpose Address Registry).
_SPECIAL_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, with Teredo (2001::/32), which carries an IPv4 address
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which carries an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
# IANA IPv4 Special-Purpose Address Registry, and multicast.
_SPECIAL_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # "this network": 0.0.0.0 connects to this machine
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT, and the inside of some clouds and VPNs
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, where clouds keep their metadata services
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT relays
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)


_NAT64_LENGTHS: Final = (32, 40, 48, 56, 64, 96)


def parse_nat64(text: str) -> IPv6Network:
    """Read the prefix of a NAT64, such as ``64:ff9b::/96`` (RFC 6052 §2.1, §2.2).

    Raises:
        ValueError: it is none.
    """
    try:
        prefix = IPv6Network(text)
    except ValueError:
        prefix = None
    # Octet 8 is zero in all addresses of a translator, so that of a prefix of 96 bits is as well.
    if prefix is None or prefix.prefixlen not in _NAT64_LENGTHS or prefix.network_address.packed[8]:
        lengths = ", ".join(map(str, _NAT64_LENGTHS))
        raise ValueError(f"the prefix of a NAT64 is one as in 64:ff9b::/96, of {lengths} bits")
    return prefix


def is_public(address: str, nat64: Collection[IPv6Network] = ()) -> bool:
    """Tell whether a numeric address, as the system gives it, is one of the public internet. Anything else is not.

    Args:
        address: the address.
        nat64: prefixes of translators: an address there leads to the IPv4 address within it, and that is looked at.
    """
    try:
        ip = ip_address(address)  # a zone ("fe80::1%eth0") parses, and is link-local
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        for prefix in nat64:
            if ip in prefix:
                inner = _embedded(ip, prefix.prefixlen)
                return inner is not None and is_public(str(inner))
        return ip in _UNICAST and not any(ip in network for network in _SPECIAL_6)
    return not any(ip in network for network in _SPECIAL_4)


def _embedded(ip: IPv6Address, length: int) -> IPv4Address | None:
    """Return the IPv4 address within a translated one (RFC 6052 §2.2), None where there is none as it has to be."""
    packed = ip.packed
    start = length // 8
    rest = packed[start:8] + packed[max(start, 9) :]
    return None if packed[8] or any(rest[4:]) else IPv4Address(rest[:4])
