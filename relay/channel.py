"""What a parent and its workers say to each other (`--workers`).

At the start the parent writes :class:`Orders` to the worker's standard input, and keeps that open: its end, which the
kernel makes however the parent ends, is the worker's end. All else are lines of JSON on a pair of sockets: questions
with a number, answers with the same, and what a worker tells by itself.
"""

import asyncio
import contextlib
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from pydantic import SecretStr

from relay.backplane.options import ClusterOptions
from relay.settings import NAMES, Settings

LINE_MAX: Final = 4 * 1024 * 1024
"""Bytes of one line: the metrics of a process are some 60 KiB."""
_HEAD: Final = struct.Struct(">I")
_PATHS: Final = ("credentials", "ca", "certificate", "key")
"""Of :class:`ClusterOptions`."""


@dataclass(frozen=True, slots=True)
class Orders:
    """All that a worker has to know. It holds secrets, and goes through a pipe and nowhere else."""

    index: int
    """1 to `settings.workers`."""
    settings: Settings
    """Of the whole relay, with the port that it got."""
    arguments: tuple[str, ...]
    """The relay's flags, for SIGHUP."""
    seeds: tuple[bytes, bytes] = field(repr=False)
    notifier_id: bytes | None
    cluster: ClusterOptions = field(repr=False)
    channel: int
    """Number of the socket to the parent."""
    sockets: tuple[int, ...] = ()
    """Numbers of sockets that listen; none where the worker listens by itself."""

    def encode(self) -> bytes:
        """Return them as they are written to standard input."""
        whole = {each.name: getattr(self, each.name) for each in fields(self)}
        whole |= {"settings": self.settings.model_dump(), "cluster": asdict(self.cluster)}
        body = json.dumps(whole, default=_plain).encode()
        return _HEAD.pack(len(body)) + body

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return what :meth:`encode` wrote after the size.

        Raises:
            ValueError: it did not.
        """
        whole = json.loads(body)
        cluster, notifier_id = whole["cluster"], whole["notifier_id"]
        paths = {name: Path(cluster[name]) for name in _PATHS if cluster[name] is not None}
        servers, secret = tuple(cluster["servers"]), bytes.fromhex(cluster["secret"])
        x_seed, ed_seed = (bytes.fromhex(seed) for seed in whole["seeds"])
        return cls(
            index=whole["index"],
            settings=NAMES.of(**whole["settings"]),
            arguments=tuple(whole["arguments"]),
            seeds=(x_seed, ed_seed),
            notifier_id=None if notifier_id is None else bytes.fromhex(notifier_id),
            cluster=ClusterOptions(**{**cluster, **paths, "servers": servers, "secret": secret}),
            channel=whole["channel"],
            sockets=tuple(whole["sockets"]),
        )


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value.hex() if isinstance(value, bytes) else str(value)


def read_orders(stream: BinaryIO) -> Orders:
    """Read what a parent wrote; nothing beyond it is taken from `stream`.

    Raises:
        EOFError: there is no parent, or no more.
    """
    (size,) = _HEAD.unpack(_exactly(stream, _HEAD.size))
    return Orders.decode(_exactly(stream, size))


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise EOFError("the parent is gone")
        data += more
    return data


class Lines:
    """One end of the pair.

    Args:
        reader: what the other end writes.
        writer: to it.
        heard: is called with each message that is no answer.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: Callable[[dict[str, Any]], None]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._heard = heard
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    def tell(self, **message: Any) -> None:
        """Send a message; one that nobody is there to read is lost."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def ask(self, what: str, seconds: float) -> Any:
        """Return the answer to a question; None when there is none in that time."""
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self.tell(ask=what, number=number)
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]

    async def listen(self) -> None:
        """Take messages until the other end is closed."""
        while True:
            try:
                line = await self._reader.readline()
            except (OSError, ValueError):
                break  # it was reset
            if not line:
                break
            message: dict[str, Any] = json.loads(line)
            if "answer" in message:
                waiting = self._waiting.get(message["number"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(message["answer"])
            else:
                try:
                    self._heard(message)
                except Exception as error:  # noqa: BLE001 - the next question is to be heard all the same
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": "an error while a message between processes was taken", "exception": error}
                    )
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    def close(self) -> None:
        """Close this end."""
        self._writer.close()

    async def flush(self) -> None:
        """Wait until all that was told is written."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def closed(self) -> None:
        """Wait until this end is closed, with all that was told written or lost."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
