"""An address to listen on, and asking whoever listens there whether it is well."""

import re
import urllib.error
import urllib.request
from typing import Final

_WAIT: Final = 5.0
_OURSELVES: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask what listens on all


def parse_listen(text: str) -> tuple[str, int] | None:
    """Return host and port of a listener, None for `off`.

    Raises:
        ValueError: it is neither.
    """
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or (":" in bare) != (host != bare) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError("it has to be an address and a port, such as 127.0.0.1:9610 or [::1]:9610, or off")
    if int(port) > 65535:
        raise ValueError("a port is 65535 at most")
    return bare, int(port)


def ask_health(place: tuple[str, int], name: str) -> int:
    """Print what `/readyz` says there; return 0, or 1 if it is not ready.

    Args:
        name: what does not answer, for people.
    """
    host, port = place
    host = _OURSELVES.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/readyz"
    # The environment's proxy is for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_WAIT) as answer:
            print(answer.read(256).decode("ascii", "replace").strip())
    except urllib.error.HTTPError as error:
        print(error.read(256).decode("ascii", "replace").strip())
        return 1
    except OSError:
        print(f"{name} does not answer")
        return 1
    return 0
