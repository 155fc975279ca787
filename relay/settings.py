"""Settings: each is a flag, a `RELAY_…` variable and a key of relay.toml, and stands once, here.

Flags stand above variables, these above the secrets directory, that above relay.toml, that above the defaults. The
relay's keys are no settings: they come from `RELAY_X25519_SECRET` and `RELAY_ED25519_SECRET` (or files named by these
with `_FILE`, or in the secrets directory), or from the file of `--keys`; both at once are an error. Without either,
`relay.keys` in the data directory holds them.

Only this module and those named `settings_…` read the environment.
"""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from relay import settings_help
from relay.about import (
    MAX_CONTACT,
    MAX_NAME,
    MAX_NOTICE,
    MAX_OPERATOR,
    About,
    check_link,
    check_vapid_key,
    text_checker,
)
from relay.limits import Limits
from relay.proxies import DEFAULT_TRUSTED, Front, TrustedProxies
from relay.settings_checks import (
    check_admission_url,
    check_cluster,
    check_given,
    check_mode,
    check_nats_servers,
    check_relay_url,
    check_socket_path,
    check_trusted,
    join_list,
)
from relay.settings_names import PREFIX, Names
from relay.settings_problems import BadSettings, Origin, explain
from relay.settings_sources import Given, HelpWanted, from_file, from_flags, from_secrets, from_variables
from wire.limits import MAX_INFO

__all__ = [
    "CONFIG_FILE",
    "NAMES",
    "PREFIX",
    "BadSettings",
    "Loaded",
    "Settings",
    "bracketed",
    "load",
    "load_with_origins",
    "parse_admin",
]

CONFIG_FILE: Final = "relay.toml"


def _default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return systemd's state directory, else the XDG one of this user: the same place from every working directory."""
    state = environ.get("STATE_DIRECTORY")
    if state:
        return Path(state.split(":")[0])
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path(environ.get("HOME") or Path.home()) / ".local" / "state") / "blindrelay"


