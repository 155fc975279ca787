"""The mailbox's stream on NATS as an operator sets it. `jetstream_settings.JetStreamSettings` says what each is for."""

from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from peers.mailbox.jetstream_settings import JetStreamSettings
from peers.service.settings_types import GivenPath

_DEFAULT: Final = JetStreamSettings()


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (each.strip() for each in text.split(",")) if part)


def _listed(text: str) -> str:
    return ",".join(_split(text))


Listed = Annotated[str, AfterValidator(_listed)]


@dataclass(frozen=True, slots=True, config=ConfigDict(use_attribute_docstrings=True))
class NatsSettings:
    """The servers, how they let the mailbox in, and the stream; for `store = "jetstream"`."""

    servers: Listed = ",".join(_DEFAULT.servers)
    """URLs of the servers of one cluster, nats://HOST:PORT or tls://HOST:PORT, with commas between."""
    credentials: GivenPath | None = None
    """A credentials file (JWT and seed) of the mailbox's user, for nobody else to read."""
    user: str = ""
    """The mailbox's user where there are no credentials; it may have a password."""
    password_file: GivenPath | None = None
    """A file whose first line is that user's password, for nobody else to read."""
    ca: GivenPath | None = None
    """A file with the authority that signed the servers' certificates; none: those that the system trusts."""
    certificate: GivenPath | None = None
    """The mailbox's own certificate for them."""
    key: GivenPath | None = None
    """Its key, for nobody else to read."""
    stream: str = _DEFAULT.stream
    """The stream's name; it is made if it is missing."""
    prefix: str = _DEFAULT.prefix
    """What its subjects begin with; nobody else may publish below it."""
    replicas: Annotated[int, Field(ge=1, le=5)] = _DEFAULT.replicas
    """On how many servers each message is kept: 1, 3 or 5."""
    max_bytes: Annotated[int, Field(ge=0, le=2**62)] = 0
    """Bytes of the servers' disks that the stream may take; 0: as many as the account may."""
    overwrite: bool = True
    """Whether what is deleted is overwritten on the servers' disks at once; without, deleting is some times faster."""
    monitoring: Listed = ""
    """The servers' monitoring, http://HOST:PORT each, with commas between: where their sync_interval is looked up."""
    require_sync: bool = True
    """Whether to refuse servers that do not sync each write to the disk, or of which that is not known."""
    timeout: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = _DEFAULT.timeout
    """Seconds after which a request to NATS has failed."""

    def __post_init__(self) -> None:
        self.stream_settings()

    def stream_settings(self) -> JetStreamSettings:
        """Return what the store is made with.

        Raises:
            ValueError: they contradict each other; the text says how.
        """
        return JetStreamSettings(
            servers=_split(self.servers),
            credentials=self.credentials,
            user=self.user or None,
            password_file=self.password_file,
            tls_ca=self.ca,
            tls_certificate=self.certificate,
            tls_key=self.key,
            stream=self.stream,
            prefix=self.prefix,
            replicas=self.replicas,
            max_bytes=self.max_bytes or None,
            overwrite=self.overwrite,
            monitoring=_split(self.monitoring),
            require_sync=self.require_sync,
            timeout=self.timeout,
        )
