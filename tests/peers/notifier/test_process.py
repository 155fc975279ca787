"""The whole way over real sockets: a relay, clients, the notifier as a process, and a push server."""

from __future__ import annotations

import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from keys.identity import Identity
from peers.notifier.keyfile import mint, read_notifier_identity
from peers.notifier.process import REGISTRY_FILE
from tests.integration.test_secrecy_process import find_spelling
from tests.peers.notifier.running import NotifierProcess, PushServer
from tests.support.clients import Clients, run_async
from tests.support.relay_process import RelayProcess, running_relay
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

UNLIMITED = {
    "wakes_per_second": 0,
    "wakes_pair_per_second": 0,
    "wakes_target_per_second": 0,
    "commands_per_second": 0,
    "frames_per_second": 0,
    "bytes_per_second": 0,
}
ENDPOINT = c.PushKind.UNIFIED_PUSH


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The notifier's data directory, with its keys."""
    directory = tmp_path / "notifier"
    mint(directory)
    return directory


@pytest.fixture
def relay(tmp_path: Path, home: Path) -> Iterator[RelayProcess]:
    """A relay that knows this notifier."""
    with running_relay(tmp_path / "relay", notifier_id=read_notifier_identity(home).id, limits=UNLIMITED) as running:
        yield running


@asynccontextmanager
async def started(
    home: Path, relay: RelayProcess | None, server: PushServer, **how: Any
) -> AsyncIterator[NotifierProcess]:
    """A notifier that is killed at the end, if nobody ended it before."""
    notifier = NotifierProcess(home, relay, server, **how)
    try:
        yield notifier
    finally:
        notifier.kill()


@run_async
async def test_a_registration_and_a_wake_become_a_push(home: Path, relay: RelayProcess) -> None:
    async with PushServer() as server, started(home, relay, server) as notifier, Clients(relay) as clients:
        await notifier.connected()
        alice, bob = await clients.open(), await clients.open()
        await bob.command(c.PushRegister(ENDPOINT, server.endpoint("bob")))
        await notifier.reaches(1, "registration_events_total", outcome="added")
        await bob.close()
        await alice.command(c.Wake(bob.id, c.WakeType.CALL))
        await server.has(1)
        ((name, headers, body),) = server.posts
        assert name == "bob"
        assert headers["Urgency"] == "high"
        assert json.loads(body)["type"] == "call"
        for secret in (alice.id, bob.id, notifier.identity.id):
            assert find_spelling(secret, repr((headers, body)).encode()) is None
        await notifier.reaches(1, "pushes_total", channel="unifiedpush", type="call", outcome="sent")
        assert await notifier.page("/readyz") == (200, "ready\n")
        assert await notifier.page("/healthz") == (200, "ok\n")
        told = json.loads((await notifier.page("/status"))[1])
        assert (told["relay_connected"], told["channels"]) == (True, ["webpush", "unifiedpush"])
        assert await notifier.figure("latency_seconds_count", channel="unifiedpush", type="call") == 1
        await notifier.stop()
        assert notifier.events()[0] == "started"
        assert notifier.records[-1] == {**notifier.records[-1], "event": "stopped", "given_up": 0}


@run_async
async def test_a_registration_outlives_kill_9(home: Path, relay: RelayProcess) -> None:
    async with PushServer() as server, Clients(relay) as clients:
        alice, bob = await clients.open(), Identity.generate()
        async with started(home, relay, server) as notifier:
            await notifier.connected()
            people = [await clients.open() for _ in range(20)]
            for number, each in enumerate([*people, await clients.open(bob)]):
                await each.command(c.PushRegister(ENDPOINT, server.endpoint(f"{number}")))
                await each.close()
            await notifier.reaches(21, "registration_events_total", outcome="added")
            notifier.kill()
        async with started(home, relay, server) as notifier:
            await notifier.connected()
            await alice.command(c.Wake(bob.id))
            await server.has(1)
            for each in people:
                await alice.command(c.Wake(each.id))
            await server.has(21)
            assert sorted(server.names) == sorted(str(number) for number in range(21))
            await notifier.stop()


