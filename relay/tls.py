"""TLS between a socket and a connection: for relays without a proxy.

The event loop's own TLS transports do not serve here. They hide what the socket's buffer holds, up to a write and
64 KiB, where a stalled reader is to be seen at once and each byte that waits to be counted; with a high-water mark of 0
they say "not now" for an empty buffer; they cannot end one direction alone; they begin with ClientHello, where a PROXY
header may come first; and they tell of a connection only after its handshake, whose time would be counted apart.
Here OpenSSL, through memory buffers, does TLS, and the rest is the socket's own transport, whose buffer, limits and
flow control are passed on as they are.
"""

import asyncio
import contextlib
import os
import ssl
import stat
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast

from relay.proxy_header import PROXY_HEADER, BadProxyHeader, ProxyHeader
from relay.reasons import Ending
from relay.replies import Reply
from relay.session import Session
from relay.websocket import Phase

_RECORD: Final = 16384
"""Plaintext bytes of one record, and so the most that one read gives (RFC 8446 §5.1)."""
_STEP: Final = 16384
"""Bytes of ciphertext taken in one step: full of key updates, which are 27 bytes and 14 µs each, that is 9 ms."""
_WASTE: Final = 256 * 1024
"""Bytes of ciphertext that may give no plaintext: padding, key updates, what records have around it."""
_AROUND: Final = 64
"""Bytes that a record has around its plaintext, at most; padding apart."""
_NOT_TLS: Final = Reply(HTTPStatus.BAD_REQUEST, "This port speaks TLS: use wss:// and https://.\n").encode()
_OTHERS: Final = 0o007


class BadCertificate(Exception):
    """The certificate or its key cannot be used; the text says why, and what to do."""


