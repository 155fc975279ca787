"""The bus over real NATS servers: who is let in, what is said when it does not work, and that it comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from keys.identity import Identity
from keys.private_file import write_private
from relay.backplane import ClusterError, ClusterOptions, join, nats_bus, nats_client
from relay.backplane.bus import Outcome
from relay.backplane.nats_bus import NatsBus
from relay.cluster import cluster_options
from relay.core import Core
from relay.limits import Limits
from relay.settings import Settings
from tests.support.certificates import make_certificate
from tests.support.clients import eventually, run_async
from tests.support.nats_cluster import PROGRAM, free_ports
from tests.support.nats_jwt import Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

SECRET = bytes(range(32))


class Server:
    """A NATS server with a configuration of the test's."""

    def __init__(self, directory: Path) -> None:
        [self.port] = free_ports(1)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, config: str = "") -> Path:
        """Write its configuration, which it reads when it starts, and at SIGHUP."""
        path = self._directory / "nats.conf"
        path.write_text(f'host: "127.0.0.1"\nport: {self.port}\n{config}\n')
        return path

    def start(self, config: str = "") -> Server:
        path = self.configure(config)
        self._process = subprocess.Popen(
            [str(PROGRAM), "-c", str(path)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "the NATS server does not listen"
                time.sleep(0.02)
            else:
                return self

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            # All of its threads have, not only the one that was signalled.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def options(self, scheme: str = "nats", **more: Any) -> ClusterOptions:
        return ClusterOptions((f"{scheme}://127.0.0.1:{self.port}",), SECRET, **more)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.stop()


async def ask(bus: NatsBus, subject: str, within: float = 5.0) -> tuple[Outcome, bytes]:
    answer: asyncio.Future[tuple[Outcome, bytes]] = asyncio.get_running_loop().create_future()

    def answered(outcome: Outcome, data: bytes) -> bool:
        if not answer.done():
            answer.set_result((outcome, data))
        return False

    bus.request(subject, b"?", within, answered)
    return await answer


def echo(bus: NatsBus, subject: str, said: bytes) -> None:
    bus.subscribe(subject, lambda _data, reply, _subject: bus.publish(reply, said))


async def opened(*options: ClusterOptions) -> list[NatsBus]:
    buses = [NatsBus(each) for each in options]
    for bus in buses:
        await bus.connect()
    return buses


@run_async
async def test_questions(server: Server) -> None:
    server.start()
    one, two = await opened(server.options(), server.options())
    assert await ask(one, "blindrelay.id.x") == (Outcome.NO_RESPONDERS, b"")
    echo(one, "blindrelay.id.x", b"one")
    # We are not our own answer.
    assert await ask(one, "blindrelay.id.x") == (Outcome.NO_RESPONDERS, b"")  # and so the server has read the first
    assert await ask(two, "blindrelay.id.x") == (Outcome.ANSWER, b"one")
    one.unsubscribe("blindrelay.id.x")
    assert await ask(one, "blindrelay.id.y") == (Outcome.NO_RESPONDERS, b"")
    assert await ask(two, "blindrelay.id.x") == (Outcome.NO_RESPONDERS, b"")
    two.subscribe("blindrelay.id.z", lambda *_: None)
    assert await ask(two, "blindrelay.id.y") == (Outcome.NO_RESPONDERS, b"")
    assert await ask(one, "blindrelay.id.z", 0.1) == (Outcome.TIMEOUT, b"")
    await one.close()
    await two.close()
    assert await ask(two, "blindrelay.id.x") == (Outcome.LOST, b"")


@run_async
async def test_subscriptions_come_back_with_the_server(server: Server) -> None:
    server.start()
    one, two = await opened(server.options(), server.options())
    changes: list[bool] = []
    one.changed = changes.append
    echo(one, "blindrelay.id.kept", b"kept")
    echo(one, "blindrelay.id.dropped", b"dropped")
    await eventually_answered(two, "blindrelay.id.kept")
    server.stop()
    await eventually(lambda: not (one.connected or two.connected), "both notice")
    assert changes == [False]
    one.unsubscribe("blindrelay.id.dropped")
    echo(one, "blindrelay.id.new", b"new")
    one.publish("blindrelay.id.kept", b"into the void")
    server.start()
    await eventually(lambda: one.connected and two.connected, "both are back")
    assert changes == [False, True]
    await eventually_answered(two, "blindrelay.id.new")
    assert await ask(two, "blindrelay.id.kept") == (Outcome.ANSWER, b"kept")
    assert await ask(two, "blindrelay.id.dropped") == (Outcome.NO_RESPONDERS, b"")
    await one.close()
    await two.close()


@run_async
async def test_a_server_that_refuses_us_for_good_may_take_us_tomorrow(server: Server) -> None:
    """nats-py gives up where the server says that it may not; we do not."""
    users = "authorization { user: relay, password: secret }"
    server.start(users)
    options = server.options(user="relay", password="secret")
    one, two = await opened(options, options)
    echo(one, "blindrelay.id.x", b"one")
    await eventually_answered(two, "blindrelay.id.x")
    server.stop()
    server.start("authorization { user: relay, password: changed }")
    await eventually(lambda: not (one.connected or two.connected), "both notice")
    await eventually(lambda: "Authorization" in one._error or "authorization" in one._error, "it is refused")
    server.stop()
    server.start(users)
    await eventually(lambda: one.connected and two.connected, "both are back")
    await eventually_answered(two, "blindrelay.id.x")
    await one.close()
    await two.close()


@run_async
async def test_when_the_library_gives_up_we_do_not(server: Server) -> None:
    server.start()
    one, two = await opened(server.options(), server.options())
    changes: list[bool] = []
    one.changed = changes.append
    echo(one, "blindrelay.id.x", b"one")
    await eventually_answered(two, "blindrelay.id.x")
    given_up = one._client
    assert given_up is not None
    await given_up.close()  # as at an error of the server that it takes for final
    assert changes == [False]
    echo(one, "blindrelay.id.y", b"one")
    await eventually(lambda: one.connected, "it is back")
    assert changes == [False, True]
    assert one._client is not given_up
    await eventually_answered(two, "blindrelay.id.y")
    assert await ask(two, "blindrelay.id.x") == (Outcome.ANSWER, b"one")
    assert await ask(one, "blindrelay.id.z") == (Outcome.NO_RESPONDERS, b"")
    await one.close()
    await two.close()


async def eventually_answered(bus: NatsBus, subject: str) -> None:
    async with asyncio.timeout(60):
        while (await ask(bus, subject))[0] is not Outcome.ANSWER:
            pass


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bus, "CONNECT_WITHIN", 1.0)


@pytest.mark.usefixtures("impatient")
@run_async
async def test_what_is_wrong_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no NATS server could be reached within 1 s"):
        await NatsBus(server.options()).connect()
    server.start("authorization { user: relay, password: secret }")
    with pytest.raises(ClusterError, match=r"(?i)authorization") as caught:
        await NatsBus(server.options(user="relay", password="guessed")).connect()
    assert "guessed" not in str(caught.value)
    with pytest.raises(ClusterError, match="there are no NATS credentials"):
        await NatsBus(server.options(credentials=tmp_path / "none.creds")).connect()
    with pytest.raises(ClusterError, match="the files for TLS to NATS cannot be used"):
        await NatsBus(server.options(ca=tmp_path / "none.pem")).connect()


@run_async
async def test_tls(server: Server, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    server.start(f'tls {{ cert_file: "{files.chain}", key_file: "{files.key}" }}')
    options = server.options("tls", ca=files.chain)
    one, two = await opened(options, options)
    echo(one, "blindrelay.id.x", b"one")
    await eventually_answered(two, "blindrelay.id.x")
    await one.close()
    await two.close()


@run_async
async def test_credentials_of_an_operator(server: Server, tmp_path: Path) -> None:
    """The permissions are those that deploy/nats.conf gives: a relay needs no others."""
    operator = Operator()
    server.start(operator.config)
    settings = Settings(
        nats=(f"nats://127.0.0.1:{server.port}",),
        nats_creds=operator.user(tmp_path / "relay.creds", "blindrelay.>"),
        cluster_secret=SecretStr(SECRET.hex()),
    )
    options = cluster_options(settings)
    assert options is not None
    identity = Identity.generate()
    nodes = [
        await join(Core(asyncio.get_running_loop(), identity, Limits()), replace(options, node=name)) for name in "ab"
    ]
    assert [len(node.peers) for node in nodes] == [1, 1]
    assert [next(iter(node.peers)).up for node in nodes] == [True, True]
    for node in nodes:
        await node.close()


def test_a_relay_takes_the_flag(server: Server, tmp_path: Path, start_relay: Callable[..., RelayProcess]) -> None:
    operator = Operator()
    server.start(operator.config)
    secret = tmp_path / "cluster.secret"
    write_private(secret, SECRET.hex().encode())
    credentials = operator.user(tmp_path / "relay.creds", "blindrelay.>")
    flags = ["--nats", f"nats://127.0.0.1:{server.port}", "--nats-creds", str(credentials)]
    relay = start_relay(arguments=[*flags, "--cluster-secret-file", str(secret)])
    assert "cluster_joined" in [record["event"] for record in relay.records]


@pytest.mark.usefixtures("impatient")
@run_async
async def test_credentials_of_another_operator(server: Server, tmp_path: Path) -> None:
    server.start(Operator().config)
    credentials = Operator().user(tmp_path / "relay.creds", "blindrelay.>")
    for options in (server.options(credentials=credentials), server.options()):
        with pytest.raises(ClusterError, match=r"(?i)authorization"):
            await NatsBus(options).connect()


@run_async
async def test_credentials_that_do_not_reach_far_enough(server: Server, tmp_path: Path) -> None:
    operator = Operator()
    server.start(operator.config)
    [bus] = await opened(server.options(credentials=operator.user(tmp_path / "relay.creds", "others.>")))
    bus.subscribe("blindrelay.id.x", lambda *_: None)
    await eventually(lambda: "permissions violation" in bus._error.lower(), "NATS says so")
    await bus.close()


@run_async
async def test_a_server_that_is_paused_is_as_good_as_gone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket takes all that is written: only what it does not answer tells."""
    monkeypatch.setattr(nats_bus, "_PING_EVERY", 0.05)
    server.start()
    one, two = await opened(server.options(), server.options())
    changes: list[bool] = []
    one.changed = changes.append
    echo(one, "blindrelay.id.x", b"one")
    await eventually_answered(two, "blindrelay.id.x")
    server.signal(signal.SIGSTOP)
    hung = asyncio.ensure_future(ask(two, "blindrelay.id.x", 60))
    await eventually(lambda: not (one.connected or two.connected), "both notice")
    assert await hung == (Outcome.LOST, b"")
    assert changes == [False]
    server.signal(signal.SIGCONT)
    await eventually(lambda: one.connected and two.connected, "both are back")
    await eventually_answered(two, "blindrelay.id.x")
    await one.close()
    await two.close()


def core() -> Core:
    return Core(asyncio.get_running_loop(), Identity.generate(), Limits())


@run_async
async def test_a_server_that_takes_too_little_is_said(server: Server) -> None:
    server.start("max_payload: 4096")
    with pytest.raises(ClusterError, match="raise max_payload"):
        await join(core(), server.options())


@run_async
async def test_another_relay_with_the_same_secret_is_said(server: Server) -> None:
    server.start()
    first = await join(core(), server.options())
    with pytest.raises(ClusterError, match="the same key file"):
        await join(core(), server.options())
    assert not first.degraded
    await first.close()


@run_async
async def test_an_error_in_one_message_does_not_end_the_reading(server: Server) -> None:
    server.start()
    one, two = await opened(server.options(), server.options())
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def bad(*_: object) -> None:
        raise ValueError("a mistake of ours")

    one.subscribe("blindrelay.id.bad", bad)
    echo(one, "blindrelay.id.good", b"good")
    await eventually_answered(two, "blindrelay.id.good")
    two.publish("blindrelay.id.bad", b"")
    assert await ask(two, "blindrelay.id.good") == (Outcome.ANSWER, b"good")
    assert len(errors) == 1
    await one.close()
    await two.close()


def test_nobody_can_choose_where_an_answer_goes() -> None:
    heard: list[tuple[bytes, str, str]] = []

    async def run() -> None:
        client = nats_client.NatsClient(lambda *_: None, "blindrelay.answer.us.", "blindrelay.answer.")
        received: Callable[[bytes, str, str], None] = lambda *what: heard.append(what)  # noqa: E731
        client.add(1, nats_client.Subscription("blindrelay.id.x", received))
        client.take(1, b"blindrelay.id.x", b"blindrelay.answer.them.1", b"1", None)
        client.take(1, b"blindrelay.id.x", b"blindrelay.node.0011", b"2", None)

    asyncio.run(run())
    assert heard == [
        (b"1", "blindrelay.answer.them.1", "blindrelay.id.x"),
        (b"2", "", "blindrelay.id.x"),
    ]