@run_async
async def test_whenever_it_is_killed_what_it_counted_is_kept(home: Path, relay: RelayProcess) -> None:
    """It is killed while registrations pour in: each that it had counted must be there afterwards."""
    async with PushServer() as server, Clients(relay) as clients:
        alice = await clients.open()
        people = [await clients.open() for _ in range(60)]
        async with started(home, relay, server) as notifier:
            await notifier.connected()
            for number, each in enumerate(people):
                await each.command(c.PushRegister(ENDPOINT, server.endpoint(f"{number}")))
            await notifier.reaches(1, "registration_events_total", outcome="added")
            counted = int(await notifier.figure("registration_events_total", outcome="added"))
            notifier.kill()
        async with started(home, relay, server) as notifier:
            await notifier.connected()
            for each in people:
                await alice.command(c.Wake(each.id, c.WakeType.CALL))
            await server.has(counted)
            await notifier.stop()
            assert len(server.names) == len(set(server.names)) >= counted >= 1


@run_async
async def test_the_environment_and_the_registry_of_telefon(home: Path, relay: RelayProcess, tmp_path: Path) -> None:
    async with PushServer() as server, Clients(relay) as clients:
        alice, people = await clients.open(), [Identity.generate() for _ in range(3)]
        old = tmp_path / "registry.json"
        content = {
            people[0].id.hex(): [{"kind": 3, "token": f"{server.url}/zero"}],
            people[1].id.hex(): {"kind": 3, "token": f"{server.url}/one"},
            people[2].id.hex(): {"kind": 3, "token": "http://10.0.0.1/two"},
            "no id": {"kind": 3, "token": f"{server.url}/three"},
        }
        old.write_text(json.dumps(content))
        identity = read_notifier_identity(home)
        (home / "notifier.keys").unlink()
        variables = {
            "NOTIFIER_X_SEED": identity.seeds[0].hex(),
            "NOTIFIER_ED_SEED": identity.seeds[1].hex(),
            "WS_URL": relay.url,
            "NOTIFIER_SERVER_X_PUB": relay.public.x_pub.hex(),
            "NOTIFIER_SERVER_ED_PUB": relay.public.ed_pub.hex(),
            "NOTIFIER_REGISTRY": str(old),
        }
        for run in range(2):
            async with started(home, relay, server, variables=variables, card=False) as notifier:
                await notifier.connected()
                for each in people:
                    await alice.command(c.Wake(each.id, c.WakeType.CALL))
                await server.has(2 * run + 2)
                await notifier.stop()
                if run == 0:
                    imported = await notifier.logged("imported")
                    assert (imported["tokens"], imported["passed_over"]) == (2, 2)
                    problems = [line["problem"] for line in notifier.records if line["event"] == "import_problem"]
                    assert [each.partition(":")[0] for each in problems] == ["entry 3, token 1", "entry 4"]
                else:
                    assert "import_skipped" in notifier.events()
                    assert "imported" not in notifier.events()
        assert sorted(server.names) == ["one", "one", "zero", "zero"]
        assert json.loads(old.read_text()) == content


@run_async
async def test_ten_thousand_wakes_in_a_burst(home: Path, relay: RelayProcess, tmp_path: Path) -> None:
    async with PushServer() as server, Clients(relay) as clients:
        alice, people = await clients.open(), [os.urandom(8) for _ in range(10_000)]
        old = tmp_path / "registry.json"
        old.write_text(
            json.dumps({each.hex(): {"kind": 3, "token": f"{server.url}/{n}"} for n, each in enumerate(people)})
        )
        async with started(home, relay, server, variables={"NOTIFIER_REGISTRY": str(old)}) as notifier:
            await notifier.connected()
            for each in people:
                await alice.command(c.Wake(each))
            await server.has(10_000)
            assert len(set(server.names)) == 10_000
            await notifier.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@run_async
async def test_what_is_under_way_is_finished_before_the_end(
    number: signal.Signals, home: Path, relay: RelayProcess
) -> None:
    async with PushServer() as server, started(home, relay, server) as notifier, Clients(relay) as clients:
        await notifier.connected()
        bob = await clients.open()
        await bob.command(c.PushRegister(ENDPOINT, server.endpoint("bob")))
        await notifier.reaches(1, "registration_events_total", outcome="added")
        server.open.clear()
        await bob.command(c.Wake(bob.id, c.WakeType.CALL))
        await server.has(1)
        notifier.signal(number)
        await notifier.logged("stopping")
        server.open.set()
        await notifier.stop()
        assert notifier.records[-1]["given_up"] == 0
        assert len(server.posts) == 1


