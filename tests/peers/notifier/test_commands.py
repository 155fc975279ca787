"""The command line: keys, tools for the registry, health; what it prints, and its exit status."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import tomllib
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from keys.identity import Identity
from keys.invite import Invite, RelayCard
from peers.notifier.__main__ import main
from peers.notifier.breaker import Rates
from peers.notifier.channels import open_channels
from peers.notifier.keyfile import PUSH_FILE, mint, read_notifier_identity, read_push_keys
from peers.notifier.outbound import Reply
from peers.notifier.process import REGISTRY_FILE
from peers.notifier.registry import Registered, Registry
from peers.notifier.settings import NAMES, load
from peers.notifier.unifiedpush import UnifiedPush
from peers.notifier.webpush import WebPush
from peers.service.settings_sources import flag_of, is_secret
from relay.about import check_vapid_key
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CARD = RelayCard(Identity.generate().public, "ws://127.0.0.1:1/ws").text


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("NOTIFIER_", "WS_URL")):
            monkeypatch.delenv(name)
    directory = tmp_path / "state" / "notifier"
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(directory))
    return directory


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    """Give back what the commands take of a process: signals and loggers."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def registered(home: Path, *entries: tuple[bytes, int, bytes]) -> None:
    async def add() -> None:
        async with await Registry.open(home / REGISTRY_FILE, read_push_keys(home).registry) as registry:
            for entry in entries:
                await registry.add(*entry)

    mint(home)
    asyncio.run(add())


