"""NATS servers and relays as processes of their own, all on loopback."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.clients import Clients, Door
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM: Final = Path(sys.executable).with_name("nats-server")
_START: Final = 30.0


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


class Nats:
    """NATS servers that are one cluster.

    Args:
        directory: for their output.
        count: how many.
    """

    def __init__(self, directory: Path, count: int = 3) -> None:
        ports = free_ports(2 * count)
        self.ports, self._routes = ports[:count], ports[count:]
        self._directory = directory
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count
        for index in range(count):
            self.start(index)

    def url(self, index: int) -> str:
        return f"nats://127.0.0.1:{self.ports[index]}"

    def start(self, index: int) -> None:
        """Start a server, or start it again."""
        command = [str(PROGRAM), "-a", "127.0.0.1", "-p", str(self.ports[index]), "-n", f"nats-{index}"]
        if len(self.ports) > 1:
            routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
            own = f"nats://127.0.0.1:{self._routes[index]}"
            command += ["--cluster_name", "test", "--cluster", own, "--routes", routes]
            command += ["--no_advertise"]
        self.run(index, command)

    def run(self, index: int, command: list[str], environment: dict[str, str] | None = None) -> None:
        """Start a server with this command, and wait until it listens."""
        with (self._directory / f"nats-{index}").open("ab") as out:
            self.processes[index] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.ports[index]), 1.0):
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the NATS server does not listen")

    def signal(self, index: int, number: signal.Signals) -> None:
        process = self.processes[index]
        assert process is not None
        process.send_signal(number)

    def kill(self, index: int) -> None:
        process, self.processes[index] = self.processes[index], None
        assert process is not None
        process.kill()
        process.wait()

    def close(self) -> None:
        for index, process in enumerate(self.processes):
            if process is not None:
                process.send_signal(signal.SIGCONT)
                self.kill(index)


class ClusterProcess:
    """Relays that are one, each at a NATS server of its own.

    Args:
        directory: for keys and output.
        count: how many of both.
        servers: how many NATS servers, if fewer.
        nats: the servers themselves, which are closed with the relays.
        how: as for :class:`RelayProcess`.
    """

    def __init__(
        self, directory: Path, count: int = 3, servers: int | None = None, nats: Nats | None = None, **how: Any
    ) -> None:
        self.directory = directory
        self.nats = nats or Nats(directory, servers or count)
        self._how = how
        self._secret = directory / "cluster.secret"
        descriptor = os.open(self._secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
        self.relays: list[RelayProcess] = []
        self._next = 0
        try:
            for index in range(count):
                self.relays.append(self.start(index))
        except BaseException:
            self.close()
            raise

    def start(self, index: int) -> RelayProcess:
        """Start the relay that is at this place."""
        place = self.directory / f"relay-{index}"
        place.mkdir(exist_ok=True)
        keys = self.directory / "relay-0" / "relay.keys"
        if index and not (place / "relay.keys").exists():
            (place / "relay.keys").write_bytes(keys.read_bytes())
            (place / "relay.keys").chmod(0o600)
        url = self.nats.url(index % len(self.nats.ports))
        how = dict(self._how)
        arguments = ["--nats", url, "--cluster-secret-file", str(self._secret), *how.pop("arguments", ())]
        return RelayProcess(place, arguments=arguments, **how)

    # --- As one relay, for tests that know of no cluster -------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port of one of the relays, each time of the next."""
        self._next += 1
        return self.relays[self._next % len(self.relays)].port

    @property
    def stopped(self) -> dict[str, Any]:
        """What all of them counted, together, in runs that ended as they should."""
        records = [relay.stopped for relay in self.relays]
        together: dict[str, Any] = {"frames": sum(record["frames"] for record in records)}
        for name in ("refusals", "endings"):
            together[name] = dict(sum((Counter(record[name]) for record in records), Counter()))
        return together

    def memory(self) -> int:
        """Bytes of resident memory, of all of them."""
        return sum(relay.memory() for relay in self.relays)

    def connections(self) -> int:
        """Sockets that clients hold open; each relay has one more, to NATS."""
        return sum(relay.connections() - 1 for relay in self.relays)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["relays"][0], name)

    def clients(self, index: int) -> Clients:
        """Return clients of one of the relays."""
        return Clients(self.relays[index], Door(self.relays[index].port))

    def check(self) -> None:
        """Stop all relays, and find that nothing went wrong in any."""
        for relay in self.relays:
            relay.check()

    def close(self) -> None:
        """End everything."""
        for relay in self.relays:
            if relay.running:
                relay.process.send_signal(signal.SIGCONT)
            relay.process.kill()
            relay.process.wait()
        self.nats.close()


def cluster(directory: Path, **how: Any) -> Iterator[ClusterProcess]:
    """Run relays for as long as somebody takes them, and find at the end that nothing went wrong."""
    running = ClusterProcess(directory, **how)
    try:
        yield running
        running.check()
    finally:
        running.close()
