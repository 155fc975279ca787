"""Settings: each is a flag and a `RELAY_…` variable. The only module that reads the environment.

The relay's keys come from `RELAY_X25519_SECRET` and `RELAY_ED25519_SECRET` (or files named by these with `_FILE`), or
from the file of `--keys`; both at once are an error. Without either, `relay.keys` in the data directory holds them.
Admission tokens come from `RELAY_TOKEN` or the file of `--token-file`, or both.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, CliImplicitFlag, CliSettingsSource, SettingsConfigDict, SettingsError

from keys.invite import check_url
from relay.about import (
    MAX_CONTACT,
    MAX_NAME,
    MAX_NOTICE,
    MAX_OPERATOR,
    About,
    check_link,
    text_checker,
)
from relay.limits import Limits
from wire.limits import MAX_INFO

PREFIX: Final = "RELAY_"
_SECRETS: Final = frozenset(
    f"{PREFIX}{name}{suffix}" for name in ("X25519_SECRET", "ED25519_SECRET") for suffix in ("", "_FILE")
) | {f"{PREFIX}TOKEN"}
_LIMITS: Final = f"{PREFIX}LIMITS_"
_LOOPBACK: Final = frozenset(("127.0.0.1", "::1", "localhost"))


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


def _check_admission_url(url: str) -> str:
    if not url:
        return url
    parts = urlsplit(url)  # its error is a ValueError, as pydantic wants it
    if parts.username is not None or parts.password is not None:
        raise ValueError("no name or password in it: arguments and variables can be read by others on this machine")
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return url
    raise ValueError(f"it has to be https://…, or http:// with {', '.join(sorted(_LOOPBACK))}: it says who connects")


def _check_given(value: object) -> object:
    if value == "":
        # Path("") would be the working directory; taking it for "not set" could change the relay's keys in silence.
        raise ValueError("it is empty: give it a value or remove it")
    return value


def _check_admin(text: str) -> str:
    parse_admin(text)
    return text


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
    token_file: GivenPath | None = None
    """Admission tokens, one a line, in a file of mode 0600: clients have to show one of them. Read again on SIGHUP."""
    allow_file: GivenPath | None = None
    """Who may connect: client ids, X25519 keys, addresses and networks, one a line. Read again on SIGHUP."""
    deny_file: GivenPath | None = None
    """Who may not, whatever else says so; the same form. Read again on SIGHUP."""
    admission_url: Annotated[str, AfterValidator(_check_admission_url)] = ""
    """A service of yours that is asked about each client: https, or http on this machine. Needs the extra `callout`."""
    admission_address: bool = False
    """Whether that service is told the address of the client as well."""
    decommission: Annotated[str, Field(max_length=MAX_INFO)] = ""
    """Take no new clients, and tell this text to those who are refused and to those who stay."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, to standard error."""
    drain: float = Field(default=5.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds over which sessions are closed after SIGTERM, so that not all clients come back at once; 0: no wait."""
    log_pseudonyms: CliImplicitFlag[bool] = False
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
        return About(self.name, self.operator, self.contact, self.notice, self.docs_url)

    def url_at(self, port: int) -> str:
        """Return the URL for the relay card: the one that was set, else where a client on this machine finds us."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104
        return self.url or f"ws://{bracketed(host)}:{port}/ws"


def parse_admin(text: str) -> tuple[str, int] | None:
    """Return host and port of the admin listener, None for `off` and "".

    Raises:
        ValueError: it is neither.
    """
    if text in ("", "off"):
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
    flag = "--" + ".".join(path).replace("_", "-")
    variable = PREFIX + "_".join(path).upper()
    return f"{flag} (or {variable}) is {problem['input']!r}: {problem['msg']}"