def found(home: Path, client_id: bytes) -> list[Registered]:
    async def find() -> list[Registered]:
        async with await Registry.open(home / REGISTRY_FILE, read_push_keys(home).registry) as registry:
            return (await registry.find([client_id])).get(client_id, [])

    return asyncio.run(find())


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_keygen_makes_keys_once_and_prints_what_others_are_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen"]) == 0
    first = capsys.readouterr()
    told = tomllib.loads(first.out)
    public = read_notifier_identity(home).public
    assert told["client_id"] == public.id.hex()
    assert Invite.parse(told["invite"]).public == public
    assert check_vapid_key(told["vapid_public_key"]) == read_push_keys(home).vapid.application_server_key
    assert f"--notifier-id {public.id.hex()}" in first.out
    assert first.err.count("keep a copy") == 2
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for path in home.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for value in tomllib.loads(path.read_text()).values():
            assert value == "notifier" or value not in first.out + first.err
    assert main(["keygen"]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (first.out, "")


def test_keygen_mends_half_a_set(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    before = (home / PUSH_FILE).read_bytes()
    (home / "notifier.keys").unlink()
    assert main(["keygen"]) == 0
    assert (home / PUSH_FILE).read_bytes() == before
    assert capsys.readouterr().err.count("keep a copy") == 1


def test_keygen_with_an_identity_of_the_environment(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity.generate()
    monkeypatch.setenv("NOTIFIER_X_SEED", identity.seeds[0].hex())
    monkeypatch.setenv("NOTIFIER_ED_SEED", identity.seeds[1].hex())
    assert main(["keygen"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["client_id"] == identity.id.hex()
    assert [path.name for path in home.iterdir()] == [PUSH_FILE]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("registry_secret = ", "is no TOML"),
        ("registry_secret = 'SECRET'", "registry_secret and vapid_secret, and nothing else"),
        ("registry_secret = 'SECRET'\nvapid_secret = 3", "64 hex digits"),
        (f"registry_secret = 'SECRET'\nvapid_secret = '{'00' * 32}'", "registry_secret must be 64 hex digits"),
        (f"registry_secret = '{'ab' * 32}'\nvapid_secret = '{'00' * 32}'", "vapid_secret: "),
        (f"registry_secret = '{'ab' * 32}'\nvapid_secret = '{'ff' * 32}'", "vapid_secret: "),
    ],
)
def test_push_keys_that_cannot_be_used(content: str, text: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    (home / PUSH_FILE).write_text(content)
    assert main(["check", "--relay-card", CARD, "--contact", "mailto:a@b.example"]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert str(home / PUSH_FILE) in told
    assert "SECRET" not in told


def test_push_keys_that_others_may_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    (home / PUSH_FILE).chmod(0o640)
    assert main(["check", "--relay-card", CARD]) == 2
    assert "chmod 600" in capsys.readouterr().err


# --- Settings --------------------------------------------------------------------------------------------------------


def test_check(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    assert main(["check", "--relay-card", CARD, "--contact", "mailto:ops@relay.example", "--no-webpush"]) == 0
    assert capsys.readouterr().out == "channels: unifiedpush\nok\n"
    assert {path.name for path in home.iterdir()} == {"notifier.keys", PUSH_FILE}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "no relay is named"),
        (["--relay-card", CARD], "no push service is switched on"),
        (["--relay-card", CARD, "--contact", "me"], "contact: the contact is mailto:"),
        (["--relay-card", CARD, "--contact", "mailto:a@b.example", "--allow-host", "ftp://x"], "allow_host: "),
        (["--relay-card", CARD, "--contact", "mailto:a@b.example", "--nat64", "64:ff9b::/95"], "nat64: "),
        (["--relay-card", CARD, "--fcm-account", "/nonexistent"], "fcm_account: there is no file /nonexistent"),
        (["--relay-card", CARD, "--log-level", "loud"], "log_level (--log-level): Input should be"),
        (["--relay-card"], "expected one argument"),
        (["--tokn=sEcReT"], "there is no option --tokn here"),
        (["sEcReT"], "an argument that has no place"),
    ],
)
def test_what_cannot_be_used(arguments: list[str], text: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    for command in ("check", "run"):
        assert main([command, *arguments]) == 2
        told = capsys.readouterr()
        assert text in told.err
        assert "sEcReT" not in told.err
        assert all(line.startswith(("blindrelay-notifier: ", "{")) for line in told.err.splitlines())


@pytest.mark.parametrize("arguments", [["run"], ["check"], ["registry", "count"], ["registry", "test", "00" * 8]])
def test_without_keys(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--relay-card", CARD]) == 2
    assert "`blindrelay-notifier keygen` makes it" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["keygen", "run", "check", "health", "registry count", "registry test"])
def test_help_names_every_setting_and_no_secret(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for key, info in NAMES.leaves():
        assert bool(re.search(rf"^  {flag_of(key)}\b(?!-)", told, re.MULTILINE)) is not is_secret(info), key


@pytest.mark.parametrize("arguments", [[], ["sEcReT"], ["registry"], ["registry", "sEcReT"], ["registry", "forget"]])
def test_commands_that_do_not_exist(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "sEcReT" not in capsys.readouterr().err


def test_a_relay_whose_keys_are_given_to_the_notifier(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    card = RelayCard(read_notifier_identity(home).public, "ws://127.0.0.1:1/ws").text
    assert main(["run", "--relay-card", card, "--contact", "mailto:a@b.example"]) == 2
    assert "the relay's own keys" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pywebpush.py").write_text("raise ModuleNotFoundError('hidden', name='pywebpush')")
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('hidden', name='aiohttp')")
    done = subprocess.run(
        [sys.executable, "-m", "peers.notifier", "check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "aiohttp is not installed; it comes with the extra `notifier`" in done.stderr


# --- The registry ----------------------------------------------------------------------------------------------------

ALICE = bytes.fromhex("a11ce00000000001")


def test_count_prune_and_forget(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registered(home, (ALICE, 1, b"a"), (ALICE, 2, b"b"), (b"%08d" % 1, 2, b"c"), (b"%08d" % 2, 77, b"d"))
    assert main(["registry", "count"]) == 0
    assert capsys.readouterr().out == "fcm: 1\nwebpush: 2\nkind 77: 1\ntokens: 4\nids: 3\n"
    assert main(["registry", "prune"]) == 0
    assert capsys.readouterr().out == "forgotten: 0\n"
    assert main(["registry", "prune", "--days", "0"]) == 2
    assert main(["registry", "prune", "--days", "x"]) == 2
    capsys.readouterr()
    with closing(sqlite3.connect(home / REGISTRY_FILE)) as other, other:
        other.execute("UPDATE tokens SET sealed_token = zeroblob(300) WHERE kind = 1")
    assert main(["registry", "forget", ALICE.hex().upper()]) == 0
    assert capsys.readouterr().out == "forgotten: 2\n", "one that cannot be read counts as well, for it went"
    assert found(home, ALICE) == []
    assert main(["registry", "forget", ALICE.hex()]) == 1
    assert main(["registry", "forget", "sEcReT"]) == 2
    assert "sEcReT" not in capsys.readouterr().err


def test_an_id_by_an_invite_and_from_standard_input(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bob = Identity.generate().public
    for form in (Invite(bob, "Bob").text, "-"):
        registered(home, (bob.id, 1, b"a"))
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{bob.id.hex()}\n"))
        assert main(["registry", "forget", form]) == 0
        assert capsys.readouterr().out == "forgotten: 1\n"


def test_before_there_is_a_registry(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mint(home)
    assert main(["registry", "count"]) == 2
    assert "there is no registry" in capsys.readouterr().err
    assert not (home / REGISTRY_FILE).exists()


class Answering(BaseHTTPRequestHandler):
    """Answers as its server says, and notes what came."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.paths.append((self.path, self.headers["Urgency"]))
        self.send_response(404 if "gone" in self.path else 200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"ready\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.paths = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_test_push_says_how_each_service_answered(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        options = ["--contact", "mailto:ops@relay.example", "--allow-host", url, "--relay-card", CARD]
        registered(home, (ALICE, 3, f"{url}/phone".encode()))
        assert main(["registry", "test", ALICE.hex(), *options]) == 0
        assert main(["registry", "test", ALICE.hex(), "--call", *options]) == 0
        assert capsys.readouterr().out == "unifiedpush: sent\n" * 2
        assert server.paths == [("/phone", "normal"), ("/phone", "high")]
        registered(home, (ALICE, 3, f"{url}/gone".encode()), (ALICE, 1, b"google's"))
        assert main(["registry", "test", ALICE.hex(), *options]) == 1
        assert capsys.readouterr().out == (
            "unifiedpush: sent\nunifiedpush: gone (status 404)\nfcm: this service is not switched on\n"
        )
        assert len(found(home, ALICE)) == 3, "a test changes nothing"
        assert main(["registry", "test", "ff" * 8, *options]) == 1
        assert "nothing is registered" in capsys.readouterr().out


# --- Health ----------------------------------------------------------------------------------------------------------


def test_health(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving() as server:
        assert main(["health", "--admin", f"127.0.0.1:{server.server_address[1]}"]) == 0
        assert capsys.readouterr().out == "ready\n"
        at = server.server_address[1]
    assert main(["health", "--admin", f"127.0.0.1:{at}"]) == 1
    assert capsys.readouterr().out == "the notifier does not answer\n"
    assert main(["health", "--admin", "off"]) == 2


def test_settings_are_printed_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(list(NAMES.leaves()))
    assert json.dumps(lines).count("NOTIFIER_") >= len(lines) - 2


def test_a_test_asks_for_each_device_whatever_is_known_of_its_server(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> Reply:
        return Reply(401)

    monkeypatch.setattr("peers.notifier.outbound.Outbound.post", refuse)
    registered(home, *((ALICE, 3, b"https://push.example.org/%d" % number) for number in range(10)))
    assert main(["registry", "test", ALICE.hex(), "--contact", "mailto:ops@relay.example"]) == 1
    assert [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()] == ["unifiedpush: refused"] * 10


def test_what_is_set_reaches_the_channels(home: Path) -> None:
    mint(home)
    flags = {
        "contact": "mailto:a@b.example",
        "nat64": "64:ff9b::/96",
        "limits.server_rate": 7,
        "limits.new_server_rate": 3,
    }
    channels = open_channels(load(flags, os.environ), read_push_keys(home).vapid)
    webpush, unifiedpush = channels.by_kind[2], channels.by_kind[3]
    assert isinstance(webpush, WebPush)
    assert isinstance(unifiedpush, UnifiedPush)
    assert webpush._breaker is unifiedpush._breaker, "many servers have endpoints of both kinds"
    assert webpush._breaker._rates == Rates(7, 3)
    assert channels.outbound._nat64 == (IPv6Network("64:ff9b::/96"),)
