"""Settings: each is a flag and a `RELAY_…` variable. The only module that reads the environment.

The relay's keys come from `RELAY_X25519_SECRET` and `RELAY_ED25519_SECRET` (or files named by these with `_FILE`), or
from the file of `--keys`; both at once are an error. Without either, `relay.keys` in the data directory holds them.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliImplicitFlag, CliSettingsSource, SettingsConfigDict, SettingsError

from keys.invite import check_url
from relay.limits import Limits
from relay.proxies import DEFAULT_TRUSTED, Front, TrustedProxies

PREFIX: Final = "RELAY_"
_SECRETS: Final = frozenset(
    f"{PREFIX}{name}{suffix}" for name in ("X25519_SECRET", "ED25519_SECRET") for suffix in ("", "_FILE")
)
_LIMITS: Final = f"{PREFIX}LIMITS_"
_SOCKET_PATH_MAX: Final = 92
"""Bytes: 108 of `sockaddr_un` on Linux and 104 elsewhere, less what the name has more while the socket is made."""


class BadSettings(Exception):
    """Settings that cannot be used; the text names each, and never a secret."""


def _default_data_dir() -> Path:
    """Return systemd's state directory, else the XDG one of this user: the same place from every working directory."""
    state = os.environ.get("STATE_DIRECTORY")
    if state:
        return Path(state.split(":")[0])
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "blindrelay"


def _check_url(url: str) -> str:
    if url:
        check_url(url)  # its error is a ValueError, as pydantic wants it
    return url


def _check_given(value: object) -> object:
    if value == "":
        # Path("") would be the working directory; taking it for "not set" could change the relay's keys in silence.
        raise ValueError("it is empty: give it a value or remove it")
    return value


def _check_trusted(text: str) -> str:
    TrustedProxies.parse(text)  # its error is a ValueError too
    return text


def _join_list(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _check_mode(text: str) -> str:
    if not int(text, 8) & 0o200:
        raise ValueError("without the right to write nobody connects: 0660 is for a group, 0666 for everybody")
    return text


def _check_socket_path(path: Path) -> Path:
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise ValueError(f"the path of a Unix socket takes at most {_SOCKET_PATH_MAX} bytes here: use a shorter one")
    return path


GivenPath = Annotated[Path, BeforeValidator(_check_given)]


class Settings(BaseSettings):
    """A blind relay: it forwards sealed frames between sockets by an id that only it can unmask."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        cli_prog_name="python -m relay",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=False,
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on; a TLS proxy on the same machine needs no other."""
    port: int = Field(8090, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    data_dir: GivenPath = Field(default_factory=_default_data_dir)
    """Where the keys are kept when no other place is named; made when it is not there."""
    keys: GivenPath | None = None
    """Key file of `blindrelay-keygen`; without it `relay.keys` in the data directory, minted when missing."""
    notifier_id: Annotated[str, Field(pattern="^[0-9a-fA-F]{16}$")] | None = None
    """Client id of the push notifier, 16 hex digits; it stands above the one in the key file."""
    url: Annotated[str, AfterValidator(_check_url)] = ""
    """The URL under which clients reach this relay, for the relay card, such as wss://relay.example/ws."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, to standard error."""
    trusted_proxies: Annotated[str, BeforeValidator(_join_list), AfterValidator(_check_trusted)] = DEFAULT_TRUSTED
    """Networks of the proxies whose X-Forwarded-For and PROXY headers are believed, with commas between them; `unix` is
    whoever comes through the Unix socket."""
    proxy_protocol: CliImplicitFlag[bool] = False
    """Expect a PROXY header, version 1 or 2, at the beginning of each connection, and refuse those without."""
    unix_socket: Annotated[GivenPath, AfterValidator(_check_socket_path)] | None = None
    """Listen on a Unix socket at this path, and on no port."""
    unix_socket_mode: Annotated[str, Field(pattern="^0?[0-7]{3}$"), AfterValidator(_check_mode)] = "0660"
    """The mode of the Unix socket, in octal: the proxy needs the right to write."""
    tls_cert: GivenPath | None = None
    """Certificate chain, PEM: speak TLS, for a relay without a proxy; it takes --tls-key as well."""
    tls_key: GivenPath | None = None
    """The certificate's private key, PEM, which only the relay's user and group may read."""
    reuse_port: CliImplicitFlag[bool] = False
    """Let another relay of the same user listen on the same port: a new one takes over while an old one ends."""
    limits: Limits = Field(default_factory=Limits)
    """The relay's limits."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together: set both or neither")
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
        return Front(TrustedProxies.parse(self.trusted_proxies), self.proxy_protocol)

    def url_at(self, port: int) -> str:
        """Return the URL for the relay card: the one that was set, else where a client on this machine finds us."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104
        return self.url or f"{self.scheme}://{bracketed(host)}:{port}/ws"

    @property
    def scheme(self) -> str:
        """Whether the relay itself speaks TLS."""
        return "ws" if self.tls_cert is None else "wss"


def bracketed(host: str) -> str:
    """Return a host as URLs have it: IPv6 addresses in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host else host


def load(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read flags, then variables of the process; `environ` is looked at for names that do not exist.

    Raises:
        BadSettings: names every setting that is unknown or cannot be used, the value, and what it should be.
        SystemExit: after `--help` (status 0) or an unknown flag (status 2), as argparse has it.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | _SECRETS
    unknown = [
        name for name in environ if name.startswith(PREFIX) and not name.startswith(_LIMITS) and name not in known
    ]
    if unknown:
        raise BadSettings("\n".join(f"{name}: there is no such setting; see --help" for name in sorted(unknown)))
    try:
        source: CliSettingsSource[Any] = CliSettingsSource(Settings, cli_parse_args=list(arguments))
        return Settings(_cli_settings_source=source)  # type: ignore[call-arg]
    except ValidationError as error:
        raise BadSettings("\n".join(_explain(problem) for problem in error.errors(include_url=False))) from None
    except SettingsError as error:
        raise BadSettings(str(error)) from None


def _explain(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    if not path:
        return str(problem["msg"]).removeprefix("Value error, ")  # of several settings, which it names
    flag = "--" + ".".join(path).replace("_", "-")
    variable = PREFIX + "_".join(path).upper()
    return f"{flag} (or {variable}) is {problem['input']!r}: {problem['msg']}"
