"""The HTTP of `relay.callout`: one POST for each question, by aiohttp (the extra `callout`)."""

import asyncio
import json
from ipaddress import IPv4Address, IPv6Network
from typing import TYPE_CHECKING, Final

from keys.identity import PublicIdentity
from relay.access import AccessError
from relay.callout import Answer, Callout
from relay.limits import Limits

if TYPE_CHECKING:
    import aiohttp

_ANSWER_MAX: Final = 4096


def check_installed() -> None:
    """Tell early that the library is missing.

    Raises:
        AccessError: it is; the text says how to install it.
    """
    try:
        import aiohttp  # noqa: F401 - an extra: only who uses this has it
    except ImportError:
        raise AccessError(
            "--admission-url needs the extra `callout`: pip install -c constraints.txt '.[callout]'"
        ) from None


class HttpCallout(Callout):
    """Asks the service at a URL.

    Args:
        url: https, or http on this machine: whoever hears the question learns who connects.
        limits: the `callout_…` ones.
        loop: runs the requests.
        tell: whether the service is told addresses.
    """

    def __init__(self, url: str, limits: Limits, loop: asyncio.AbstractEventLoop, *, tell: bool) -> None:
        super().__init__(self._ask_service, limits, loop)
        self._url = url
        self._tells_addresses = tell
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        await super().close()
        if self._session is not None:
            await self._session.close()

    def _client(self) -> "aiohttp.ClientSession":
        import aiohttp

        if self._session is None:
            # No proxy from the environment, no cookies: a question goes to the service that was named and is forgotten.
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                # How many at once, and for how long, is bounded above, by limits that may change.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"User-Agent": "blindrelay", "Accept": "application/json"},
            )
        return self._session

    async def _ask_service(self, public: PublicIdentity, address: bytes) -> Answer:
        question = {"id": public.id.hex(), "x25519": public.x_pub.hex(), "ed25519": public.ed_pub.hex()}
        if self._tells_addresses and address:
            question["address"] = address_text(address)
        # A redirect would carry the question to somebody who was not named.
        async with self._client().post(self._url, json=question, allow_redirects=False) as response:
            if not 200 <= response.status < 300:
                return Answer.FAILED
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _ANSWER_MAX:
                    return Answer.FAILED
        return read_answer(bytes(body))


def read_answer(body: bytes) -> Answer:
    """Return what the body of a 2xx answer says: `{"allow": true}` or `{"allow": false}`, other members are ignored."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return Answer.FAILED
    allow = told.get("allow") if isinstance(told, dict) else None
    if allow is True:
        return Answer.ALLOWED
    return Answer.REFUSED if allow is False else Answer.FAILED


def address_text(address: bytes) -> str:
    """Return an address (as `Session.address` has it) as text: an IPv4 address, or an IPv6 /64 network."""
    if len(address) == 4:
        return str(IPv4Address(address))
    return str(IPv6Network((address + bytes(8), 64)))
