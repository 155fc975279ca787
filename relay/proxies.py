"""Whose address counts when proxies stand in front. Pure: addresses in, an address or none out.

An address is 4 or 16 bytes in network order; an IPv4 address that is written as IPv6 (``::ffff:203.0.113.9``) is the
IPv4 one. What somebody says about an address is believed only if they are a trusted proxy themselves: anybody can send
a header.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, Self

DEFAULT_TRUSTED: Final = "127.0.0.0/8, ::1/128, unix"
"""Who can open a connection from this machine, or has the right to write to the Unix socket."""
UNIX: Final = "unix"
"""Stands for connections through the Unix socket, in a list of networks."""

_MAPPED: Final = bytes(10) + b"\xff\xff"
_MAPPED_NETWORK: Final = IPv6Network("::ffff:0:0/96")
_LOOPBACK6: Final = bytes(15) + b"\x01"
_LOOPBACK4: Final = (4, 0xFF000000, 0x7F000000)
"""127.0.0.0/8 as it stands among the networks."""
_MOST_HOPS: Final = 32
_SEPARATORS: Final = re.compile(r"[\s,]+")
# `[2001:db8::1]:443`, `[2001:db8::1]`, `203.0.113.9:443`, as RFC 7239 §6 and several proxies write nodes.
_WITH_PORT: Final = re.compile(r"\[([^]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def parse_address(text: str) -> bytes | None:
    """Return the address that `text` is, or None. A zone (``%eth0``) is left out: it means nothing elsewhere."""
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


def parse_hop(text: str) -> bytes | None:
    """Return the address in one entry of X-Forwarded-For, with or without quotes, brackets and a port; else None."""
    text = text.strip(' \t"')
    found = _WITH_PORT.fullmatch(text)
    return parse_address(text if found is None else found[1] or found[2] or "")


def is_loopback(address: bytes) -> bool:
    """Tell whether an address is of this very machine."""
    return address[0] == 127 if len(address) == 4 else address == _LOOPBACK6


def counted_as(address: bytes | None) -> bytes:
    """Return what limits by address count under: IPv4 /32, IPv6 /64; b"" for nobody in particular.

    An IPv6 /64 is what one household is given.
    """
    if address is None:
        return b""
    return address[:8] if len(address) == 16 else address


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The networks whose connections, headers and entries are believed.

    Args:
        networks: as (length of the address in bytes, mask, network), the latter two as numbers.
        unix: whether whoever comes through the Unix socket is believed.
    """

    networks: tuple[tuple[int, int, int], ...]
    unix: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a list of CIDR networks, addresses and the word ``unix`` names; the empty one trusts nobody.

        Raises:
            ValueError: names the entry that is none of these, and says what it should be.
        """
        networks = []
        entries = [entry for entry in _SEPARATORS.split(text) if entry]
        for entry in entries:
            if entry == UNIX:
                continue
            try:
                network = ip_network(entry)
            except ValueError as error:
                raise ValueError(
                    f"{entry!r} is no network ({error}): give networks as 10.0.0.0/8 or 2001:db8::/32, single"
                    " addresses, or `unix`, with commas between them"
                ) from None
            if network.version == 6 and network.subnet_of(_MAPPED_NETWORK):
                raise ValueError(f"{entry!r} is of IPv4 addresses written as IPv6: write it as IPv4")
            networks.append((network.max_prefixlen // 8, int(network.netmask), int(network.network_address)))
        return cls(tuple(networks), UNIX in entries)

    def __contains__(self, address: bytes) -> bool:
        """Tell whether an address is in one of the networks."""
        number = int.from_bytes(address, "big")
        size = len(address)
        return any(length == size and number & mask == network for length, mask, network in self.networks)

    def client(self, peer: bytes | None, forwarded_for: str | None, told: bytes | None = None) -> bytes | None:
        """Return the address of the client, or None if nobody can tell.

        The walk goes from the socket outwards: its peer; whom a PROXY header names as *its* peer; then X-Forwarded-For
        from the right, where each proxy adds whom it saw. It ends at the first that is not trusted: what that one says
        about others is a claim. So whoever stands nearer to the relay wins, and a client gains nothing by a header.

        Args:
            peer: address of the socket's other end; None for the Unix socket, b"" if it is not known.
            forwarded_for: the values of all X-Forwarded-For headers, joined by commas, if there are any.
            told: the source in the PROXY header of a peer that may send one.
        """
        if told is not None:
            if told not in self:
                return told
        elif not (self.unix if peer is None else peer in self):
            return peer or None
        # From here on: whoever wrote the last entry is trusted, but its own address is a proxy's.
        last = told
        for count, entry in enumerate(_from_the_right(forwarded_for or "")):
            address = parse_hop(entry)
            if address is None or count == _MOST_HOPS:
                return None
            if address not in self:
                return address
            last = address
        # All are trusted: the first of them is somebody inside, or, on this machine, nobody in particular.
        return None if last is None or is_loopback(last) else last


def _from_the_right(entries: str) -> Iterator[str]:
    """Yield the entries of a comma-separated header, the last one first; empty ones mean nothing (RFC 9110 §5.6.1)."""
    # Not split at once: a client may send a thousand, of which the last is looked at.
    while entries:
        entries, _, entry = entries.rpartition(",")
        if entry and not entry.isspace():
            yield entry


@dataclass(frozen=True, slots=True)
class Front:
    """What stands in front of the relay, as its operator says.

    Args:
        trusted: whose word about addresses is taken.
        proxy_header: whether each connection begins with a PROXY header.
    """

    trusted: TrustedProxies = field(default_factory=lambda: TrustedProxies.parse(DEFAULT_TRUSTED))
    proxy_header: bool = False
    _trusts_loopback: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_trusts_loopback", _LOOPBACK4 in self.trusted.networks)

    def may_connect(self, peer: bytes | None) -> bool:
        """Tell whether a connection from there is taken at all: with PROXY headers, proxies and this machine alone."""
        return not self.proxy_header or peer is None or peer in self.trusted or bool(peer and is_loopback(peer))

    def may_tell(self, peer: bytes | None, told: bytes | None) -> bool:
        """Tell whether this peer may send a PROXY header that names this address; None is claimed by health checks."""
        return told is None or self._believed(peer)

    def address(self, peername: object, forwarded_for: str | None, told: bytes | None = None) -> bytes:
        """Return what limits by address count a client under: see :meth:`TrustedProxies.client`, `counted_as`.

        Args:
            peername: what the transport calls its peer.
            forwarded_for: as there.
            told: as there.
        """
        untold = forwarded_for is None and told is None and self._trusts_loopback
        if untold and isinstance(peername, tuple) and peername[0].startswith("127."):
            return b""  # such as a trial on one machine: without the cost of parsing
        return counted_as(self.trusted.client(socket_peer(peername), forwarded_for, told))

    def _believed(self, peer: bytes | None) -> bool:
        return self.trusted.unix if peer is None else peer in self.trusted


def socket_peer(peername: object) -> bytes | None:
    """Return the address in what a transport calls its peer; None for the Unix socket, b"" for what is no address.

    A peer without any name is the latter: a socket of TCP that was reset before it was looked at has none, and what was
    sent on it can still be read. So nobody is taken for the Unix socket (whose peers are called "") by hanging up.
    """
    if isinstance(peername, tuple):
        return parse_address(str(peername[0])) or b""
    return b"" if peername is None else None
