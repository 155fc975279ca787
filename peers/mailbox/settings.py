"""The mailbox's settings: each is a flag, a `BLINDRELAY_MAILBOX_…` variable and a key of mailbox.toml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from keys.identity import PublicIdentity
from keys.invite import MAILBOX_SCHEMES, MailboxCard, RelayCard, check_url
from peers.mailbox.forwarded import DEFAULT_TRUSTED, Proxies
from peers.mailbox.jetstream_settings import JetStreamSettings
from peers.mailbox.settings_limits import LimitSettings
from peers.service.errors import BadSettings
from peers.service.listening import parse_listen
from peers.service.settings_sources import Loaded, Names
from peers.service.settings_types import (
    AdmissionToken,
    CardText,
    GivenPath,
    Listen,
    ServiceSettings,
    state_directory,
)

_HTTP_SCHEMES: Final = tuple(scheme for scheme in MAILBOX_SCHEMES if scheme.startswith("http"))


def _check_http_url(text: str) -> str:
    if text:
        check_url(text, _HTTP_SCHEMES, "http_url")
        if "?" in text:
            raise ValueError("http_url has a query (?), and /drop is appended to it")
    return text


def _check_proxies(text: str) -> str:
    Proxies.parse(text)
    return text


class Settings(ServiceSettings):
    """A mailbox: it holds sealed deposits for those who are offline."""

    config: GivenPath | None = None
    """The TOML file with settings; without it `mailbox.toml` in the data directory, if there is one."""
    data_dir: GivenPath = Field(default_factory=lambda: state_directory("blindrelay-mailbox"))
    """Where its keys, its tokens and what it holds are."""
    relay: CardText = ""
    """The relay that it is a peer of, as the card `R0…` that the relay prints; none: it is not."""
    relay_token: AdmissionToken | None = None
    """That relay's admission token, if it asks for one."""
    http: Listen = "off"
    """Address and port to serve HTTP on, such as 127.0.0.1:8095; `off` for none."""
    http_url: Annotated[str, AfterValidator(_check_http_url)] = ""
    """The address by which clients reach it over HTTP, as it stands in the card: https://HOST[/PATH]."""
    trusted_proxies: Annotated[str, AfterValidator(_check_proxies)] = DEFAULT_TRUSTED
    """Networks whose X-Forwarded-For is believed: where the proxy before it connects from."""
    recipients: GivenPath | None = None
    """A file with those whom it serves, an invite `K0…` or a key of 64 hex digits in a line; none: everybody."""
    tokens: bool = False
    """Whether a deposit needs one of the tokens that `token new` makes."""
    store: Literal["sqlite", "jetstream"] = "sqlite"
    """What holds the items: a file of its own, or a stream of NATS."""
    admin: Listen = "127.0.0.1:9620"
    """Address and port of the listener with /healthz, /readyz and /metrics; `off` for none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, to standard error."""
    limits: LimitSettings = Field(default_factory=LimitSettings)
    """Limits."""
    nats: JetStreamSettings = Field(default_factory=JetStreamSettings)
    """The stream of NATS."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.http != "off" and not self.http_url:
            raise ValueError("http takes http_url as well: the address by which clients reach it, which its card tells")
        if self.http_url and self.http == "off":
            raise ValueError("http_url is told to clients, but http is off: set http to an address to listen on")
        return self

    @property
    def relay_card(self) -> RelayCard | None:
        """The relay."""
        return RelayCard.parse(self.relay) if self.relay else None

    @property
    def http_place(self) -> tuple[str, int] | None:
        """Where HTTP is served."""
        return parse_listen(self.http)

    def ways(self) -> list[str]:
        """Return the addresses by which clients find this mailbox: that of its relay, and its own.

        Raises:
            BadSettings: there is none.
        """
        relay = self.relay_card
        urls = [*([relay.url] if relay is not None else []), *([self.http_url] if self.http_url else [])]
        if not urls:
            raise BadSettings(
                [
                    f"nobody could reach it: set relay ({NAMES.variable_of('relay')}) to the card R0… of a relay, or "
                    f"http and http_url to serve by itself"
                ]
            )
        return urls

    def cards(self, public: PublicIdentity) -> list[MailboxCard]:
        """Return the cards by which clients find this mailbox, one for each way.

        Raises:
            BadSettings: there is no way, or the relay has the same keys.
        """
        relay = self.relay_card
        if relay is not None and relay.public == public:
            raise BadSettings(["these are the relay's own keys: the mailbox needs keys of its own"])
        return [MailboxCard(public, url) for url in self.ways()]


NAMES: Final = Names(
    Settings, "BLINDRELAY_MAILBOX_", "mailbox.toml", {"limits": LimitSettings, "nats": JetStreamSettings}
)
"""What they are called."""


def load(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Loaded[Settings]:
    """Return the settings that flags, variables and mailbox.toml give, and where each was set.

    Args:
        flags: by key, those of limits with their table: `limits.ttl`.
        environ: the variables; nothing else of them is looked at.

    Raises:
        BadSettings: a line for each problem.
    """
    return NAMES.load(flags, environ, {"data_dir": state_directory("blindrelay-mailbox", environ)})


def database_of(settings: Settings) -> Path:
    """Return where the SQLite store keeps what is held."""
    return settings.data_dir / "mailbox.db"
