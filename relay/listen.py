"""Where the relay listens: a TCP port, with TLS or without, or a Unix socket."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.session import Session
from relay.settings import Settings, bracketed
from relay.tls import Certificate, TlsTransport
from relay.unix_socket import bind_unix, identity_of, remove_own

if TYPE_CHECKING:
    from relay.core import Core

_BACKLOG: Final = 4096


class CannotListenError(Exception):
    """The address cannot be listened on; the text says which and why."""


class Listener:
    """Takes connections from :meth:`open` to :meth:`close`, and makes a session of each.

    `certificate` is the one of `--tls-cert`, whose :meth:`Certificate.reload` reads it again; None without TLS.

    Args:
        settings: where to listen.

    Raises:
        BadCertificate: the files for TLS cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: asyncio.Server | None = None
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
        if settings.unix_socket is not None:
            path = settings.unix_socket
            try:
                sock = bind_unix(path, int(settings.unix_socket_mode, 8), _BACKLOG)
                self._socket_file = identity_of(path)
                self._server = await loop.create_unix_server(factory, sock=sock, backlog=_BACKLOG)
            except OSError as error:
                raise CannotListenError(f"cannot listen on {path}: {error.strerror or error}") from error
            return
        try:
            self._server = await loop.create_server(
                factory, settings.host, settings.port, backlog=_BACKLOG, reuse_port=settings.reuse_port or None
            )
        except OSError as error:
            raise CannotListenError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

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
        settings = self._settings
        if settings.unix_socket is not None:
            return f"unix:{settings.unix_socket}"
        return f"{settings.scheme}://{bracketed(settings.host)}:{self.port}/ws"

    def close(self) -> None:
        """Take no more connections; those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._settings.unix_socket is not None:
            remove_own(self._settings.unix_socket, self._socket_file)
