"""What NATS must let a relay do: what is missing is said when the relay starts, and when it is taken from it later."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
import structlog

from keys.identity import Identity
from relay.backplane import ClusterError, join, permissions
from relay.backplane.permissions import forbidden
from relay.core import Core
from relay.limits import Limits
from tests.integration.test_cluster_nats import Server
from tests.support.clients import eventually, run_async

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.stop()


def users(*, publish: str = "", subscribe: str = "") -> str:
    """Return a configuration with the permissions of deploy/nats.conf, but for these."""
    return f"""authorization {{ users: [ {{
        user: relay, password: secret
        permissions: {{
            publish: {{ allow: ["blindrelay.>"], deny: ["{publish or "none"}"] }}
            subscribe: {{ allow: ["blindrelay.>"], deny: ["{subscribe or "none"}"] }}
        }}
    }} ] }}"""


async def joined(server: Server) -> None:
    core = Core(asyncio.get_running_loop(), Identity.generate(), Limits())
    backplane = await join(core, server.options(user="relay", password="secret"))
    await backplane.close()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"subscribe": "blindrelay.id.*"}, r"subscribe to blindrelay\.id\.\*:"),
        ({"subscribe": "blindrelay.node.>"}, r"subscribe to blindrelay\.node\.\*:"),
        ({"subscribe": "blindrelay.nodes"}, r"subscribe to blindrelay\.nodes:"),
        ({"subscribe": "blindrelay.answer.>"}, r"subscribe to blindrelay\.answer\.\*:"),
        ({"publish": "blindrelay.id.*"}, r"publish to blindrelay\.id\.\*:"),
        ({"publish": "blindrelay.node.*"}, r"publish to blindrelay\.node\.\*:"),
        ({"publish": "blindrelay.nodes"}, r"publish to blindrelay\.nodes:"),
        ({"publish": "blindrelay.answer.*"}, r"publish to blindrelay\.answer\.\*:"),
        (
            {"publish": "blindrelay.>", "subscribe": "blindrelay.id.>"},
            r"publish to blindrelay.answer.\*, nor .*, nor subscribe to blindrelay\.id\.\*:",
        ),
    ],
)
@run_async
async def test_what_is_missing_is_said_at_the_start(
    server: Server, monkeypatch: pytest.MonkeyPatch, missing: dict[str, str], said: str
) -> None:
    # An answer that is forbidden never comes.
    monkeypatch.setattr(permissions, "_WITHIN", 0.2)
    server.start(users(**missing))
    with structlog.testing.capture_logs() as logs, pytest.raises(ClusterError, match=f"NATS does not let .*{said}"):
        await joined(server)
    assert "nats_forbids" in [entry["event"] for entry in logs]


@run_async
async def test_what_deploy_gives_is_enough(server: Server) -> None:
    server.start(users())
    with structlog.testing.capture_logs() as logs:
        await joined(server)
    assert [entry["event"] for entry in logs] == ["cluster_joined"]


@run_async
async def test_what_is_taken_later_is_said_once_and_without_the_names_of_ids(server: Server) -> None:
    server.start(users())
    core = Core(asyncio.get_running_loop(), Identity.generate(), Limits())
    backplane = await join(core, server.options(user="relay", password="secret"))
    names = [backplane.seals.id_subject(Identity.generate().id) for _ in range(3)]
    with structlog.testing.capture_logs() as logs:
        backplane.bus.subscribe(names[0], lambda *_: None)
        server.configure(users(subscribe="blindrelay.id.*"))
        server.signal(signal.SIGHUP)
        await eventually(lambda: any(entry["event"] == "nats_forbids" for entry in logs), "it is said")
        for name in names[1:]:
            backplane.bus.subscribe(name, lambda *_: None)
        answered = asyncio.get_running_loop().create_future()
        backplane.bus.request("blindrelay.id.nobody", b"", 5.0, lambda *what: bool(answered.set_result(what)))  # type: ignore[func-returns-value]
        await answered
        await backplane.close()
    [said] = [entry for entry in logs if entry["event"] == "nats_forbids"]
    assert (said["log_level"], said["what"]) == ("error", "subscribe to blindrelay.id.*")
    assert not any(name in str(logs) for name in names)


def test_other_errors_are_not_taken_for_one() -> None:
    assert forbidden("nats: 'Authorization Violation'", "blindrelay") is None
    assert forbidden('nats: permissions violation for publish to "a.b.nodes"', "a.b") == "publish to a.b.nodes"
    assert forbidden('nats: Permissions Violation for Subscription to "x.id.abc"', "x") == "subscribe to x.id.*"
