"""`python -m relay.healthcheck`: exit status 0 when the relay on this machine answers, for Docker's HEALTHCHECK."""

import http.client
import os
import sys

from relay.pages import HEALTH_PATH
from relay.settings import BadSettings, Settings, load


def main() -> int:
    """Ask the relay that these settings describe for its health page."""
    try:
        settings = _settings()
    except BadSettings as error:
        print(f"blindrelay: {error}", file=sys.stderr)
        return 2
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, settings.port, timeout=3)
    try:
        connection.request("GET", HEALTH_PATH)
        return 0 if connection.getresponse().status == http.client.OK else 1
    except (OSError, http.client.HTTPException) as error:
        print(f"blindrelay: no answer on port {settings.port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()


def _settings() -> Settings:
    """Return the settings, or of such as cannot be used the address that the variables alone give.

    A relay that runs goes on with what it has read: a file that was edited since must not make it look dead, for an
    orchestrator would end it, and then it could not start again.
    """
    try:
        return load([], os.environ)
    except BadSettings:
        address = {name: os.environ[name] for name in ("RELAY_HOST", "RELAY_PORT") if name in os.environ}
        return load([], {**address, "RELAY_CONFIG": os.devnull})


if __name__ == "__main__":
    sys.exit(main())
