"""Where several processes of one relay listen together (`--workers`).

On Linux each worker listens by itself on the same port (SO_REUSEPORT) and the kernel deals connections out; a worker
that dies takes none from then on. The parent binds the port too and never listens, so that nobody else gets it while a
worker is being started again. A Unix socket cannot be shared in this way, and elsewhere the kernel gives all
connections to one of the sockets: there the parent listens, and the workers accept from its socket.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from relay.listen import BACKLOG, CannotListenError
from relay.unix_socket import bind_unix, identity_of, remove_own

if TYPE_CHECKING:
    from relay.settings import Settings

DEALT_OUT: Final = sys.platform == "linux"
"""Whether the kernel deals out the connections of a port on which several processes listen."""
_TRIES: Final = 16


class Doors:
    """The parent's part of listening.

    Args:
        settings: where.
        dealt_out: whether workers listen by themselves on a TCP port.
    """

    def __init__(self, settings: "Settings", *, dealt_out: bool = DEALT_OUT) -> None:
        self._settings = settings
        self._dealt_out = dealt_out and settings.unix_socket is None
        self._held: list[socket.socket] = []
        self._file: tuple[int, int] | None = None
        self.port = settings.port

    @property
    def sockets(self) -> tuple[int, ...]:
        """Numbers of the sockets that workers accept from; none where they listen by themselves."""
        return () if self._dealt_out else tuple(each.fileno() for each in self._held)

    async def open(self) -> None:
        """Take the address.

        Raises:
            CannotListenError: it cannot be had.
        """
        settings = self._settings
        path = settings.unix_socket
        if path is not None:
            try:
                self._held = [bind_unix(path, int(settings.unix_socket_mode, 8), BACKLOG)]
            except OSError as error:
                raise CannotListenError(f"cannot listen on {path}: {error.strerror or error}") from error
            self._file = identity_of(path)
            return
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
            self._bind_somewhere(addresses)
        except OSError as error:
            raise CannotListenError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
            ) from error

    def close(self) -> None:
        """Let go of the address."""
        for each in self._held:
            each.close()
        self._held = []
        if self._settings.unix_socket is not None:
            remove_own(self._settings.unix_socket, self._file)

    def _bind_somewhere(self, addresses: Iterable[tuple[socket.AddressFamily, tuple[object, ...]]]) -> None:
        """Bind to the port of the settings, or to a free one: that of one address may be taken on another."""
        for _ in range(_TRIES if not self._settings.port else 0):
            with contextlib.suppress(OSError):
                return self._bind(addresses)
        return self._bind(addresses)

    def _bind(self, addresses: Iterable[tuple[socket.AddressFamily, tuple[object, ...]]]) -> None:
        port = self._settings.port
        held: list[socket.socket] = []
        try:
            for family, address in addresses:
                if self._dealt_out and not self._settings.reuse_port:
                    # Another relay with workers would share the port with ours in silence.
                    _socket(family, (address[0], port, *address[2:]), shared=False).close()
                sock = _socket(family, (address[0], port, *address[2:]), shared=self._dealt_out)
                held.append(sock)
                port = sock.getsockname()[1]
                if not self._dealt_out:
                    sock.listen(BACKLOG)
        except OSError:
            for each in held:
                each.close()
            raise
        self._held, self.port = held, port


def _socket(family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
