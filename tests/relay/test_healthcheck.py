"""`python -m relay.healthcheck`, against servers that are not the relay."""

import http.server
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import healthcheck
from relay.proxy_header import LOCAL
from relay.settings import PREFIX
from tests.support.certificates import make_certificate


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" and self.server.healthy else 503)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method that is replaced
        pass


class Server(http.server.HTTPServer):
    healthy = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", [None, "127.0.0.1", "0.0.0.0"])  # noqa: S104 - where a relay may listen
def test_a_relay_that_answers(host: str | None, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PORT", str(server.server_port))
    if host is not None:
        monkeypatch.setenv("RELAY_HOST", host)
    assert healthcheck.main() == 0


def test_a_relay_that_is_not_well(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.healthy = False
    monkeypatch.setenv("RELAY_PORT", str(server.server_port))
    assert healthcheck.main() == 1


def test_no_relay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RELAY_PORT", "1")
    assert healthcheck.main() == 1
    assert "port 1" in capsys.readouterr().err


def test_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RELAY_PORT", "x")
    assert healthcheck.main() == 2
    assert "RELAY_PORT" in capsys.readouterr().err


def test_a_file_that_was_edited_since_does_not_make_a_relay_look_dead(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "relay.toml").write_text(f"port = {server.server_port}")
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path))
    assert healthcheck.main() == 0
    (tmp_path / "relay.toml").write_text("prot = 1")
    monkeypatch.setenv("RELAY_PORT", str(server.server_port))
    assert healthcheck.main() == 0
    server.healthy = False
    assert healthcheck.main() == 1


class OneAnswer:
    """Takes one connection, reads up to the end of a request and says that all is well."""

    def __init__(self, listening: socket.socket) -> None:
        self.read = b""
        self._listening = listening
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            connection.settimeout(10)
            # Not the first empty line: the signature of a PROXY header has one too, and may come by itself.
            while not (b"HTTP/1.1" in self.read and self.read.endswith(b"\r\n\r\n")):
                data = connection.recv(4096)
                if not data:
                    break
                self.read += data
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def __enter__(self) -> "OneAnswer":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(15)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("url", [None, "wss://relay.example/ws"])
def test_a_relay_at_a_unix_socket_does_not_look_dead_either(
    url: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "relay.toml").write_text("prot = 1")
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RELAY_UNIX_SOCKET", str(tmp_path / "s"))
    monkeypatch.setenv("RELAY_PROXY_PROTOCOL", "true")
    if url is not None:
        monkeypatch.setenv("RELAY_URL", url)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        assert healthcheck.main() == 1, "nobody listens yet"
        listening.listen()
        listening.settimeout(10)
        with OneAnswer(listening) as answer:
            assert healthcheck.main() == 0
    assert answer.read.startswith(LOCAL + b"GET /healthz ")


@pytest.mark.parametrize("names", [("CERT", "KEY"), ("CERT",), ("KEY",)])
def test_a_relay_with_tls_does_not_look_dead_either(
    names: tuple[str, ...], server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    (tmp_path / "relay.toml").write_text("prot = 1")
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RELAY_PORT", str(server.server_port))
    for name in names:
        monkeypatch.setenv(f"RELAY_TLS_{name}", str(files.chain))
    assert healthcheck.main() == 0
