"""``doctor``: what it finds, and that each thing that can be wrong is found."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keys.files import ClientKeys
from keys.identity import Identity, PublicIdentity
from keys.invite import RelayCard
from peers.chat.doctor import DoctorOptions, run
from peers.chat.exits import Exit
from peers.client import RelayClient
from peers.profile import Profile
from peers.store import contacts, feed
from tests.peers.chat.profiles import CHEAP, PASSPHRASE, card, environment, in_store, make_profile, printed
from tests.support.certificates import make_certificate, trusting
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKS = ["versions", "environment", "profile", "keys", "store", "disk", "carrier", "dns", "tcp", "tls", "info"]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home")


def card_of(relay: RelayProcess, url: str | None = None) -> RelayCard:
    return RelayCard(relay.public, url or relay.url)


class Findings:
    """What a doctor printed."""

    def __init__(self, status: int, records: list[dict[str, Any]]) -> None:
        self.status = status
        self.records = records

    def __getitem__(self, check: str) -> dict[str, Any]:
        (found,) = [record for record in self.records if record["check"] == check]
        return found

    def failed(self) -> list[str]:
        return [record["check"] for record in self.records if record["status"] == "fail"]

    def warned(self) -> set[str]:
        return {record["check"] for record in self.records if record["status"] == "warn"} - {"environment"}


@pytest.fixture
def doctor(home: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Any:
    def look(**more: Any) -> Findings:
        capsys.readouterr()
        options = {"environ": home, "json": True, "timeout": 5.0, **more}
        status = run(DoctorOptions(**options))
        records, errors = printed(capsys)
        assert errors == []
        for record in records:
            assert record["status"] in ("ok", "warn", "fail")
            assert record["text"].isprintable()
            assert record["status"] == "ok" or record.get("fix", "?")
        return Findings(status, records)

    return look


# --- All is well ------------------------------------------------------------------------------------------------------


def test_all_is_well(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    profile = make_profile(home, relay=card_of(relay))
    in_store(profile, contacts.add, 1, Identity.generate().public, nickname="Bob")
    before = {path: path.read_bytes() for path in profile.directory.iterdir() if path.is_file()}
    found = doctor()
    assert (found.status, found.failed(), found.warned()) == (0, [], set())
    assert [record["check"] for record in found.records] == [*CHECKS, "clock", "session", "latency", "subscriptions"]
    assert found["store"]["contacts"] == 1
    assert found["info"]["keys_equal"] is True
    assert found["session"]["as_profile"] is True
    assert 0 < found["latency"]["milliseconds"] < 10_000
    assert found["subscriptions"]["most"] >= 1000
    assert found["carrier"]["other"] is False
    # Nothing was changed, and the lock is free again.
    after = {path: path.read_bytes() for path in profile.directory.iterdir() if path.is_file()}
    assert {path: raw for path, raw in after.items() if path in before} == before
    assert {path.name for path in after.keys() - before.keys()} <= {"lock", "store.db-shm", "store.db-wal"}
    with profile.lock():
        pass


def test_lines_for_people(
    relay: RelayProcess, home: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_profile(home, relay=card_of(relay))
    assert run(DoctorOptions(environ=home)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert any(line.startswith("ok    session        open after ") for line in lines)
    assert "\x1b" not in out
    assert run(DoctorOptions(profile="missing", environ=home)) == Exit.NOT_FOUND
    out, err = capsys.readouterr()
    assert "FAIL  profile        there is no profile missing" in out
    assert out.rstrip().splitlines()[-1].startswith("1 failed, ")
    assert run(DoctorOptions(profile="../x", environ=home)) == Exit.USAGE
    assert "a profile's name" in capsys.readouterr().err


# --- On this machine --------------------------------------------------------------------------------------------------


def test_a_profile_that_is_open_to_others(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    profile = make_profile(home, relay=card_of(relay))
    profile.settings_path.chmod(0o644)
    found = doctor()
    assert (found.status, found["profile"]["status"]) == (0, "warn")
    assert "chmod -R go= " in found["profile"]["fix"]
    profile.directory.chmod(0o755)
    found = doctor()
    assert (found.status, found.failed()) == (Exit.USAGE, ["profile"])
    assert "chmod 700" in found["profile"]["text"]


def test_what_a_killed_program_left_is_named(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    profile = make_profile(home, relay=card_of(relay))
    (profile.directory / ".export.1234.tmp").mkdir(0o700)
    assert ".export.1234.tmp" in doctor()["profile"]["fix"]


def test_a_damaged_store(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    profile = make_profile(home, relay=card_of(relay))
    in_store(profile, contacts.everyone)
    raw = bytearray(profile.store_path.read_bytes())
    raw[8192:] = b"\xff" * (len(raw) - 8192)
    profile.store_path.write_bytes(raw)
    found = doctor()
    assert (found.status, found.failed()) == (Exit.USAGE, ["store"])
    profile.store_path.write_bytes(b"not a data base at all" * 1000)
    assert doctor().failed() == ["store"]
    profile.store_path.unlink()
    with closing(sqlite3.connect(profile.store_path)) as other:
        other.execute("CREATE TABLE theirs (x)")
    assert "not the store" in doctor()["store"]["text"]


def test_keys_that_are_broken_or_sealed(relay: RelayProcess, home: dict[str, str], tmp_path: Path, doctor: Any) -> None:
    keys = ClientKeys(Identity.generate(), "Alice")
    profile = Profile.create("sealed", keys, card_of(relay), PASSPHRASE, environ=home, cost=CHEAP)
    found = doctor(profile="sealed")
    assert (found.status, found["keys"]["sealed"], found["session"]["as_profile"]) == (0, True, True)
    wrong = {**home, "BLINDRELAY_PASSPHRASE_FILE": environment(tmp_path / "x", "no")["BLINDRELAY_PASSPHRASE_FILE"]}
    found = doctor(profile="sealed", environ=wrong)
    assert (found.status, found.failed(), found["session"]["as_profile"]) == (Exit.USAGE, ["keys"], False)
    nobody = {**home, "BLINDRELAY_PASSPHRASE_FILE": str(tmp_path / "missing")}
    found = doctor(profile="sealed", environ=nobody)
    assert (found.status, found["keys"]["status"], found["session"]["as_profile"]) == (0, "warn", False)
    profile.identity_path.write_text("x25519_secret = 7\n")
    assert doctor(profile="sealed").failed() == ["keys"]


def test_oddities_of_the_environment(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    make_profile(home, relay=card_of(relay))
    secret = "http://user:password@proxy.example"
    odd = {**home, "https_proxy": secret, "SSLKEYLOGFILE": "/x", "SSL_CERT_FILE": "/y", "no_proxy": ""}
    found = doctor(environ=odd)["environment"]
    assert found["status"] == "warn"
    for name in ("https_proxy", "SSLKEYLOGFILE", "SSL_CERT_FILE"):
        assert name in found["text"]
    assert "password" not in json.dumps(found)
    assert "no_proxy" not in found["text"]


# --- Who carries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status", "expected"), [("connected", "ok", 0), ("waiting", "warn", 0), ("refused", "fail", Exit.REFUSED)]
)
def test_while_another_program_carries(
    relay: RelayProcess, home: dict[str, str], doctor: Any, state: str, status: str, expected: int
) -> None:
    profile = make_profile(home, relay=card_of(relay))
    in_store(profile, feed.set_connection, 1, state, text="what \x1b it said")
    with profile.lock():
        found = doctor()
    assert (found.status, found["carrier"]["status"], found["carrier"]["state"]) == (expected, status, state)
    assert found["session"]["as_profile"] is False  # it does not push the other one out


def test_an_identity_that_is_used_elsewhere(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    profile = make_profile(home, relay=card_of(relay))
    identity = profile.read_keys().identity
    ready, done = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        async with RelayClient(identity, card_of(relay)) as client:
            await client.connected(60)
            ready.set()
            await asyncio.to_thread(done.wait, 60)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    try:
        assert ready.wait(60)
        found = doctor()
    finally:
        done.set()
        thread.join()
    assert (found.status, found.failed(), found["session"]["id_in_use"]) == (Exit.REFUSED, ["session"], True)


# --- The relay --------------------------------------------------------------------------------------------------------


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_relay_that_is_down(home: dict[str, str], doctor: Any) -> None:
    make_profile(home, relay=card(f"ws://127.0.0.1:{unused_port()}/ws"))
    found = doctor()
    assert (found.status, found.failed()) == (Exit.NOT_IN_TIME, ["tcp"])
    assert found.records[-1]["check"] == "tcp"


def test_a_name_that_does_not_exist(home: dict[str, str], doctor: Any) -> None:
    make_profile(home, relay=card("ws://relay.invalid/ws"))
    found = doctor(environ={name: value for name, value in home.items() if "proxy" not in name.lower()})
    assert found.status == Exit.NOT_IN_TIME
    assert found.records[-1]["check"] in ("dns", "route", "session")
    assert "relay.invalid" in json.dumps(found.records)


def test_other_keys_than_the_card(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    make_profile(home, relay=RelayCard(Identity.generate().public, relay.url))
    found = doctor()
    assert (found.status, found.failed()) == (Exit.REFUSED, ["info", "session"])
    assert "other keys" in found["session"]["text"]
    # One of the two keys alone.
    public = PublicIdentity(relay.public.x_pub, Identity.generate().public.ed_pub)
    make_profile(home, "half", relay=RelayCard(public, relay.url))
    assert doctor(profile="half").failed() == ["info", "session"]


def test_more_contacts_than_the_relay_tells_of(tmp_path: Path, home: dict[str, str], doctor: Any) -> None:
    relay = RelayProcess(tmp_path, limits={"subscriptions": 2})
    profile = make_profile(home, relay=card_of(relay))
    for _ in range(3):
        in_store(profile, contacts.add, 1, Identity.generate().public)
    found = doctor()
    assert (found.status, found["subscriptions"]["status"]) == (0, "warn")
    assert (found["subscriptions"]["contacts"], found["subscriptions"]["most"]) == (3, 2)
    relay.check()


def test_a_relay_with_tokens(tmp_path: Path, home: dict[str, str], doctor: Any) -> None:
    token = "abcdefghij0123456789"
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{token}\n")
    tokens.chmod(0o600)
    relay = RelayProcess(tmp_path, arguments=["--token-file", str(tokens)])
    profile = make_profile(home, relay=card_of(relay))
    found = doctor()
    assert (found.status, found.failed()) == (Exit.REFUSED, ["session"])
    assert "admission token" in found["session"]["text"]
    mine = profile.directory / "relay.token"
    mine.write_text(f"{token}\n")
    mine.chmod(0o600)
    profile.write_settings(replace(profile.settings(), token_file=Path("relay.token")))
    found = doctor()
    assert (found.status, found.failed()) == (0, [])
    assert token not in json.dumps(found.records)
    relay.check()


def test_tls(tmp_path: Path, home: dict[str, str], doctor: Any) -> None:
    files = make_certificate(tmp_path)
    relay = RelayProcess(tmp_path, arguments=["--tls-cert", str(files.chain), "--tls-key", str(files.key)])
    make_profile(home, relay=card_of(relay))
    found = doctor(trust=trusting(files))
    assert (found.status, found.failed(), found.warned()) == (0, [], set())
    assert found["tls"]["days_left"] in (29, 30)
    # Nobody has signed it whom this machine trusts.
    found = doctor()
    assert (found.status, found.failed()) == (Exit.NOT_IN_TIME, ["tls"])
    assert "not trusted" in found["tls"]["text"]
    make_profile(home, "plain", relay=card_of(relay, relay.url.replace("wss:", "ws:")))
    assert doctor(profile="plain").status == Exit.NOT_IN_TIME
    relay.check()


def test_tls_that_is_none(relay: RelayProcess, home: dict[str, str], doctor: Any) -> None:
    make_profile(home, relay=card_of(relay, relay.url.replace("ws:", "wss:")))
    found = doctor()
    assert (found.status, found.failed()) == (Exit.NOT_IN_TIME, ["tls"])


# --- What says it is a relay ------------------------------------------------------------------------------------------


@contextmanager
def web(
    body: bytes | None, *, ahead: float = 0.0, date: str | None = None, location: str | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A web server that answers everything alike, and opens no WebSocket. Yields its address, and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response_only(302 if location else 404 if body is None else 200)
            when = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
            if date != "":
                self.send_header("Date", date or when)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{server.server_port}/relay/ws?token=secret", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def info(public: PublicIdentity, **more: Any) -> bytes:
    fields = {"x25519_public": public.x_pub.hex(), "ed25519_public": public.ed_pub.hex(), "protocol_versions": [2]}
    return json.dumps({**fields, **more}).encode()


@pytest.mark.parametrize(("ahead", "word"), [(0.0, ""), (30.0, ""), (-3600.0, "ahead of"), (86400.0, "behind")])
def test_the_clock(home: dict[str, str], doctor: Any, ahead: float, word: str) -> None:
    with web(b"{}", ahead=ahead) as (url, _):
        make_profile(home, relay=card(url))
        found = doctor()["clock"]
    assert found["status"] == ("warn" if word else "ok")
    assert abs(found["skew"] - ahead) < 20
    assert word in found["text"]


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Jan 2026 99:99:99 GMT"])
def test_a_clock_that_cannot_be_read(home: dict[str, str], doctor: Any, date: str) -> None:
    with web(b"{}", date=date) as (url, _):
        make_profile(home, relay=card(url))
        assert doctor()["clock"]["status"] == "warn"


def test_what_is_asked_of_the_relay(home: dict[str, str], doctor: Any) -> None:
    public = Identity.generate().public
    with web(info(public, software="x\x1b[2J", version=7, notice="it ends\nsoon \x07")) as (url, asked):
        make_profile(home, relay=RelayCard(public, url))
        found = doctor()
    # Beside the WebSocket, and without the query, which only the WebSocket is to see.
    assert asked[0] == "/relay/info"
    assert found["info"]["status"] == "ok"
    assert found["notice"]["text"] == "its operator says: it ends soon"
    assert (found.status, found.failed()) == (Exit.NOT_IN_TIME, ["session"])
    assert "secret" not in json.dumps(found.records)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, "warn"),
        (b"", "warn"),
        (b"<html>", "warn"),
        (b"[" * 50_000, "warn"),
        (b"[]", "warn"),
        (b'{"a": "' + b"x" * 100_000 + b'"}', "warn"),
        (b"{}", "ok"),
        (b'{"limits": 7, "notice": 7, "protocol_versions": {}}', "ok"),
        (b'{"x25519_public": "00"}', "fail"),
        (b'{"protocol_versions": [3]}', "fail"),
        (b'{"protocol_versions": [1]}', "fail"),
    ],
)
def test_what_foreign_relays_say(home: dict[str, str], doctor: Any, body: bytes | None, status: str) -> None:
    with web(body) as (url, _):
        make_profile(home, relay=card(url))
        found = doctor()
    assert found["info"]["status"] == status
    assert found.status == (Exit.REFUSED if status == "fail" else Exit.NOT_IN_TIME)


def test_nobody_sends_the_doctor_elsewhere(home: dict[str, str], doctor: Any) -> None:
    with web(b"{}") as (elsewhere, asked), web(b"", location=elsewhere.replace("ws:", "http:")) as (url, _):
        make_profile(home, relay=card(url))
        found = doctor()
    assert found["info"]["status"] == "warn"
    assert asked == []
