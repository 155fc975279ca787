"""The options of a relay client, each with the reason for its default."""

import math
import re
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Final

from peers.client.errors import BadOption

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]{16,128}")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a client connects. Times are in seconds.

    Raises:
        BadOption: a value that cannot be used.
    """

    token: str | None = field(default=None, repr=False)
    """The admission token, where the relay asks for one (PROTOCOL.md §8.8)."""
    liveness: float = 50.0
    """Nothing heard for so long means that the connection is dead: the relay speaks every 20 s, so two may get lost."""
    open_timeout: float = 15.0
    """From the look-up of the name to the answer to the handshake. A relay waits 10 s for its part (§8.2)."""
    backoff_min: float = 0.5
    """The least delay before another attempt."""
    backoff_max: float = 60.0
    """The most; a relay may ask for more, but never for more than 10 minutes."""
    ssl: SSLContext | None = None
    """For ``wss://`` addresses, in place of the system's trust."""
    queue: int = 1024
    """Events that may wait to be taken. When so many wait the socket is not read: nothing is dropped, and if it lasts
    the relay ends the session."""

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise BadOption("the admission token has 16 to 128 characters of A-Z a-z 0-9 . _ ~ -: copy the whole of it")
        for name in ("liveness", "open_timeout", "backoff_min", "backoff_max"):
            value: float = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadOption(f"{name} is a time in seconds above 0")
        if self.backoff_min > self.backoff_max:
            raise BadOption("backoff_min is at most backoff_max")
        if self.queue < 1:
            raise BadOption("queue is 1 or more")
