"""`python -m relay.healthcheck`, against servers that are not the relay."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import healthcheck
from relay.settings import PREFIX


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
