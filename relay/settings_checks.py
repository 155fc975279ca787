"""What a value of the settings has to be: validators, whose errors are told with the setting's name and place."""

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from keys.invite import check_url
from relay.proxies import TrustedProxies

if TYPE_CHECKING:
    from relay.settings import Settings

_LOOPBACK: Final = frozenset(("127.0.0.1", "::1", "localhost"))
_SOCKET_PATH_MAX: Final = 92
"""Bytes: 108 of `sockaddr_un` on Linux and 104 elsewhere, less what the name has more while the socket is made."""
_NATS_SCHEMES: Final = frozenset(("nats", "tls"))


def check_relay_url(url: str) -> str:
    """Refuse what no client could connect to."""
    if url:
        check_url(url)  # its error is a ValueError, as pydantic wants it
    return url


def check_admission_url(url: str) -> str:
    """Refuse addresses that would tell others on the way who connects."""
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


def check_given(value: object) -> object:
    """Refuse paths that name nothing."""
    if value == "":
        # Path("") would be the working directory; taking it for "not set" could change the relay's keys in silence.
        raise ValueError("it is empty: give it a value or remove it")
    if "\0" in str(value):
        raise ValueError("no file can have a name with a NUL in it")
    return value


def check_trusted(text: str) -> str:
    """Refuse what is no list of networks."""
    TrustedProxies.parse(text)  # its error is a ValueError too
    return text


def join_list(value: object) -> object:
    """Return a list as the text that it is as a flag."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def check_mode(text: str) -> str:
    """Refuse a mode with which nobody could connect."""
    if not int(text, 8) & 0o200:
        raise ValueError("without the right to write nobody connects: 0660 is for a group, 0666 for everybody")
    return text


def check_socket_path(path: Path) -> Path:
    """Refuse a path that no socket can have."""
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise ValueError(f"the path of a Unix socket takes at most {_SOCKET_PATH_MAX} bytes here: use a shorter one")
    return path


def check_nats_servers(servers: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no address of a NATS server; the same ones twice count once."""
    for server in servers:
        parts = urlsplit(server)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "no name or password in it, for arguments can be read by others on this machine: set nats_user and "
                "nats_password, or nats_creds"
            )
        if parts.scheme not in _NATS_SCHEMES or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError("each has to be nats://HOST:PORT or tls://HOST:PORT; WebSockets are not for servers")
        if parts.port == 0:  # its own error for what is no port is a ValueError too
            raise ValueError("a port is 1 at least; without one it is 4222")
    if len({urlsplit(server).scheme for server in servers}) > 1:
        raise ValueError("nats:// and tls:// do not go together: whoever is between could choose the one without TLS")
    return tuple(dict.fromkeys(servers))


def check_cluster(settings: "Settings") -> None:
    """Refuse settings of a cluster that contradict each other; see :mod:`relay.cluster`."""
    secret = settings.cluster_secret is not None or settings.cluster_secret_file is not None
    if not settings.nats:
        for name in ("nats_creds", "nats_user", "nats_password", "nats_ca", "nats_cert", "nats_key"):
            if getattr(settings, name):
                raise ValueError(f"{name} is for the servers of --nats, and there are none: set --nats, or remove it")
        if secret:
            raise ValueError(
                "cluster_secret and cluster_secret_file go with --nats; --workers alone makes a secret of its own"
            )
        return
    if not secret:
        raise ValueError(
            "--nats needs cluster_secret_file, the same at every relay: mint one with python -m relay cluster-secret "
            "FILE"
        )
    if settings.cluster_secret is not None and settings.cluster_secret_file is not None:
        raise ValueError("cluster_secret and cluster_secret_file are both set: remove one of them")
    if settings.cluster_secret is not None and not is_cluster_secret(settings.cluster_secret.get_secret_value()):
        raise ValueError("cluster_secret has to be 64 hex digits, as python -m relay cluster-secret FILE mints them")
    if settings.nats_creds is not None and (settings.nats_user or settings.nats_password is not None):
        raise ValueError("nats_creds stands in place of nats_user and nats_password: remove the one or the others")
    if bool(settings.nats_user) != (settings.nats_password is not None):
        raise ValueError("nats_user and nats_password go together: set both or neither")
    if (settings.nats_cert is None) != (settings.nats_key is None):
        raise ValueError("nats_cert and nats_key go together: set both or neither")
    if (settings.nats_ca or settings.nats_cert) and urlsplit(settings.nats[0]).scheme != "tls":
        raise ValueError("nats_ca and nats_cert are for TLS: write tls:// in --nats")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine and can be reached from no other; of names only `localhost` is."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warn_of_nats(settings: "Settings") -> list[str]:
    """Return what is said of servers of `--nats` that can be used and had better not be, a line each.

    A warning and no error: on a network that is encrypted itself (WireGuard, an overlay) a password in clear is read by
    nobody, and whoever may not use one there would do without. A credentials file is no matter: its key stays here.
    """
    if settings.nats_password is None:
        return []
    servers = [server for server in settings.nats if urlsplit(server).scheme == "nats"]
    bare = [server for server in servers if not is_loopback(urlsplit(server).hostname or "")]
    return [
        f"nats_password goes to {server} in clear: write tls:// and name its authority by --nats-ca, or use "
        "--nats-creds, whose key is never sent"
        for server in bare
    ]


def is_cluster_secret(text: str) -> bool:
    """Tell whether a text is a cluster secret: 32 bytes in hex digits."""
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None