@run_async
async def test_an_end_does_not_wait_for_a_push_server_for_ever(home: Path, relay: RelayProcess) -> None:
    limits = ("--limits.stop", "0.2")
    async with PushServer() as server, started(home, relay, server, arguments=limits) as notifier, Clients(relay) as cs:
        await notifier.connected()
        bob = await cs.open()
        await bob.command(c.PushRegister(ENDPOINT, server.endpoint("bob")))
        await notifier.reaches(1, "registration_events_total", outcome="added")
        server.open.clear()
        await bob.command(c.Wake(bob.id, c.WakeType.CALL))
        await server.has(1)
        await notifier.stop()
        assert notifier.records[-1]["given_up"] == 1


@run_async
async def test_it_comes_back_to_a_relay_that_restarts(tmp_path: Path, home: Path, relay: RelayProcess) -> None:
    async with PushServer() as server, started(home, relay, server) as notifier:
        await notifier.connected()
        relay.signal(signal.SIGTERM)
        relay.wait()
        await notifier.logged("disconnected")
        again = RelayProcess(tmp_path / "relay", arguments=["--port", str(relay.port)])
        try:
            await notifier.reaches(2, "relay_sessions_total")
            await notifier.stop()
        finally:
            again.kill()


@run_async
async def test_one_data_directory_has_one_notifier(home: Path, relay: RelayProcess) -> None:
    async with PushServer() as server, started(home, relay, server) as first:
        await first.connected()
        async with started(home, relay, server) as second:
            assert await second.wait() == 1
            assert "another notifier runs" in second.output
        await first.stop()


@run_async
async def test_neither_its_output_nor_its_files_name_anybody(home: Path, relay: RelayProcess) -> None:
    """Whatever happens to a push: ids, tokens, endpoints and their hosts stay out of logs, metrics and files."""
    limits = ("--limits.retry-for", "0.3", "--limits.call-ttl", "1", "--log-level", "debug")
    async with PushServer() as server, started(home, relay, server, arguments=limits) as notifier, Clients(relay) as cs:
        await notifier.connected()
        pages = ""
        people = []
        for number, status in enumerate((200, 410, 429, 500, 403, 302, 413)):
            server.status, server.headers = status, {"Retry-After": "1", "Location": server.url + "/elsewhere"}
            bob = await cs.open()
            people.append(bob)
            await bob.command(c.PushRegister(ENDPOINT, server.endpoint(f"wilhelmina-{number}")))
            await bob.command(c.PushRegister(ENDPOINT, b"https://bad endpoint/wilhelmina"))
            await bob.command(c.PushRegister(c.PushKind.WEB_PUSH, b'{"endpoint": "wilhelmina"'))
            await notifier.reaches(number + 1, "registration_events_total", outcome="added")
            for kind in c.WakeType:
                await bob.command(c.Wake(bob.id, kind))
            await server.has(number + 1)
        await notifier.reaches(2 * len(people), "registration_events_total", outcome="unusable")
        for path in ("/metrics", "/status", "/readyz", "/healthz"):
            pages += (await notifier.page(path))[1]
        assert "elsewhere" not in server.names
        check_files(home, server, people, notifier, pages)
        await notifier.stop()
        check_files(home, server, people, notifier, pages)
        assert "push_refused" in notifier.events()


def check_files(home: Path, server: PushServer, people: list[Any], notifier: NotifierProcess, pages: str) -> None:
    texts = {"output": notifier.output.encode(), "pages": pages.encode()}
    assert b"stopp" in texts["output"] or b"connected" in texts["output"]
    for path in home.iterdir():
        if path.name.startswith(REGISTRY_FILE):
            texts[path.name] = path.read_bytes()
    assert REGISTRY_FILE in texts
    secrets = [b"wilhelmina", server.url.removeprefix("http://").encode(), *(each.id for each in people)]
    secrets += [each.public.ed_pub[:8] for each in people] + [seed[:8] for seed in notifier.identity.seeds]
    for name, text in texts.items():
        for secret in secrets:
            assert find_spelling(secret, text) is None, name
