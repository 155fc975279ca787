"""NATS servers and relays as processes of their own, all on loopback."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.clients import Clients, Door
from tests.support.relay_process import RelayProcess
from tests.support.wires import Wires

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.support.wires import Wire

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


_WIRED: Final = """
listen: "127.0.0.1:{port}"
server_name: "nats-{index}"
cluster {{
  name: test
  listen: "127.0.0.1:{route}"
  # They tell each other where they are, and would go past the wires: port 1 is nobody's.
  advertise: "127.0.0.1:1"
  no_advertise: true
  routes: [{routes}]
  # A wire that is cut and says nothing is noticed in a second or two, not in a minute.
  ping_interval: "500ms"
  ping_max: 2
}}
"""


class Nats:
    """NATS servers that are one cluster.

    Args:
        directory: for their output.
        count: how many.
        wires: lays the ways between them, and to them, which can then be cut.
    """

    def __init__(self, directory: Path, count: int = 3, wires: Wires | None = None) -> None:
        ports = free_ports(2 * count)
        self.ports, self._routes = ports[:count], ports[count:]
        self._directory = directory
        self.doors: list[Wire] = []
        """To the servers, for those who are no servers."""
        self.between: dict[tuple[int, int], Wire] = {}
        """From server to server; each may call the other."""
        if wires is not None:
            self.doors = [wires.lay(port) for port in self.ports]
            for caller in range(count):
                for called in set(range(count)) - {caller}:
                    self.between[caller, called] = wires.lay(self._routes[called])
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count
        for index in range(count):
            self.start(index)

    def url(self, index: int) -> str:
        port = self.doors[index].port if self.doors else self.ports[index]
        return f"nats://127.0.0.1:{port}"

    def cut(self, one: int, other: int, *, silent: bool) -> None:
        """Cut the ways between two servers."""
        self.between[one, other].cut(silent=silent)
        self.between[other, one].cut(silent=silent)

    def split(self, side: Collection[int], *, silent: bool) -> None:
        """Cut these servers off from the others."""
        for caller, called in self.between:
            if (caller in side) != (called in side):
                self.between[caller, called].cut(silent=silent)

    def heal(self) -> None:
        """Mend all that was cut."""
        for wire in [*self.between.values(), *self.doors]:
            wire.heal()

    def routes_lost(self, index: int) -> int:
        """Return how many connections to other servers a server has lost so far."""
        return (self._directory / f"nats-{index}").read_text().count("Router connection closed")

    def _arguments(self, index: int) -> list[str]:
        if self.between:
            called = [self.between[index, other].port for other in range(len(self.ports)) if other != index]
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in called)
            text = _WIRED.format(port=self.ports[index], index=index, route=self._routes[index], routes=routes)
            file = self._directory / f"nats-{index}.conf"
            file.write_text(text)
            return ["-c", str(file)]
        arguments = ["-a", "127.0.0.1", "-p", str(self.ports[index]), "-n", f"nats-{index}"]
        if len(self.ports) > 1:
            routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
            own = f"nats://127.0.0.1:{self._routes[index]}"
            arguments += ["--cluster_name", "test", "--cluster", own, "--routes", routes]
            arguments += ["--no_advertise"]
        return arguments

    def start(self, index: int) -> None:
        """Start a server, or start it again."""
        self.run(index, [str(PROGRAM), *self._arguments(index)])

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
        wires: for the ways between the NATS servers, and from the relays to them.
        how: as for :class:`RelayProcess`.
    """

    def __init__(
        self,
        directory: Path,
        count: int = 3,
        servers: int | None = None,
        nats: Nats | None = None,
        wires: Wires | None = None,
        **how: Any,
    ) -> None:
        self.directory = directory
        self.nats = nats or Nats(directory, servers or count, wires)
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

    def ready(self, index: int) -> str:
        """Return what one of the relays says at `/readyz`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.relays[index].port}/readyz", timeout=30) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

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


def wired_cluster(directory: Path, **how: Any) -> Iterator[ClusterProcess]:
    """Run a cluster with wires that can be cut, for a fixture; nothing may be warned of but what a cut brings about."""
    wires = Wires()
    may_warn = ("cluster_node_gone", "cluster_unreachable")
    try:
        yield from cluster(directory, wires=wires, may_warn=may_warn, **how)
    finally:
        wires.close()
