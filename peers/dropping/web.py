"""HTTP exchanges with bounds: nothing is followed, kept or read beyond what was asked for."""

import asyncio
import socket
import ssl
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from peers.client.opening import is_loopback
from peers.dropping.errors import NotAMailbox, Unreachable
from peers.dropping.places import is_near_address

try:
    import aiohttp
    from aiohttp.abc import ResolveResult
    from aiohttp.resolver import ThreadedResolver
except ImportError as missing:  # pragma: no cover - the extra is installed with the chat
    raise ImportError("mailboxes over HTTP need the extra: pip install 'blindrelay[chat]'") from missing

_HEADER_MAX: Final = 8190
_PROXIES: Final = ("http://", "https://")


class Reply(NamedTuple):
    """An answer."""

    status: int
    body: bytes


class Web:
    """An HTTP client for one address, used in one event loop.

    It follows no redirects, keeps no cookies, and uses no credentials of the environment but those in a proxy's
    address: `netrc` is not read, for whoever names a mailbox could name any host.

    Args:
        base: ``http://…`` or ``https://…``.
        timeout: seconds for one exchange, from the look-up of the name to the last byte.
        tls: in place of the system's trust.
        far: follow no name that leads to this machine or its link (:mod:`peers.dropping.places`). Through a proxy it is
            the proxy that looks names up, and its own machine that they might lead to.
    """

    def __init__(self, base: str, timeout: float, tls: ssl.SSLContext | None = None, *, far: bool = False) -> None:
        self._base = base
        self._timeout = timeout
        self._tls = tls
        self._far = far
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(self, path: str, most: int) -> Reply:
        """Return what stands at a path; at most `most` bytes of it.

        Raises:
            Unreachable: there was no answer.
            NotAMailbox: it was too long, or no HTTP.
        """
        return await self._exchange("GET", path, None, most)

    async def post(self, path: str, body: bytes, most: int) -> Reply:
        """Send a body to a path and return the answer, likewise.

        Raises:
            Unreachable, NotAMailbox: as :meth:`get`.
        """
        return await self._exchange("POST", path, body, most)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _exchange(self, method: str, path: str, body: bytes | None, most: int) -> Reply:
        headers = {"Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        try:
            session = await self._opened()
            async with session.request(
                method,
                below(self._base, path),
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=proxy_for(self._base),
            ) as response:
                parts, size = [], 0
                async for part in response.content.iter_chunked(1 << 16):
                    parts.append(part)
                    size += len(part)
                    if size > most:
                        raise NotAMailbox("what answers there says more than a mailbox does")
                return Reply(response.status, b"".join(parts))
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError):
            raise NotAMailbox("what answers there is no HTTP server, or broke off") from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
            raise Unreachable("there is no trusted TLS with the mailbox") from None
        except TimeoutError:
            raise Unreachable(f"the mailbox did not answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError):
            # Their own texts have addresses, and a proxy's may have its password.
            raise Unreachable("the mailbox cannot be reached") from None

    async def _opened(self) -> aiohttp.ClientSession:
        tls = self._tls
        if self._session is None and tls is None and self._base.startswith("https:"):
            tls = await asyncio.to_thread(ssl.create_default_context)  # reads the system's certificates
        if self._session is None:
            resolver = FarResolver() if self._far and proxy_for(self._base) is None else None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls or True, limit=2, keepalive_timeout=30.0, resolver=resolver),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                skip_auto_headers=("User-Agent",),
                auto_decompress=False,  # a small body that unpacks to a large one
                trust_env=False,
                max_line_size=_HEADER_MAX,
                max_field_size=_HEADER_MAX,
                loop=asyncio.get_running_loop(),
            )
        return self._session


class FarResolver(ThreadedResolver):
    """Looks names up, and knows none of the addresses that are of this machine or its link."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            OSError: there are none, or none that may be used.
        """
        found = [each for each in await super().resolve(host, port, family) if not is_near_address(each["host"])]
        if not found:
            raise OSError("this name leads to no other machine")
        return found


def below(base: str, path: str) -> str:
    """Return the address of a path below another address; a query of that stays.

    The card's address is used exactly as it stands, so that both sides agree on it; only the path grows.
    """
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def proxy_for(url: str) -> str | None:
    """Return the proxy that this environment has for an address; None for none.

    Raises:
        Unreachable: it is of a kind that is not supported.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(url):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return None
    if not proxy.startswith(_PROXIES):
        raise Unreachable(
            "the proxy of this environment is none for HTTP: mailboxes over HTTP need http:// or https://"
        )
    return proxy
