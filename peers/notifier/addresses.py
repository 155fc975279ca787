"""Which IP addresses a stranger may make us connect to: those of the public internet, and no others.

Whoever registers for pushes chooses the host that we connect to, and so decides what the names behind it resolve to.
Without this check the notifier would be a way into the network that it stands in (SSRF).
"""

from ipaddress import IPv4Network, IPv6Network, ip_address
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


def is_public(address: str) -> bool:
    """Tell whether a numeric address, as the system gives it, is one of the public internet. Anything else is not."""
    try:
        ip = ip_address(address)  # a zone ("fe80::1%eth0") parses, and is link-local
    except ValueError:
        return False
    if ip.version == 4:
        return not any(ip in network for network in _SPECIAL_4)
    return ip in _UNICAST and not any(ip in network for network in _SPECIAL_6)
