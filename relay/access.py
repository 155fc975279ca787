"""Lists of who may connect and who may not: files of client ids, keys and addresses. Pure but for :func:`read_list`.

One entry a line; `#` begins a comment. A client is named by its id (16 hex digits) or its whole X25519 key (64), which
says more: an id of 64 bits can be found again by trying. An address is IPv4 or IPv6, or a network of either. The relay
does not tell the addresses of one IPv6 /64 apart, for whoever has one has them all.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from keys.identity import ID_SIZE
from keys.primitives import KEY_SIZE

_HEX: Final = re.compile("[0-9a-fA-F]+")
_SITE: Final = 64
"""Bits of an IPv6 address that name a customer (RFC 6177); what follows is the customer's own."""
_TOLD: Final = 10
_NO_ENTRY: Final = (
    "this is no client id (16 hex digits), no X25519 key (64), and no address or network such as 192.0.2.7, "
    "198.51.100.0/24 or 2001:db8::/48: correct it, or put # before it"
)


class AccessError(Exception):
    """A list or token that cannot be used; the text says where, why and what to do, and never a token."""


class AccessList:
    """Who is named by a list.

    Args:
        ids: of 8 bytes.
        keys: X25519 keys of 32 bytes.
        networks: IPv4, and IPv6 of /64 and shorter.
    """

    def __init__(
        self, ids: Iterable[bytes] = (), keys: Iterable[bytes] = (), networks: Iterable[IPv4Network | IPv6Network] = ()
    ) -> None:
        self._ids = frozenset(ids)
        self._keys = frozenset(keys)
        # By size of address and bits that do not matter: one look-up for each length in use, however long the list.
        self._networks: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            size, bits = (4, 32) if isinstance(network, IPv4Network) else (8, _SITE)
            shift = bits - network.prefixlen
            value = int.from_bytes(network.network_address.packed[:size], "big")
            self._networks.setdefault((size, shift), set()).add(value >> shift)

    @property
    def names_clients(self) -> bool:
        """Whether there is an id or a key in it."""
        return bool(self._ids or self._keys)

    def has_client(self, x_pub: bytes) -> bool:
        """Tell whether the owner of `x_pub` is named, by key or by id."""
        return x_pub in self._keys or x_pub[:ID_SIZE] in self._ids

    def has_address(self, address: bytes) -> bool:
        """Tell whether an address is named: IPv4 (4 bytes) or IPv6 /64 (8 bytes); b"", an unknown one, never is."""
        size, value = len(address), int.from_bytes(address, "big")
        return any(value >> shift in values for (length, shift), values in self._networks.items() if length == size)

    def __len__(self) -> int:
        return len(self._ids) + len(self._keys) + sum(map(len, self._networks.values()))


def parse_list(text: str, name: str) -> AccessList:
    """Read a list.

    Args:
        text: its content.
        name: what errors call it.

    Raises:
        AccessError: names the lines that cannot be used, ten at most.
    """
    ids, keys, networks, wrong = [], [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            if _HEX.fullmatch(entry) and len(entry) == 2 * ID_SIZE:
                ids.append(bytes.fromhex(entry))
            elif _HEX.fullmatch(entry) and len(entry) == 2 * KEY_SIZE:
                keys.append(bytes.fromhex(entry))
            else:
                networks.append(_network(entry))
        except ValueError as error:
            wrong.append(f"{name}, line {number}: {error}")
    if wrong:
        more = [f"and {len(wrong) - _TOLD} more"] if len(wrong) > _TOLD else []
        raise AccessError("\n".join(wrong[:_TOLD] + more))
    return AccessList(ids, keys, networks)


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        raise ValueError(_NO_ENTRY) from None
    if network.network_address != ip_address(entry.partition("/")[0]):
        raise ValueError(f"this address lies inside its network: write {network} for the network")
    if isinstance(network, IPv6Network):
        if network.network_address.ipv4_mapped is not None:
            raise ValueError("this is an IPv4 address in IPv6 form: write it as IPv4")
        if network.prefixlen > _SITE:
            site = network.supernet(new_prefix=_SITE)
            raise ValueError(f"addresses of one IPv6 /64 are not told apart: write {site} for all of it")
    return network


def read_list(path: Path) -> AccessList:
    """Read a list from a file.

    Raises:
        AccessError: it cannot be read, or has lines that cannot be used.
    """
    try:
        return parse_list(path.read_text("utf-8-sig"), str(path))
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AccessError(f"{path} is no text: it has to be UTF-8, one entry a line") from None
