"""Where a mailbox's JetStream is, and how its stream is to be kept: what an operator sets as `nats.…`.

Importable without the extra `mailbox-nats`.
"""

from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from keys.identity import Identity
from keys.primitives import derive_key
from peers.service.errors import BadValues
from peers.service.settings_types import GivenPath

_SECRET_CONTEXT: Final = "blindrelay mailbox stream 1"  # noqa: S105 - a name of a purpose
_SUBJECT_BAD: Final = frozenset("*>./\\ \t\r\n")
_REPLICAS: Final = (1, 3, 5)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (each.strip() for each in text.split(",")) if part)


def _listed(text: str) -> str:
    return ",".join(_split(text))


Listed = Annotated[str, AfterValidator(_listed)]


# The texts below the settings are what operators read of them (flags, template, docs/mailbox.md).
@dataclass(frozen=True, slots=True, config=ConfigDict(use_attribute_docstrings=True))
class JetStreamSettings:
    """The servers, how they let the mailbox in, and the stream; for `store = "jetstream"`.

    With `max_bytes`, deposits leave ``Limits.disk_reserve`` of it free, so that deleting goes on. Without `overwrite`,
    what is deleted stands on the servers' disks until NATS compacts the file that it is in. Without `require_sync`,
    STORED may be said of what a power cut takes away.

    Raises:
        BadValues: what cannot be; the text says which.
    """

    servers: Listed = "nats://127.0.0.1:4222"
    """URLs of the servers of one cluster, nats://HOST:PORT or tls://HOST:PORT, with commas between."""
    credentials: GivenPath | None = None
    """A credentials file (JWT and seed) of the mailbox's user, for nobody else to read."""
    user: str = ""
    """The mailbox's user where there are no credentials; it may have a password."""
    password_file: GivenPath | None = Field(default=None, repr=False)
    """A file whose first line is that user's password, for nobody else to read."""
    ca: GivenPath | None = None
    """A file with the authority that signed the servers' certificates; none: those that the system trusts."""
    certificate: GivenPath | None = None
    """The mailbox's own certificate for them."""
    key: GivenPath | None = None
    """Its key, for nobody else to read."""
    stream: str = "BLINDRELAY_MAILBOX"
    """The stream's name; it is made if it is missing."""
    prefix: str = "blindrelay.mailbox"
    """What its subjects begin with; nobody else may publish below it."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """On how many servers each message is kept: 1, 3 or 5."""
    max_bytes: Annotated[int, Field(ge=0, le=2**62)] = 0
    """Bytes of the servers' disks that the stream may take; 0: as many as the account may."""
    overwrite: bool = True
    """Whether what is deleted is overwritten on the servers' disks at once; without, deleting is some times faster."""
    monitoring: Listed = ""
    """The servers' monitoring, http://HOST:PORT each, with commas between: where their sync_interval is looked up."""
    require_sync: bool = True
    """Whether to refuse servers that do not sync each write to the disk, or of which that is not known."""
    timeout: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 5.0
    """Seconds after which a request to NATS has failed."""

    def __post_init__(self) -> None:
        servers = self.server_urls
        if not servers or not all(server.startswith(("nats://", "tls://")) for server in servers):
            raise BadValues("at least one, each nats://HOST:PORT or tls://HOST:PORT", "servers")
        if any("@" in server for server in servers):
            raise BadValues("no passwords in URLs; use credentials, or user and password_file", "servers")
        if not self.stream or set(self.stream) & _SUBJECT_BAD:
            raise BadValues("a name without dots, spaces, slashes, * and >", "stream")
        if not all(token and not set(token) & _SUBJECT_BAD for token in self.prefix.split(".")):
            raise BadValues("tokens between dots, without spaces, slashes, * and >", "prefix")
        if self.replicas not in _REPLICAS:
            raise BadValues("1, 3 or 5", "replicas")
        if not all(url.startswith(("http://", "https://")) for url in self.monitoring_urls):
            raise BadValues("each http://HOST:PORT or https://HOST:PORT", "monitoring")
        if (self.certificate is None) != (self.key is None):
            raise BadValues("both or none", "certificate", "key")
        if self.password_file is not None and not self.user:
            raise BadValues("of which user?", "password_file")

    @property
    def server_urls(self) -> tuple[str, ...]:
        """The URLs of the servers."""
        return _split(self.servers)

    @property
    def monitoring_urls(self) -> tuple[str, ...]:
        """The URLs of their monitoring."""
        return _split(self.monitoring)


def stream_secret(identity: Identity) -> bytes:
    """Return the secret (32 bytes) under which a mailbox names its recipients to NATS and seals what it keeps there.

    Of its key file: whoever has a backup of that can read the stream again; without it, what is held is lost.
    """
    return derive_key(_SECRET_CONTEXT, b"".join(identity.seeds))
