"""NATS servers of several regions, and between them lines that can be cut."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from tests.support.nats_cluster import PROGRAM, Nats, free_ports
from tests.support.nats_files import configuration, gateway, leaf_accepted, leaf_opened, make_certificates, region
from tests.support.wires import Wires

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

_START: Final = 30.0


class Regions(Nats):
    """Two servers in one region and one in another, each with deploy/nats.conf and what docs/scaling.md adds to it.

    Args:
        directory: for configurations, certificates and output.
        leaf: join them by a leaf node, and not by gateways.
    """

    NAMES: Final = ("eu", "eu", "us")

    def __init__(self, directory: Path, *, leaf: bool = False) -> None:
        count = len(self.NAMES)
        make_certificates(directory)
        self._leaf = leaf
        self._directory = directory
        ports = free_ports(4 * count)
        self.ports, self._routes, self._between, self._monitors = (
            ports[start : start + count] for start in range(0, 4 * count, count)
        )
        self._wires = Wires()
        self.lines = [self._wires.lay(port) for port in self._between]
        """To each server, for those of other regions."""
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count
        try:
            for index in range(count):
                self.start(index)
            self._wait_for_each_other()
        except BaseException:
            self.close()
            raise

    def url(self, index: int) -> str:
        return f"tls://127.0.0.1:{self.ports[index]}"

    @property
    def arguments(self) -> list[str]:
        """What a relay needs to be let in."""
        files = (("ca", "ca.pem"), ("cert", "relay.pem"), ("key", "relay.key"))
        return [part for flag, name in files for part in (f"--nats-{flag}", str(self._directory / name))]

    def start(self, index: int) -> None:
        """Start a server, or start it again."""
        path = self._directory / f"nats-{index}.conf"
        path.write_text(self._configuration(index))
        environment = {
            **os.environ,
            "NATS_NAME": f"nats{index}.{self.NAMES[index]}",
            # Others are told of this address, and shall come by that line.
            "NATS_GATEWAY": f"127.0.0.1:{self.lines[index].port}",
        }
        self.run(index, [str(PROGRAM), "-c", str(path)], environment)

    def _configuration(self, index: int) -> str:
        ours = self.NAMES[index]
        conf = configuration(
            self._directory, client=self.ports[index], route=self._routes[index], monitor=self._monitors[index]
        )
        conf = region(conf, ours, [port for port, name in zip(self._routes, self.NAMES, strict=True) if name == ours])
        if self._leaf:
            if ours == self.NAMES[0]:
                return conf + leaf_accepted(self._directory, self._between[index])
            lines = [line.port for line, name in zip(self.lines, self.NAMES, strict=True) if name != ours]
            return conf + leaf_opened(self._directory, lines)
        others = {
            name: [
                port if name == ours else line.port
                for port, line, other in zip(self._between, self.lines, self.NAMES, strict=True)
                if other == name
            ]
            for name in dict.fromkeys(self.NAMES)
        }
        return conf + gateway(self._directory, ours, self._between[index], others)

    def _wait_for_each_other(self) -> None:
        deadline = time.monotonic() + _START
        while not all(self._joined(index) for index in range(len(self.NAMES))):
            assert time.monotonic() < deadline, "the NATS servers do not find each other"
            time.sleep(0.05)

    def _joined(self, index: int) -> bool:
        """Whether a server has its way to the other region; each has one, to any of the servers there."""
        (other,) = set(self.NAMES) - {self.NAMES[index]}
        if not self._leaf:
            return other in self._told(index, "gatewayz").get("outbound_gateways", {})
        # The leaf node has one connection, whichever server of the others has its other end.
        return other != self.NAMES[0] or self._told(index, "leafz").get("leafnodes") == 1

    def _told(self, index: int, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._monitors[index]}/{what}", timeout=10) as answer:
            # Nothing at all comes of a server whose connection to the other is only just being made.
            found: dict[str, Any] = json.loads(answer.read() or "{}")
        return found

    def close(self) -> None:
        """End everything; there may be nothing left."""
        super().close()
        self._wires.close()
