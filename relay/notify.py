"""What systemd is told of this process (sd_notify(3)): a datagram to the socket that $NOTIFY_SOCKET names."""

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final

_VARIABLE: Final = "NOTIFY_SOCKET"


def notify(state: str, environ: MutableMapping[str, str] = os.environ) -> bool:
    """Tell `READY=1`, `STOPPING=1` and the like; returns whether somebody wanted to know.

    A manager that cannot be told is no reason not to serve: nothing is raised.
    """
    where = environ.get(_VARIABLE, "")
    if not where.startswith(("/", "@")):
        return False
    # A name that begins with @ is one without a file (unix(7)).
    address = "\0" + where[1:] if where.startswith("@") else where
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # A full queue must not hold the event loop.
        sock.setblocking(False)
        sock.sendto(state.encode(), address)
        return True
    return False
