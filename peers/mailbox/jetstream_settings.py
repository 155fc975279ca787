"""Where a mailbox's JetStream is, and how its stream is to be kept. Importable without the extra `mailbox-nats`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from keys.identity import Identity
from keys.primitives import derive_key

_SECRET_CONTEXT: Final = "blindrelay mailbox stream 1"  # noqa: S105 - a name of a purpose
_SUBJECT_BAD: Final = frozenset("*>./\\ \t\r\n")
_REPLICAS: Final = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class JetStreamSettings:
    """A connection to NATS and a stream in it.

    Attributes:
        servers: ``nats://`` or ``tls://`` URLs of one cluster.
        credentials: a credentials file (JWT and seed), None for none.
        user: with `password_file` or without; None for none.
        password_file: a file whose first line is the password.
        tls_ca: a file with the authority that signed the servers' certificates; None: the system's.
        tls_certificate: our certificate for them, with `tls_key`; None for none.
        stream: the stream's name. Its subjects are ``prefix.>``.
        prefix: one or more tokens; no other program may publish below it.
        replicas: 1, 3 or 5.
        max_bytes: bytes that the stream may take of the servers' disks; None: as many as the account may. With it,
            deposits leave ``Limits.disk_reserve`` of it free, so that deleting goes on.
        overwrite: what is deleted is overwritten on the servers' disks, a sync each. Without, it stands there until
            NATS compacts the file that it is in, and deleting is some times faster.
        monitoring: ``http://`` URLs of the servers' monitoring, one for each replica: where it is looked up that
            their ``sync_interval`` is ``always``.
        require_sync: refuse servers of which that is not so, or not known. Without, STORED may be said of what a
            power cut takes away.
        timeout: seconds after which a request has failed.

    Raises:
        ValueError: what cannot be; the text says which.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    credentials: Path | None = None
    user: str | None = None
    password_file: Path | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    stream: str = "BLINDRELAY_MAILBOX"
    prefix: str = "blindrelay.mailbox"
    replicas: int = 1
    max_bytes: int | None = None
    overwrite: bool = True
    monitoring: tuple[str, ...] = ()
    require_sync: bool = True
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if not self.servers or not all(server.startswith(("nats://", "tls://")) for server in self.servers):
            raise ValueError("servers: at least one, each nats://HOST:PORT or tls://HOST:PORT")
        if any("@" in server for server in self.servers):
            raise ValueError("servers: no passwords in URLs; use credentials, or user and password_file")
        if not self.stream or set(self.stream) & _SUBJECT_BAD:
            raise ValueError("stream: a name without dots, spaces, slashes, * and >")
        if not all(token and not set(token) & _SUBJECT_BAD for token in self.prefix.split(".")):
            raise ValueError("prefix: tokens between dots, without spaces, slashes, * and >")
        if self.replicas not in _REPLICAS:
            raise ValueError("replicas: 1, 3 or 5")
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise ValueError("max_bytes: above 0, or none")
        if not all(url.startswith(("http://", "https://")) for url in self.monitoring):
            raise ValueError("monitoring: each http://HOST:PORT or https://HOST:PORT")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key: both or none")
        if self.password_file is not None and self.user is None:
            raise ValueError("password_file: of which user?")
        if self.timeout <= 0:
            raise ValueError("timeout: above 0")


def stream_secret(identity: Identity) -> bytes:
    """Return the secret (32 bytes) under which a mailbox names its recipients to NATS and seals what it keeps there.

    Of its key file: whoever has a backup of that can read the stream again; without it, what is held is lost.
    """
    return derive_key(_SECRET_CONTEXT, b"".join(identity.seeds))
