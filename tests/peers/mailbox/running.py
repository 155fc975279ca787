"""The mailbox as a process of its own, for the tests over real sockets."""

from __future__ import annotations

import resource
import signal
from typing import TYPE_CHECKING, Final

from keys.invite import MailboxCard, RelayCard
from peers.mailbox.keyfile import mint, read_mailbox_identity
from tests.peers.mailbox.http_lab import Asker
from tests.support.service_process import ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

_UNBOUND: Final = ("depositor_items", "address_items", "asking", "price_most")
URL: Final = "http://mailbox.example"


class MailboxProcess(ServiceProcess):
    """A run of ``python -m peers.mailbox run``.

    Args:
        directory: its data directory; a second run with the same one has the same keys and items.
        relay: whose peer it is.
        http: whether it serves HTTP.
        arguments: further ones of the command line.
        file_size: most bytes that one of its files may have (RLIMIT_FSIZE).
        bounded: whether it keeps its rates and prices.
    """

    def __init__(
        self,
        directory: Path,
        relay: RelayProcess | None = None,
        *,
        http: bool = True,
        arguments: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
        file_size: int | None = None,
        bounded: bool = False,
    ) -> None:
        mint(directory)
        self.identity = read_mailbox_identity(directory)
        environment = {
            "BLINDRELAY_MAILBOX_DATA_DIR": str(directory),
            "BLINDRELAY_MAILBOX_ADMIN": "127.0.0.1:0",
            "BLINDRELAY_MAILBOX_LIMITS_DISK_RESERVE": "0",
        }
        if not bounded:
            environment |= {f"BLINDRELAY_MAILBOX_LIMITS_{name.upper()}": "0" for name in _UNBOUND}
        if relay is not None:
            environment["BLINDRELAY_MAILBOX_RELAY"] = RelayCard(relay.public, relay.url).text
        if http:
            environment |= {"BLINDRELAY_MAILBOX_HTTP": "127.0.0.1:0", "BLINDRELAY_MAILBOX_HTTP_URL": URL}
        environment |= variables or {}

        def bound() -> None:
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        prefix, metrics = "BLINDRELAY_MAILBOX_", "blindrelay_mailbox_"
        super().__init__("peers.mailbox", directory, prefix, environment, arguments, metrics, bound)

    @property
    def card(self) -> MailboxCard:
        return MailboxCard(self.identity.public, URL)

    async def asker(self) -> Asker:
        """Return a client over HTTP, once it listens."""
        at = (await self.logged("started"))["http"]
        return Asker(f"http://{at}", URL, self.identity.public)
