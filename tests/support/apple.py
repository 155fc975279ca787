"""APNs on 127.0.0.1: HTTP/2 over TLS, a stream at a time until the first push is authorized, as Apple has it."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from peers.notifier.apns import ApnsKey, ApnsServer
from tests.support.certificates import Files, make_certificate, trusting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY_ID, TEAM_ID, TOPIC = "ABC123DEFG", "TEAM123456", "org.example.app"
_KEY = ec.generate_private_key(ec.SECP256R1())
PEM = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def apns_key(pem: str = PEM) -> ApnsKey:
    return ApnsKey(pem, KEY_ID, TEAM_ID)


@dataclass
class Request:
    """A push as it came."""

    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)

    def told(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Said:
    """How to answer: a status and the body's pieces. 0 is silence, -1 resets the stream, -2 drops the connection."""

    status: int = 200
    pieces: tuple[bytes, ...] = ()
    with_id: bool = True


def reason(status: int, text: str) -> Said:
    return Said(status, (json.dumps({"reason": text}).encode(),))


class Apple:
    """The server. Made in a directory for its certificate."""

    def __init__(self, directory: Path) -> None:
        self.requests: list[Request] = []
        self.answers: list[Said] = []
        """Taken from the front; then 200."""
        self.arrived = asyncio.Event()
        """Set with each request."""
        self.connections = 0
        self.most_streams = 0
        """Most that were open at once."""
        self.streams = 1000
        """Allowed at once on a connection that has shown a good token; one before."""
        self.before_settings: asyncio.Event | None = None
        """Connections say nothing until it is set."""
        self.port = 0
        self._files: Files = make_certificate(directory)
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def server(self) -> ApnsServer:
        return ApnsServer("127.0.0.1", self.port)

    def tls(self) -> ssl.SSLContext:
        """What a client needs that trusts this server."""
        context = trusting(self._files)
        context.set_alpn_protocols(["h2"])
        return context

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.chain, self._files.key)
        context.set_alpn_protocols(["h2"])
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.drop()

    def drop(self) -> None:
        """Close every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self.before_settings is not None:
                await self.before_settings.wait()
            await self._speak(reader, writer)
        except (ConnectionError, H2Error):
            writer.transport.abort()
        finally:
            writer.close()

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        waiting: dict[int, Request] = {}
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    waiting[event.stream_id] = Request({str(name): str(value) for name, value in event.headers})
                    self.most_streams = max(self.most_streams, connection.open_inbound_streams)
                elif isinstance(event, DataReceived):
                    waiting[event.stream_id].body += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    request = waiting.pop(event.stream_id)
                    self.requests.append(request)
                    self.arrived.set()
                    self._answer(connection, event.stream_id, request, writer)
            writer.write(connection.data_to_send())
            await writer.drain()

    def _answer(self, connection: H2Connection, stream_id: int, request: Request, writer: asyncio.StreamWriter) -> None:
        said = self.answers.pop(0) if self.answers else Said()
        wrong = _check(request)
        if wrong:
            said = reason(403, wrong)
        else:
            connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self.streams})
        if said.status == 0:
            return
        if said.status == -1:
            connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
            return
        if said.status == -2:
            writer.transport.abort()
            return
        headers = [(":status", str(said.status))]
        if said.with_id:
            headers.append(("apns-id", request.headers["apns-id"]))
        connection.send_headers(stream_id, headers, end_stream=not said.pieces)
        for number, piece in enumerate(said.pieces, 1):
            connection.send_data(stream_id, piece, end_stream=number == len(said.pieces))


def _check(request: Request) -> str:
    """Return Apple's reason for a request with a bad provider token, "" for a good one."""
    token = request.headers.get("authorization", "").removeprefix("bearer ")
    try:
        claims = jwt.decode(token, _KEY.public_key(), ["ES256"], options={"require": ["iss", "iat"]})
    except jwt.InvalidTokenError:
        return "InvalidProviderToken"
    if jwt.get_unverified_header(token)["kid"] != KEY_ID or claims["iss"] != TEAM_ID:
        return "InvalidProviderToken"
    return "" if abs(claims["iat"] - time()) < 3600 else "ExpiredProviderToken"
