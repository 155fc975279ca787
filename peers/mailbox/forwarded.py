"""Whose address counts when proxies stand in front of the HTTP listener. Pure.

The walk goes from the socket outwards: its peer, then X-Forwarded-For from the right, where each proxy adds whom it
saw. It ends at the first that is not trusted, for what that one says of others is a claim. So a client gains nothing by
a header of its own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

NOBODY: Final = "0.0.0.0"  # noqa: S104 - stands for nobody in particular
"""Counts for those of whom a trusted proxy says nothing that can be read: they share one budget, instead of none."""
DEFAULT_TRUSTED: Final = "127.0.0.0/8, ::1"
"""Who can connect from this machine."""

_HOPS_MOST: Final = 32
_SEPARATORS: Final = re.compile(r"[\s,]+")
# `[2001:db8::1]:443`, `203.0.113.9:443`, as RFC 7239 §6 and several proxies write nodes.
_WITH_PORT: Final = re.compile(r"\[([^]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The networks whose X-Forwarded-For is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read networks and addresses with commas between them; the empty text trusts nobody.

        Raises:
            ValueError: names the entry that is neither.
        """
        networks = []
        for entry in filter(None, _SEPARATORS.split(text)):
            try:
                networks.append(ip_network(entry))
            except ValueError as error:
                raise ValueError(
                    f"{entry!r} is no network ({error}): give networks as 10.0.0.0/8 or 2001:db8::/32, or addresses"
                ) from None
        return cls(tuple(networks))

    def trusts(self, address: str) -> bool:
        """Tell whether an address is a trusted proxy's."""
        found = _read(address)
        return found is not None and self._contains(found)

    def client(self, peer: str | None, forwarded_for: str) -> str:
        """Return the address that counts for a request.

        Args:
            peer: the socket's other end.
            forwarded_for: all X-Forwarded-For headers, joined by commas.
        """
        address = None if peer is None else _read(peer)
        if address is None or not self._contains(address):
            return NOBODY if address is None else str(address)
        for count, entry in enumerate(_from_the_right(forwarded_for)):
            found = _WITH_PORT.fullmatch(entry)
            address = _read(entry if found is None else found[1] or found[2] or "")
            if address is None or count == _HOPS_MOST:
                return NOBODY
            if not self._contains(address):
                break
        return str(address)

    def _contains(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _from_the_right(entries: str) -> Iterator[str]:
    # Not split at once: a client may send a thousand, of which the last is looked at.
    while entries:
        entries, _, entry = entries.rpartition(",")
        if entry := entry.strip(' \t"'):
            yield entry
