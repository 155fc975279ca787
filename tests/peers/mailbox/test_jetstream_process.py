"""The mailbox as a process above a stream of a real nats-server: settings, kill -9, trouble."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from peers.mailbox.__main__ import main
from peers.mailbox.jetstream_settings import JetStreamSettings
from peers.mailbox.keyfile import mint
from peers.mailbox.settings import load
from tests.peers.mailbox.lab import BOB, asked, contents
from tests.peers.mailbox.nats import Nats
from tests.peers.mailbox.running import MailboxProcess
from tests.support.clients import WAIT, run_async
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire.mailbox_codes import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    server = Nats(
        tmp_path_factory.mktemp("nats"),
        sync="always",
        more='authorization { user: "box", password: "a password of the test" }',
    )
    yield server
    server.stop()


def flags(tmp_path: Path, nats: Nats) -> tuple[str, ...]:
    """What an operator says of a server that asks for a password."""
    password = tmp_path / "password"
    password.write_text("a password of the test\n")
    password.chmod(0o600)
    name = tmp_path.name.replace(".", "_")
    named = {
        "servers": nats.url,
        "monitoring": nats.monitoring,
        "user": "box",
        "password-file": str(password),
        "stream": f"T{name}",
        "prefix": f"box.{name}",
    }
    return ("--store", "jetstream", *(part for key, value in named.items() for part in (f"--nats.{key}", value)))


@asynccontextmanager
async def started(directory: Path, arguments: tuple[str, ...]) -> AsyncIterator[MailboxProcess]:
    box = MailboxProcess(directory, arguments=arguments)
    try:
        await box.logged("started")
        yield box
    finally:
        box.kill()


@run_async
async def test_what_was_confirmed_outlives_kill_9_and_is_handed_out_once_acknowledged_no_more(
    tmp_path: Path, nats: Nats
) -> None:
    how = flags(tmp_path, nats)
    async with started(tmp_path / "box", how) as box, await box.asker() as http:
        for number in range(5):
            assert isinstance(await http.says(asked(number)), answers.Kept)
        lease = await http.says(asks.Fetch(0, 2), BOB)
        assert contents(lease) == [0, 1]
        assert await http.says(asks.Ack(0, (lease.items[0].number,)), BOB) == answers.Acked(0, 1)
        box.kill()
    assert not list((tmp_path / "box").glob("*.db")), "nothing is kept beside the stream"
    async with started(tmp_path / "box", how) as box, await box.asker() as http:
        assert contents(await http.says(asks.Fetch(0, 10), BOB)) == [1, 2, 3, 4]
        assert (await box.page("/readyz"))[0] == 200
        assert "a password of the test" not in box.output
        await box.stop()


@run_async
async def test_nats_goes_and_comes_back(tmp_path: Path) -> None:
    server = Nats(tmp_path / "nats")
    how = ("--store", "jetstream", "--nats.servers", server.url, "--no-nats.require-sync")
    try:
        async with started(tmp_path / "box", how) as box, await box.asker() as http:
            assert isinstance(await http.says(asked(1)), answers.Kept)
            server.kill()
            assert (await http.says(asked(2))).reason == Reason.FAILED
            server.start()
            async with asyncio.timeout(WAIT):
                # Nothing else of this process tells that the connection is back.
                while not isinstance(await http.says(asked(3)), answers.Kept):  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.05)
            assert contents(await http.says(asks.Fetch(0, 10), BOB)) == [1, 3]
            await box.stop()
    finally:
        server.stop()


def test_settings_reach_the_store(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "store": "jetstream",
        "nats.servers": "tls://a:4222, tls://b:4222",
        "nats.monitoring": "http://a:8222,http://b:8222,http://c:8222",
        "nats.credentials": str(tmp_path / "box.creds"),
        "nats.ca": str(tmp_path / "ca.pem"),
        "nats.replicas": "3",
        "nats.max_bytes": "1000000",
        "nats.overwrite": "false",
    }
    settings = load({}, {f"BLINDRELAY_MAILBOX_{key.upper().replace('.', '_')}": value for key, value in given.items()})
    assert settings.settings.nats == JetStreamSettings(
        "tls://a:4222,tls://b:4222",
        credentials=tmp_path / "box.creds",
        ca=tmp_path / "ca.pem",
        replicas=3,
        max_bytes=1_000_000,
        overwrite=False,
        monitoring="http://a:8222,http://b:8222,http://c:8222",
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--nats.servers", "http://127.0.0.1:1"], "nats://HOST:PORT"),
        (["--nats.servers", "nats://127.0.0.1:1"], "is it running"),
        (["--nats.replicas", "2"], "replicas"),
        (["--nats.credentials", "{0}/none"], "no NATS credentials"),
        (["--nats.user", "box", "--nats.password-file", "{0}/open"], "chmod 600"),
        (["--nats.ca", "{0}/none"], "TLS files"),
        (["--nats.key", "{0}/none"], "both or none"),
    ],
)
def test_what_cannot_be_is_told_in_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    mint(tmp_path)
    (tmp_path / "open").write_text("a password of the test")
    (tmp_path / "open").chmod(0o644)
    usual = ["--data-dir", str(tmp_path), "--http", "127.0.0.1:0", "--http-url", "http://box.example"]
    filled = [each.format(tmp_path) for each in arguments]
    status = main(["run", "--store", "jetstream", "--no-nats.require-sync", "--admin", "off", *usual, *filled])
    output = capfd.readouterr()
    assert status != 0
    assert told in output.err
    assert "a password of the test" not in output.out + output.err


@pytest.mark.parametrize("command", ["stats", "prune", "backup"])
def test_tools_for_the_file_say_that_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    mint(tmp_path)
    to = [str(tmp_path / "copy")] if command == "backup" else []
    assert main([command, "--data-dir", str(tmp_path), "--store", "jetstream", *to]) == 2
    assert "in a stream of NATS" in capsys.readouterr().err
