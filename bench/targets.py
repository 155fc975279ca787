"""The relays that are measured: ours, the base, rivals. Each is a process of its own on the relay's core."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench import machine
from bench.stats import BASE, OURS
from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity, PublicIdentity
from keys.invite import RelayCard

ROOT: Final = Path(__file__).resolve().parents[1]
_HUGE: Final = 1_000_000_000
_GIB: Final = 1 << 30

RAISED: Final[Mapping[str, float]] = {
    # Rates: huge, not 0, which would switch the check off. What is not listed keeps its default.
    "frames_per_second": _HUGE,
    "frames_burst": _HUGE,
    "bytes_per_second": 1e15,
    "bytes_burst": 10**15,
    "handshakes_per_second": _HUGE,
    "handshakes_burst": _HUGE,
    "commands_per_second": _HUGE,
    "commands_burst": _HUGE,
    "presence_per_second": _HUGE,
    "presence_burst": _HUGE,
    # 64 frames of 64 KiB in flight are the whole of the default queue.
    "queue_size": 64 << 20,
    "queue_total": 2 * _GIB,
    "partial_total": _GIB,
    # A storm of thousands takes longer than the default of 10 seconds on a slow machine.
    "opening_deadline": 120,
    # Pings have scenarios of their own; elsewhere they would be noise.
    "ping_after": 3600,
    "silent_after": 7200,
}
"""Limits of ours that would throttle the load, raised so far that their checks run and never strike."""

_LISTENS = re.compile(
    r'ws://([^\s:/]+):(\d+)(/\S*)? .*?x25519_public="([0-9a-f]{64})".*?ed25519_public="([0-9a-f]{64})"'
)
_START = 60.0


@dataclass(slots=True)
class Target:
    """A relay that runs."""

    name: str
    host: str
    port: int
    path: str
    public: PublicIdentity = field(repr=False)
    pid: int | None = None
    """None when it is on another machine or not started by us: then its CPU and memory are not known."""


class CannotStart(Exception):
    """A relay did not come up; the text says why."""


def _await_line(process: "subprocess.Popen[bytes]", name: str, log: Path) -> re.Match[str]:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        said = log.read_text(errors="replace")
        found = _LISTENS.search(said)
        if found:
            return found
        if ended:
            break
        time.sleep(0.02)
    said = log.read_text(errors="replace")[-800:]
    raise CannotStart(f"{name} did not say where it listens; its output ends with {said!r}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def started(name: str, command: Sequence[str], core: int, log: Path) -> Iterator[Target]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
    # Into a file: a pipe that nobody reads would one day block a relay that talks much.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        machine.pin(process.pid, core)
        found = _await_line(process, name, log)
        host, port, path, x_pub, ed_pub = found.groups()
        public = PublicIdentity(bytes.fromhex(x_pub), bytes.fromhex(ed_pub))
        yield Target(name, host, int(port), path or "/", public, process.pid)
    finally:
        _end(process)


@dataclass(frozen=True, slots=True)
class Rival:
    """Another relay of protocol v2: a command that starts it, or the card of one that runs on this machine.

    In a command ``{keys}`` stands for a key file of ours (TOML with the two secrets in hex). It prints a line as ours
    does: its ``ws://`` address, ``x25519_public="…"`` and ``ed25519_public="…"``.
    """

    name: str
    command: str | None = None
    card: RelayCard | None = None

    @classmethod
    def parse(cls, text: str, number: int) -> "Rival":
        """Read what ``--rival`` was given: a card (R0…) or a command."""
        name = "rival" if number == 0 else f"rival {number + 1}"
        if text.startswith("R0"):
            return cls(name, card=RelayCard.parse(text))
        return cls(name, command=text)


def target_of_card(name: str, card: RelayCard, url: str | None = None) -> Target:
    """Return a target for a relay that runs somewhere already.

    Raises:
        CannotStart: the address has a scheme that raw sockets cannot serve.
    """
    parts = urlsplit(url or card.url)
    if parts.scheme != "ws" or parts.hostname is None:
        raise CannotStart("a rival is reached over ws://, on this machine; for others there is --url")
    return Target(name, parts.hostname, parts.port or 80, parts.path or "/", card.public)


class Starter:
    """Starts relays with fresh keys, each scenario its own, so that none inherits another's memory."""

    def __init__(self, cores: machine.Cores, rivals: Sequence[Rival] = ()) -> None:
        self._cores = cores
        self._rivals = rivals

    @contextmanager
    def relays(
        self, limits: Mapping[str, float] | None = None, ping_after: float | None = None
    ) -> Iterator[list[Target]]:
        """Run ours, the base and the rivals.

        Args:
            limits: of ours, over :data:`RAISED`.
            ping_after: seconds of silence after which ours and the base ping; without it neither does.
        """
        wanted = dict(RAISED) | dict(limits or {})
        base = [sys.executable, "-m", "bench.baseline"]
        if ping_after is not None:
            wanted["ping_after"] = ping_after
            base += ["--ping-after", str(ping_after)]
        ours = [sys.executable, "-m", "relay", "--port", "0", "--admin", "off"]
        for name, value in wanted.items():
            ours += [f"--limits.{name.replace('_', '-')}", str(value)]
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blindrelay-bench-")))

            def start(name: str, command: Sequence[str]) -> Target:
                log = folder / f"{name.replace(' ', '-')}.log"
                return stack.enter_context(started(name, command, self._cores.relay, log))

            def keys(name: str) -> str:
                path = folder / f"{name.replace(' ', '-')}.keys"
                write_server_keys(path, ServerKeys(Identity.generate()))
                return str(path)

            targets = [start(OURS, [*ours, "--keys", keys(OURS)]), start(BASE, [*base, "--keys", keys(BASE)])]
            for rival in self._rivals:
                if rival.card is not None:
                    targets.append(target_of_card(rival.name, rival.card))
                elif rival.command is not None:
                    file = keys(rival.name)
                    words = [word.replace("{keys}", file) for word in shlex.split(rival.command)]
                    targets.append(start(rival.name, words))
            yield targets