class Certificate:
    """A certificate and its key, as files that are renewed from time to time.

    Args:
        chain: PEM, the server's certificate first.
        key: PEM without a passphrase, which others than its owner and group may not read.

    Raises:
        BadCertificate: they cannot be used.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self.context = _context(chain, key)

    def reload(self) -> None:
        """Read both files again, for connections that come from now on; those that are open keep what they have.

        Raises:
            BadCertificate: the new ones cannot be used, and the old ones stay.
        """
        # A context of its own: one that failed half-way would hold a certificate without its key.
        self.context = _context(self._chain, self._key)


def _context(chain: Path, key: Path) -> ssl.SSLContext:
    _check_key(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation lets a client make the server compute, and would need reads for a write to go on.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty passphrase: without one OpenSSL would ask for it on the terminal, and wait.
        context.load_cert_chain(chain, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(f"{key} is not the key of the certificate in {chain}") from None
        raise BadCertificate(
            f"no certificate chain in {chain}, or no key without a passphrase in {key}: both are to be PEM files"
            f" ({error.reason or 'not PEM'})"
        ) from None
    except OSError as error:
        raise BadCertificate(f"cannot read {chain}: {error.strerror}") from None
    return context


def _check_key(key: Path) -> None:
    try:
        descriptor = os.open(key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadCertificate(f"cannot read {key}: {error.strerror}") from None
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    # Of the group it may be: so does Debian give keys to its servers (ssl-cert).
    if mode & _OTHERS:
        raise BadCertificate(f"{key} is open to everybody (mode {mode:04o}); close it with: chmod o= {key}")


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The protocol of a socket's transport, and the transport of a session: plain bytes above, TLS below.

    The session is there from the first moment on, so that the opening deadline covers the handshake, too.

    Args:
        session: above.
        context: with the certificate.
        may_begin: asked before anything is computed, with the address in the PROXY header; else the connection is cut.
        proxy_header: whether a PROXY header comes before TLS begins, and what reads it: raises BadProxyHeader, and
            returns None while it is incomplete.
    """

    __slots__ = (
        "_before",
        "_cipher",
        "_ended",
        "_established",
        "_header",
        "_held",
        "_incoming",
        "_may_begin",
        "_outgoing",
        "_over",
        "_read_header",
        "_scheduled",
        "_session",
        "_tcp",
        "_tls",
        "_waste",
    )

    _tcp: asyncio.Transport

    def __init__(
        self,
        session: Session,
        context: ssl.SSLContext,
        may_begin: Callable[[Session, bytes | None], bool],
        proxy_header: Callable[[Session, bytearray], ProxyHeader | None] | None = None,
    ) -> None:
        super().__init__()
        self._session = session
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._established = False
        self._may_begin: Callable[[Session, bytes | None], bool] | None = may_begin
        # We have said that we end, or TLS is broken: what comes is thrown away.
        self._ended = False
        self._cipher = bytearray()
        self._waste = 0
        self._held = self._scheduled = self._over = False
        self._header: ProxyHeader | None = None
        self._read_header = proxy_header
        self._before = None if proxy_header is None else bytearray()

    # --- The socket's protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)
        self._session.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._before is not None:
            self._before += data
            rest = self._take_header(self._before)
            if not rest:
                return
            data = rest
        self._cipher += data
        self._decrypt()

    def _decrypt(self) -> None:
        """Take what came, a piece at a time, for as long as the session reads and this turn of the loop has time.

        Handshakes, and key updates of which a client can send any number, cost much and tell nobody who it is.
        """
        turns = self._session.core.turns
        while self._cipher and not self._held and not self._ended:
            if turns.late():
                self._later()
                return
            piece = bytes(self._cipher[:_STEP])
            del self._cipher[:_STEP]
            self._incoming.write(piece)
            if self._established or self._handshake():
                self._read(len(piece))

    def _later(self) -> None:
        """Go on in a later turn of the loop; until then nothing more is read."""
        if not self._scheduled:
            self._scheduled = True
            self._tcp.pause_reading()
            self._session.core.loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._scheduled = False
        if self._ended or self._tcp.is_closing():
            return
        self._decrypt()
        if self._ended or self._held or self._scheduled or self._tcp.is_closing():
            return
        if self._over:
            self._end()
        else:
            self._tcp.resume_reading()

    def _take_header(self, before: bytearray) -> bytes:
        """Take the PROXY header; return what came behind it."""
        if self._read_header is None:
            raise AssertionError("nobody waits for a PROXY header")
        try:
            header = self._read_header(self._session, before)
        except BadProxyHeader:
            self._fail(Ending.BAD_PROXY)
            return b""
        if header is None:
            return b""
        self._before = None
        # Nothing of it is left in what the session reads.
        self._header = ProxyHeader(0, header.source)
        return bytes(before[header.size :])

    def _handshake(self) -> bool:
        may_begin, self._may_begin = self._may_begin, None
        if may_begin is not None and not may_begin(
            self._session, None if self._header is None else self._header.source
        ):
            self._fail(Ending.HANDSHAKE_RATE)
            return False
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                self._tcp.write(_NOT_TLS)
            else:
                self._flush()  # the alert that says why
            self._fail(Ending.BAD_TLS)
            return False
        self._established = True
        self._flush()
        return True

    def _read(self, size: int) -> None:
        """Decrypt what `size` bytes give, and pass it on as one chunk."""
        chunks = []
        over = broken = False
        try:
            # Asked first: an exception for each chunk that ends with a record would cost more than the decryption.
            while self._incoming.pending or self._tls.pending():
                chunk = self._tls.read(_RECORD)
                if not chunk:
                    over = True
                    break
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            over = True
        except ssl.SSLError:
            broken = True
        self._flush()
        if chunks:
            self._session.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if self._header is not None and self._session.phase is not Phase.OPENING:
            self._header = None  # the address in it has served
        if broken:
            self._fail(Ending.BAD_TLS)
        elif over and not self._tcp.is_closing():
            self._over = True
            if not self._held:
                self._end()
        elif not self._ended:
            plain = sum(map(len, chunks))
            self._waste = max(0, self._waste + size - 2 * plain - _AROUND * len(chunks))
            if self._waste > _WASTE:
                self._fail(Ending.BAD_TLS)

    def _end(self) -> None:
        """The client says by TLS that it sends no more; said once the session has taken all that came before."""
        self._session.eof_received()
        self.close()

    def _fail(self, ending: Ending) -> None:
        self._ended = True
        self._session.abort(ending)

    def eof_received(self) -> None:
        # Without close_notify too: WebSocket tells by a frame of its own that nothing is missing.
        if not self._ended:
            self._session.eof_received()

    def pause_writing(self) -> None:
        self._session.pause_writing()

    def resume_writing(self) -> None:
        self._session.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._session.connection_lost(exc)
        # The two hold each other: without this only the garbage collector would free them.
        del self._session

    # --- The session's transport -------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == PROXY_HEADER:
            return self._header
        return self._tcp.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended or not self._established:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError:
            # What was encrypted is not sent: behind a gap nothing could be read.
            self._ended = True
            self._tcp.abort()
            return
        self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._tcp.write(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._held = True
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._held = False
        if self._cipher or self._over:
            # Not at once: whoever lets go of a session does not expect that it takes more, on the same stack.
            self._later()
        elif not self._scheduled:
            self._tcp.resume_reading()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say by close_notify and by TCP that nothing follows (RFC 8446 §6.1); what still comes is thrown away."""
        self._notify_close()
        self._tcp.write_eof()

    def _notify_close(self) -> None:
        if not self._ended and self._established:
            self._ended = True
            # It waits for the other's close_notify, or has data of the other's: ours is written all the same.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()

    def is_closing(self) -> bool:
        return self._tcp.is_closing()

    def close(self) -> None:
        self._notify_close()
        self._tcp.close()

    def abort(self) -> None:
        self._ended = True
        self._tcp.abort()
