"""Where the relay listens: a TCP port, with TLS or without, or a Unix socket."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from relay.session import Session
from relay.settings import Settings, bracketed
from relay.tls import Certificate, TlsTransport
from relay.unix_socket import bind_unix, identity_of, remove_own

if TYPE_CHECKING:
    from relay.core import Core

BACKLOG: Final = 4096


class CannotListenError(Exception):
    """The address cannot be listened on; the text says which and why."""

    @classmethod
    def for_metrics(cls, address: str, error: OSError) -> "CannotListenError":
        """Make the one for the admin listener."""
        return cls(
            f"cannot listen on {address} for /metrics: {error.strerror}; "
            "name another address by --admin, or switch it off by --admin off"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """How a process listens that may be one of several (`--workers`)."""

    parent: bool = False
    """A parent made this process: others listen on the same port, and the admin listener is the parent's."""
    sockets: tuple[socket.socket, ...] = ()
    """Sockets of the parent that listen already, where a port cannot be shared; they stay its to remove."""


ALONE: Final = Place()


class Listener:
    """Takes connections from :meth:`open` to :meth:`close`, and makes a session of each.

    `certificate` is the one of `--tls-cert`, whose :meth:`Certificate.reload` reads it again; None without TLS.

    Args:
        settings: where to listen.
        place: what is different where it is one process of several.

    Raises:
        BadCertificate: the files for TLS cannot be used.
    """

    def __init__(self, settings: Settings, place: Place = ALONE) -> None:
        self._settings = settings
        self._place = place
        self._servers: list[asyncio.Server] = []
        self._socket_file: tuple[int, int] | None = None
        self.port = settings.port
        self.certificate: Certificate | None = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self.certificate = Certificate(settings.tls_cert, settings.tls_key)

    async def open(self, core: "Core") -> None:
        """Listen, for sessions of this relay.

        Raises:
            CannotListenError: the address cannot be listened on.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        factory = self._factory(core)
        if self._place.sockets:
            self._servers = [
                await loop.create_unix_server(factory, sock=each, backlog=BACKLOG)
                if each.family == socket.AF_UNIX
                else await loop.create_server(factory, sock=each, backlog=BACKLOG)
                for each in self._place.sockets
            ]
            return
        if settings.unix_socket is not None:
            path = settings.unix_socket
            try:
                sock = bind_unix(path, int(settings.unix_socket_mode, 8), BACKLOG)
                self._socket_file = identity_of(path)
                self._servers = [await loop.create_unix_server(factory, sock=sock, backlog=BACKLOG)]
            except OSError as error:
                raise CannotListenError(f"cannot listen on {path}: {error.strerror or error}") from error
            return
        try:
            server = await loop.create_server(
                factory,
                settings.host,
                settings.port,
                backlog=BACKLOG,
                reuse_port=self._place.parent or settings.reuse_port or None,
            )
        except OSError as error:
            raise CannotListenError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
            ) from error
        self._servers = [server]
        self.port = server.sockets[0].getsockname()[1]

    def _factory(self, core: "Core") -> Callable[[], asyncio.Protocol]:
        certificate = self.certificate
        if certificate is None:
            return lambda: Session(core)
        header = core.entry.proxy_header if core.front.proxy_header else None
        # The context is asked for each time: it may have been renewed.
        return lambda: TlsTransport(Session(core), certificate.context, core.door.may_begin_tls, header)

    @property
    def address(self) -> str:
        """Where it listens, for people and scripts: `ws://127.0.0.1:8090/ws`, or `unix:` and a path."""
        return address_of(self._settings, self.port)

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        for server in self._servers:
            server.close()
        self._servers = []
        if self._settings.unix_socket is not None:
            remove_own(self._settings.unix_socket, self._socket_file)


def address_of(settings: Settings, port: int) -> str:
    """Return where a relay with these settings listens, once it has this port."""
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket}"
    return f"{settings.scheme}://{bracketed(settings.host)}:{port}/ws"
