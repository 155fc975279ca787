"""Names to addresses for `peers.notifier.outbound`: in threads of its own, and only public addresses come out."""

import asyncio
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from ipaddress import IPv6Network
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from peers.notifier.addresses import is_public

Lookup = Callable[[str, int], list[tuple[int, str]]]
"""From host and port to (address family, numeric address). Blocks. Raises OSError."""

_THREADS: Final = 64
"""Names that are asked for at once."""
_KNOWN_THREADS: Final = 16
"""And so many more of those that were answered quickly the last time: names of strangers that hang, of which there may
be any number, do not hold up the push services that everybody uses."""
_QUICK: Final = 2.0
"""Seconds."""
_KNOWN_MAX: Final = 1000


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
        nat64: see `is_public`.
    """

    def __init__(self, lookup: Lookup, *, checked: bool, nat64: Collection[IPv6Network] = ()) -> None:
        self._nat64 = nat64
        self._lookup = lookup
        self._checked = checked
        self._slots = asyncio.Semaphore(_THREADS)
        self._known_slots = asyncio.Semaphore(_KNOWN_THREADS)
        self._known: OrderedDict[str, bool] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            ForbiddenAddress: it has none that we connect to.
            OSError: it cannot be resolved.
        """
        try:
            found = await self._ask(host, port)
        except UnicodeError:  # the idna codec of getaddrinfo
            raise OSError("this is no host name") from None
        wanted = [
            (kind, address)
            for kind, address in found
            if family in (socket.AF_UNSPEC, kind) and (not self._checked or is_public(address, self._nat64))
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
        """Nothing to close: questions that are being asked end when the system gives up, or with the process."""

    async def _ask(self, host: str, port: int) -> list[tuple[int, str]]:
        """Ask in a thread of its own.

        A stranger chooses the name, and so the name server that lets us wait. The loop's own threads are few and serve
        others, and those of an executor would hold up the end of the process as well.
        """
        loop = asyncio.get_running_loop()
        # Once for each quick answer: who then lets us wait is not known any more.
        known = self._known.pop(host, False) and not self._known_slots.locked()
        slots = self._known_slots if known else self._slots
        answer: asyncio.Future[list[tuple[int, str]]] = loop.create_future()

        def settle(found: list[tuple[int, str]], error: Exception | None) -> None:
            slots.release()  # by the thread's end, not the waiter's: so many threads there are at most
            if found and loop.time() - began < _QUICK:
                self._known[host] = True
                if len(self._known) > _KNOWN_MAX:
                    self._known.popitem(last=False)
            if answer.done():  # cancelled
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def ask() -> None:
            found: list[tuple[int, str]] = []
            failure: Exception | None = None
            try:
                found = self._lookup(host, port)
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked
                failure = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, found, failure)

        await slots.acquire()
        began = loop.time()
        threading.Thread(target=ask, name="push-resolver", daemon=True).start()
        return await answer
