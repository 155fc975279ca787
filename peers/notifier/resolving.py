"""Names to addresses for `peers.notifier.outbound`: in threads of its own, and only public addresses come out."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from peers.notifier.addresses import is_public

Lookup = Callable[[str, int], list[tuple[int, str]]]
"""From host and port to (address family, numeric address). Blocks. Raises OSError."""

_THREADS: Final = 16


class ForbiddenAddress(OSError):
    """A name led to no address of the public internet, or a connection would go to another one."""


def system_lookup(host: str, port: int) -> list[tuple[int, str]]:
    """Ask the system, as every other program does: /etc/hosts counts, and so do the names of a compose network."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [(family, str(address[0])) for family, _, _, _, address in found]


class Resolver(AbstractResolver):
    """Resolves for one connector.

    Args:
        lookup: what is asked.
        checked: whether addresses that are not public are left out. Not done for hosts that the operator allowed.
    """

    def __init__(self, lookup: Lookup, *, checked: bool) -> None:
        self._lookup = lookup
        self._checked = checked
        # A stranger chooses the name, and so the name server that lets us wait. The loop's own threads are few, and
        # serve others.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="push-resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            ForbiddenAddress: it has none that we connect to.
            OSError: it cannot be resolved.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._lookup, host, port)
        except UnicodeError:  # the idna codec of getaddrinfo
            raise OSError("this is no host name") from None
        wanted = [
            (kind, address)
            for kind, address in found
            if family in (socket.AF_UNSPEC, kind) and (not self._checked or is_public(address))
        ]
        if not wanted:
            raise ForbiddenAddress("the host has no public address") if found else OSError("the host has no address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, address in wanted
        ]

    async def close(self) -> None:
        """Take no more questions. Those that are being asked end when the system gives up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
