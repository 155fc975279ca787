"""What a relay has to know to join a cluster. Importable without the NATS library: the settings are made of this."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECRET_SIZE: Final = 32
"""Bytes of the cluster secret: all keys between the nodes are derived from it."""
DEFAULT_PREFIX: Final = "blindrelay"
"""First token of every NATS subject; nats.conf permits subjects below it and no others."""
_TOKEN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


class ClusterError(Exception):
    """The cluster cannot be joined; the text says what an operator can do about it."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """How to reach the NATS servers, and the secret that the relays of one cluster share.

    Args:
        servers: URLs of NATS servers (``nats://``, ``tls://``), one at least; the others are for when one is gone.
        secret: 32 random bytes, the same at every relay of the cluster. Whoever has it can read which ids talk.
        credentials: a NATS credentials file (user JWT and seed).
        ca: certificates that the servers' must lead to; those of the system without it.
        certificate: our own certificate for NATS, where it asks for one; with `key`.
        key: its private key.
        user: user name for NATS; with `password`.
        password: the password to it.
        prefix: first part of every subject; one or more names divided by dots.
        node: a label for logs and metrics; without it the first characters of the node number.

    Raises:
        ValueError: something is missing or cannot be.
    """

    servers: tuple[str, ...]
    secret: bytes = field(repr=False)
    credentials: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    prefix: str = DEFAULT_PREFIX
    node: str | None = None

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError("name one NATS server at least")
        if len(self.secret) != SECRET_SIZE:
            raise ValueError(f"the cluster secret has {SECRET_SIZE} bytes, not {len(self.secret)}")
        if not all(part and _TOKEN.issuperset(part) for part in self.prefix.split(".")):
            raise ValueError("the prefix of the subjects is made of letters, digits, - and _, divided by single dots")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate for NATS and its key come together")
        if self.password is not None and self.user is None:
            raise ValueError("a password for NATS needs a user name")