def _default_secrets_dir(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the directory of systemd's LoadCredential=, which is made for one service."""
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    return Path(credentials) if credentials else None


def _check_admin(text: str) -> str:
    parse_admin(text)
    return text


MAX_WORKERS: Final = 128
"""Metrics have a label for each, and a machine with more cores wants several relays."""
GivenPath = Annotated[Path, BeforeValidator(check_given)]


class Settings(BaseSettings):
    """A blind relay: it forwards sealed frames between sockets by an id that only it can unmask."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    config: GivenPath | None = None
    """The TOML file with settings; without it `relay.toml` in the data directory, if there is one."""
    secrets_dir: GivenPath | None = Field(default_factory=_default_secrets_dir)
    """A directory with a file for each secret, named as its variable: `relay_x25519_secret`. No other file is read."""
    host: str = "127.0.0.1"
    """Address to listen on; a TLS proxy on the same machine needs no other."""
    port: int = Field(default=8090, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    data_dir: GivenPath = Field(default_factory=_default_data_dir)
    """Where the keys are kept when no other place is named; made when it is not there."""
    keys: GivenPath | None = None
    """Key file of `blindrelay-keygen`; without it `relay.keys` in the data directory, minted when missing."""
    notifier_id: Annotated[str, Field(pattern="^[0-9a-fA-F]{16}$")] | None = None
    """Client id of the push notifier, 16 hex digits; it stands above the one in the key file."""
    push_kinds: tuple[Literal["fcm", "webpush", "unifiedpush", "apns"], ...] = ()
    """What that notifier takes, for /info, so that clients register nothing in vain; webpush needs push_vapid_key."""
    push_vapid_key: Annotated[str, AfterValidator(check_vapid_key)] = ""
    """Its VAPID public key, under which browsers subscribe, for /info: `blindrelay-notifier keygen` prints it."""
    url: Annotated[str, AfterValidator(check_relay_url)] = ""
    """The URL under which clients reach this relay, for the relay card, such as wss://relay.example/ws."""
    token: SecretStr | None = None
    """Admission tokens with blanks between them, one of which clients have to show. No flag: those can be read. With
    token_file set as well, the tokens of both are valid."""
    token_file: GivenPath | None = None
    """Admission tokens, one a line, in a file of mode 0600: clients have to show one of them, or one of `token`. Read
    again on SIGHUP."""
    allow_file: GivenPath | None = None
    """Who may connect: client ids, X25519 keys, addresses and networks, one a line. Read again on SIGHUP."""
    deny_file: GivenPath | None = None
    """Who may not, whatever else says so; the same form. Read again on SIGHUP."""
    admission_url: Annotated[str, AfterValidator(check_admission_url)] = ""
    """A service of yours that is asked about each client: https, or http on this machine. Needs the extra `callout`."""
    admission_address: bool = False
    """Whether that service is told the address of the client as well."""
    decommission: Annotated[str, AfterValidator(text_checker(MAX_INFO))] = ""
    """Take no new clients, and tell this text to those who are refused and to those who stay."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, to standard error."""
    trusted_proxies: Annotated[str, BeforeValidator(join_list), AfterValidator(check_trusted)] = DEFAULT_TRUSTED
    """Networks of the proxies whose X-Forwarded-For and PROXY headers are believed, with commas between them; `unix` is
    whoever comes through the Unix socket."""
    proxy_protocol: bool = False
    """Expect a PROXY header, version 1 or 2, at the beginning of each connection, and refuse those without."""
    unix_socket: Annotated[GivenPath, AfterValidator(check_socket_path)] | None = None
    """Listen on a Unix socket at this path, and on no port."""
    unix_socket_mode: Annotated[str, Field(pattern="^0?[0-7]{3}$"), AfterValidator(check_mode)] = "0660"
    """The mode of the Unix socket, in octal: the proxy needs the right to write."""
    tls_cert: GivenPath | None = None
    """Certificate chain, PEM: speak TLS, for a relay without a proxy; it takes --tls-key as well."""
    tls_key: GivenPath | None = None
    """The certificate's private key, PEM, which only the relay's user and group may read."""
    reuse_port: bool = False
    """Let another relay of the same user listen on the same port: a new one takes over while an old one ends."""
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    """Processes that are one relay and share its port, each with a core of its own; beyond 1 it takes the extra
    `cluster`."""
    nats: Annotated[tuple[str, ...], AfterValidator(check_nats_servers)] = ()
    """NATS servers through which relays on several machines are one, nats:// or tls://, with commas between them. All
    need the same keys and cluster_secret. Needs the extra `cluster`."""
    nats_creds: GivenPath | None = None
    """Credentials for NATS (a user JWT and its seed), in a file of mode 0600."""
    nats_user: str = ""
    """User name for NATS, in place of credentials; it takes nats_password."""
    nats_password: SecretStr | None = None
    """The password of that user. No flag: those can be read."""
    nats_ca: GivenPath | None = None
    """Certificates, PEM, one of which has to have signed those of the NATS servers; without it the system's."""
    nats_cert: GivenPath | None = None
    """Our own certificate for NATS servers that ask for one, PEM; it takes nats_key as well."""
    nats_key: GivenPath | None = None
    """The private key of that certificate, PEM, which only the relay's user and group may read."""
    cluster_secret: SecretStr | None = None
    """The secret that the relays of a cluster share, 64 hex digits. No flag: those can be read."""
    cluster_secret_file: GivenPath | None = None
    """The same in a file of mode 0600, as `python -m relay cluster-secret FILE` mints it."""
    drain: float = Field(default=5.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds over which sessions are closed after SIGTERM, so that not all clients come back at once; 0: no wait."""
    log_pseudonyms: bool = False
    """Log when sessions start and end, each client under a name that changes every day (UTC); see SECURITY.md."""
    admin: Annotated[str, AfterValidator(_check_admin)] = "127.0.0.1:9600"
    """Address and port of the admin listener with /metrics and /sessions, [::1]:9600 for IPv6; `off` for none."""
    name: Annotated[str, Field(min_length=1), AfterValidator(text_checker(MAX_NAME))] = "blindrelay"
    """What this relay is called, on its page and in /info; 64 characters."""
    operator: Annotated[str, AfterValidator(text_checker(MAX_OPERATOR))] = ""
    """Who runs it, for the page and /info; 200 characters."""
    contact: Annotated[str, AfterValidator(text_checker(MAX_CONTACT))] = ""
    """How to reach them: an https:// or mailto: link, or any text; 200 characters."""
    notice: Annotated[str, AfterValidator(text_checker(MAX_NOTICE))] = ""
    """A notice for users: on the page, in /info, and sent to every client that connects; 2,000 characters."""
    docs_url: Annotated[str, AfterValidator(check_link)] = ""
    """Where the documentation of this relay is, for the page to link to."""
    limits: Limits = Field(default_factory=Limits)
    """The relay's limits."""

    @property
    def about(self) -> About:
        """What the operator says of the relay."""
        return About(
            self.name,
            self.operator,
            self.contact,
            self.notice,
            self.docs_url,
            tuple(dict.fromkeys(self.push_kinds)),
            self.push_vapid_key,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is passed in and nothing else: :func:`load` reads the sources, and knows what each gave."""
        return (init_settings,)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together: set both or neither")
        check_cluster(self)
        if "webpush" in self.push_kinds and not self.push_vapid_key:
            raise ValueError("push_kinds has webpush, so push_vapid_key is needed: browsers subscribe under it")
        if self.unix_socket is not None:
            if self.tls_cert is not None:
                raise ValueError("--unix-socket is for a proxy on this machine, which ends TLS: remove --tls-cert")
            if self.reuse_port:
                raise ValueError("--reuse-port is for a TCP port: with --unix-socket remove it")
            if not self.url:
                raise ValueError("--unix-socket needs --url: nothing else says where clients reach this relay")
        return self

    @property
    def front(self) -> Front:
        """What stands in front of the relay."""
        trusted = TrustedProxies.parse(self.trusted_proxies)
        if self.unix_socket is None:
            # Without it a connection that has no address is one that was reset before it was accepted: a stranger's.
            trusted = replace(trusted, unix=False)
        return Front(trusted, self.proxy_protocol)

    def url_at(self, port: int) -> str:
        """Return the URL for the relay card: the one that was set, else where a client on this machine finds us."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104
        return self.url or f"{self.scheme}://{bracketed(host)}:{port}/ws"

    @property
    def scheme(self) -> str:
        """Whether the relay itself speaks TLS."""
        return "ws" if self.tls_cert is None else "wss"


def parse_admin(text: str) -> tuple[str, int] | None:
    """Return host and port of the admin listener, None for `off`.

    Raises:
        ValueError: it is neither.
    """
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or (":" in bare) != (host != bare) or not port.isascii() or not port.isdigit():
        raise ValueError("it has to be an address and a port, such as 127.0.0.1:9600 or [::1]:9600, or off")
    if int(port) > 65535:
        raise ValueError("a port is 65535 at most")
    return bare, int(port)


def bracketed(host: str) -> str:
    """Return a host as URLs have it: IPv6 addresses in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host


NAMES: Final[Names[Settings]] = Names(Settings)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each that is not the default was set, by its path (`("limits", "queue_size")`)."""

    settings: Settings
    origins: Mapping[tuple[str, ...], Origin]
    file: Path | None
    """The relay.toml that was read, if one was."""


def load(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings that flags, variables and files give; as :func:`load_with_origins`."""
    return load_with_origins(arguments, environ).settings


def load_with_origins(arguments: Sequence[str], environ: Mapping[str, str], names: Names[Settings] = NAMES) -> Loaded:
    """Read all sources. Nothing but `environ` and the files that it and `arguments` lead to is looked at.

    Raises:
        BadSettings: names every setting that is unknown or cannot be used, where it was set, the value, and what it
            should be.
        SystemExit: after `--help` (status 0).
    """
    try:
        flags = from_flags(arguments, names)
    except HelpWanted:
        sys.stdout.write(settings_help.text(names))
        raise SystemExit(0) from None
    variables = from_variables(environ, names)
    above = _merged(variables, flags)
    defaults: dict[tuple[str, ...], Path | None] = {
        ("data_dir",): _default_data_dir(environ),
        ("secrets_dir",): _default_secrets_dir(environ),
    }
    path, named = _config_file(above, defaults["data_dir",])
    file = from_file(path, names) if path is not None else Given()
    if path is not None and not named:
        _stays_here(file, path)
    below = _merged(file, above)
    secrets = Given()
    directory = below.values.get(("secrets_dir",), defaults["secrets_dir",])
    if directory and isinstance(directory, str | Path):  # anything else is told below, as every wrong type
        origin = below.origins.get(("secrets_dir",), Origin("variable", "CREDENTIALS_DIRECTORY"))
        secrets = from_secrets(Path(directory), origin, names)
    given = _merged(file, secrets, above)
    problems = [*flags.problems, *variables.problems, *secrets.problems, *file.problems]
    nested: dict[str, Any] = {}
    for at, value in {**defaults, **given.values}.items():
        table = nested
        for name in at[:-1]:
            table = table.setdefault(name, {})
        table[at[-1]] = value
    try:
        settings = names.of(**nested)
    except ValidationError as error:
        problems += explain(error, names, given.origins, given.values)
    else:
        if not problems:
            return Loaded(settings, given.origins, path)
    raise BadSettings(problems)


def _merged(*sources: Given) -> Given:
    """Return what the sources give together, the later above the earlier, without what is wrong with them."""
    merged = Given()
    for source in sources:
        merged.values.update(source.values)
        merged.origins.update(source.origins)
    return merged


def _config_file(above: Given, data_dir: Path | None) -> tuple[Path | None, bool]:
    """Return the settings file, and whether it was named; one that was named has to be there."""
    named = above.values.get(("config",))
    if named is not None:
        return (Path(named), True) if named else (None, True)
    directory = above.values.get(("data_dir",), data_dir)
    if not directory:
        return None, False
    path = Path(directory) / CONFIG_FILE
    # A directory that is closed to us, and a link that leads nowhere, are told when the file is read.
    with contextlib.suppress(OSError):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None, False
    return path, False


def _stays_here(file: Given, path: Path) -> None:
    """Refuse a relay.toml that was found in the data directory and names another as that."""
    at = ("data_dir",)
    other = file.values.get(at)
    if (
        isinstance(other, str)
        and other
        and "\0" not in other
        and os.path.realpath(other) != os.path.realpath(path.parent)
    ):
        file.problems.append(
            f"data_dir is {other!r} ({file.origins[at]}): this file was found in {path.parent}, as that is the data "
            f"directory; remove the key, or name the file by --config or {PREFIX}CONFIG"
        )
        del file.values[at], file.origins[at]
