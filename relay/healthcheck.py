"""`python -m relay.healthcheck`: exit status 0 when the relay on this machine answers, for Docker's HEALTHCHECK."""

import http.client
import os
import socket
import ssl
import sys

from relay.pages import HEALTH_PATH
from relay.proxy_header import LOCAL
from relay.settings import PREFIX, BadSettings, Settings, load

_TIMEOUT = 3
_ADDRESS = tuple(
    f"{PREFIX}{name}" for name in ("HOST", "PORT", "UNIX_SOCKET", "URL", "TLS_CERT", "TLS_KEY", "PROXY_PROTOCOL")
)
"""Variables that say where and how the relay is spoken to."""


def _connect(settings: Settings) -> socket.socket:
    """Return a connection to the relay that these settings describe, on which HTTP can be spoken."""
    if settings.unix_socket is not None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(os.fspath(settings.unix_socket))
        except OSError:
            connection.close()
            raise
    else:
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
        connection = socket.create_connection((host, settings.port), timeout=_TIMEOUT)
    if settings.proxy_protocol:
        connection.sendall(LOCAL)
    if settings.tls_cert is None:
        return connection
    # Whether the relay lives is asked, and nothing secret is said. The certificate is for a name that clients use, and
    # one that ran out is no reason to start the relay anew.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def main() -> int:
    """Ask the relay that these settings describe for its health page."""
    try:
        settings = _settings()
    except BadSettings as error:
        print(f"blindrelay: {error}", file=sys.stderr)
        return 2
    where = f"port {settings.port}" if settings.unix_socket is None else f"{settings.unix_socket}"
    connection = http.client.HTTPConnection("relay", timeout=_TIMEOUT)
    try:
        connection.sock = _connect(settings)
        connection.request("GET", HEALTH_PATH)
        return 0 if connection.getresponse().status == http.client.OK else 1
    except (OSError, http.client.HTTPException) as error:
        print(f"blindrelay: no answer on {where}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()


def _settings() -> Settings:
    """Return the settings, or of such as cannot be used where and how the variables alone say that it listens.

    A relay that runs goes on with what it has read: a file that was edited since must not make it look dead, for an
    orchestrator would end it, and then it could not start again.
    """
    try:
        return load([], os.environ)
    except BadSettings:
        address = {name: os.environ[name] for name in _ADDRESS if name in os.environ}
        # What is asked for besides, and may have stood in the file: for a health check it makes no difference.
        if f"{PREFIX}UNIX_SOCKET" in address:
            address.setdefault(f"{PREFIX}URL", "wss://relay.invalid/ws")
        for one, other in (("TLS_CERT", "TLS_KEY"), ("TLS_KEY", "TLS_CERT")):
            if f"{PREFIX}{one}" in address:
                address.setdefault(f"{PREFIX}{other}", address[f"{PREFIX}{one}"])
        return load([], {**address, "RELAY_CONFIG": os.devnull})


if __name__ == "__main__":
    sys.exit(main())
