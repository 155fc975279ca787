"""Where an address leads that somebody else has chosen.

A contact names any address as that of a mailbox, and whoever leaves something there connects to it. An address of this
machine, or of its link (where clouds answer questions about their guests' secrets), leads to programs that trust
whoever reaches them; so does a name that its owner points there.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from peers.client.opening import is_loopback


def is_near(url: str) -> bool:
    """Tell whether an address says by itself that it is of this machine or its link. Names are not looked up."""
    if is_loopback(url):
        return True
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return is_near_address(host)
    except ValueError:
        try:
            return is_near_address(socket.inet_ntoa(socket.inet_aton(host)))  # 169.16689662 and its like
        except (OSError, UnicodeError):
            return False


def is_near_address(host: str) -> bool:
    """Tell the same of a numeric address.

    Raises:
        ValueError: it is none.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast
