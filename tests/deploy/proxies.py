"""The proxies of deploy/, run for real: the shipped files, with only names, addresses, ports and paths put in."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from tests.support.certificates import NAME
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.support.certificates import Files

NAMES: Final = ("nginx", "caddy", "haproxy")
DEPLOY: Final = ROOT / "deploy"
_START: Final = 60.0


def substituted(name: str, *pairs: tuple[str, str]) -> str:
    """Return a file of deploy/ with these texts replaced, each of which has to be there."""
    text = (DEPLOY / name).read_text()
    for old, new in pairs:
        assert old in text, f"deploy/{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Proxy:
    """A proxy that ends TLS on a free port of 127.0.0.1.

    Args:
        directory: for its configuration and what it writes.
        command: how to start it.
        port: where it listens.
        environment: further variables.
    """

    def __init__(
        self, directory: Path, command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self._log = directory / "proxy.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, "HOME": str(directory), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"the proxy does not listen:\n{self.output}") from None
                time.sleep(0.02)
            else:
                return

    @property
    def output(self) -> str:
        """All that it printed."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def nginx(directory: Path, files: Files, upstream: str) -> Proxy:
    """Start nginx with deploy/nginx.conf as its only site, in front of ``127.0.0.1:PORT`` or ``unix:PATH``."""
    port = free_port()
    site = substituted(
        "nginx.conf",
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("listen [::]:443 ssl;", ""),
        ("server 127.0.0.1:8090;", f"server {upstream};"),
        ("/etc/ssl/relay.example/fullchain.pem", str(files.chain)),
        ("/etc/ssl/relay.example/privkey.pem", str(files.key)),
        ("/var/log/nginx/blindrelay.log", str(directory / "error.log")),
    )
    (directory / "site").write_text(site)
    temporary = "".join(
        f"{name}_temp_path {directory};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {directory}/pid;\nerror_log {directory}/main.log;\n"
        f"events {{ worker_connections 512; }}\n"
        f"http {{\naccess_log off;\n{temporary}include {directory}/site;\n}}\n"
    )
    return Proxy(directory, ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")], port)


def caddy(directory: Path, files: Files, upstream: str) -> Proxy:
    """Start Caddy with deploy/Caddyfile; ports 80 and 2019 are left alone."""
    port = free_port()
    upstream = upstream.replace("unix:", "unix/")
    config = substituted(
        "Caddyfile",
        ("{\n\tlog default", "{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\tlog default"),
        ("# tls ", "tls "),
        ("/etc/ssl/relay.example/fullchain.pem", str(files.chain)),
        ("/etc/ssl/relay.example/privkey.pem", str(files.key)),
    )
    (directory / "Caddyfile").write_text(config)
    environment = {"BLINDRELAY_HOST": f"https://{NAME}:{port}", "BLINDRELAY_UPSTREAM": upstream}
    command = ["caddy", "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]
    environment |= {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    return Proxy(directory, command, port, environment)


def haproxy(directory: Path, files: Files, upstream: str) -> Proxy:
    """Start HAProxy with deploy/haproxy.cfg; the relay has to expect PROXY headers."""
    port = free_port()
    pem = directory / "haproxy.pem"
    pem.touch(0o600)
    pem.write_bytes(files.chain.read_bytes() + files.key.read_bytes())
    config = substituted(
        "haproxy.cfg",
        ("bind :443 ", f"bind 127.0.0.1:{port} "),
        ("    bind :::443 v6only ssl crt /etc/haproxy/relay.example.pem alpn http/1.1\n", ""),
        ("/etc/haproxy/relay.example.pem", str(pem)),
        ("server relay 127.0.0.1:8090", f"server relay {upstream.replace('unix:', 'unix@')}"),
        ("maxconn 100000", "maxconn 200"),
    )
    (directory / "haproxy.cfg").write_text(config)
    return Proxy(directory, ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")], port)
