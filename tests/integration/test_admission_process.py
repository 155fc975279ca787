"""Admission by the real process: tokens, lists that are read again on SIGHUP, the operator's own service."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, WSServerHandshakeError, web

from keys.identity import Identity
from tests.support.clients import WAIT, Clients, eventually, run_async
from tests.support.relay_process import ROOT
from wire import commands as c

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.relay_process import RelayProcess

TOKEN, NEXT = "the-token-of-may-1", "the-token-of-june"


def events(relay: RelayProcess, name: str) -> int:
    return sum(record["event"] == name for record in relay.records)


async def reload(relay: RelayProcess, outcome: str = "reloaded") -> None:
    before = events(relay, outcome)
    relay.process.send_signal(signal.SIGHUP)
    await eventually(lambda: events(relay, outcome) > before, f"no {outcome}")


# --- Tokens ----------------------------------------------------------------------------------------------------------


@run_async
async def test_a_library_shows_its_token_and_tokens_are_changed_while_people_talk(
    start_relay: Callable[..., RelayProcess], tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    relay = start_relay(arguments=["--token-file", str(tokens)], warned=["token_in_query", "reload_kept_old"])
    url = f"http://127.0.0.1:{relay.port}/ws"

    async def opens(token: str) -> int:
        """Return the status that a client library sees, by the way that browsers have."""
        try:
            async with http.ws_connect(url, protocols=("blindrelay", f"token.{token}")) as socket:
                assert socket.protocol == "blindrelay"
                return 101
        except WSServerHandshakeError as error:
            assert error.headers is not None
            assert error.headers["WWW-Authenticate"] == "Bearer"
            return error.status

    async with Clients(relay) as clients, ClientSession() as http:
        assert await opens(TOKEN) == 101
        assert await opens(NEXT) == 401
        alice = await clients.open(headers={"Authorization": f"Bearer {TOKEN}"})
        bob = await clients.open(path=f"/ws?token={TOKEN}")
        tokens.write_text(f"{NEXT}\n")
        await reload(relay)
        assert await opens(TOKEN) == 401
        assert await opens(NEXT) == 101
        await alice.send(bob.public, b"we are still here")
        assert await bob.text_from(alice.public) == b"we are still here"
        tokens.chmod(0o644)
        await reload(relay, "reload_kept_old")
        assert await opens(NEXT) == 101
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"]["token"] == 2
    assert TOKEN not in relay.output
    assert NEXT not in relay.output


@run_async
async def test_a_token_from_the_environment(start_relay: Callable[..., RelayProcess]) -> None:
    relay = start_relay(variables={"RELAY_TOKEN": f"{TOKEN} {NEXT}"})
    async with Clients(relay) as clients:
        for token in (TOKEN, NEXT):
            await clients.open(headers={"Authorization": f"Bearer {token}"})
        with pytest.raises(AssertionError, match="401"):
            await clients.open()


def test_what_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    deny = tmp_path / "deny"
    deny.write_text("192.0.2.7\nMallory\n")
    done = subprocess.run(
        [sys.executable, "-m", "relay", "--port", "0", "--deny-file", str(deny), "--allow-file", str(tmp_path / "no")],
        cwd=ROOT,
        env={"RELAY_DATA_DIR": str(tmp_path), "RELAY_TOKEN": "too short"},
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT,
    )
    assert done.returncode == 2
    assert f"{deny}, line 2: " in done.stderr
    assert "token, word 1: " in done.stderr
    assert f"cannot read {tmp_path / 'no'}" in done.stderr
    assert "too short" not in done.stderr
    assert "Traceback" not in done.stderr


# --- Lists -----------------------------------------------------------------------------------------------------------


@run_async
async def test_who_is_put_on_the_list_goes_at_sighup(start_relay: Callable[..., RelayProcess], tmp_path: Path) -> None:
    deny = tmp_path / "deny"
    deny.write_text("# nobody yet\n")
    relay = start_relay(arguments=["--deny-file", str(deny)], warned=["reload_kept_old"])
    mallory = Identity.generate()
    async with Clients(relay) as clients:
        alice, bad = await clients.open(), await clients.open(mallory)
        neighbour = await clients.open(headers={"X-Forwarded-For": "203.0.113.7"})
        deny.write_text(f"{mallory.public.x_pub.hex()}  # since May\n203.0.113.0/24\nwhat?\n")
        await reload(relay, "reload_kept_old")
        await bad.round_trip()
        deny.write_text(f"{mallory.public.x_pub.hex()}  # since May\n203.0.113.0/24\n")
        await reload(relay)
        assert (await bad.closed()).code == 1008
        assert (await neighbour.closed()).code == 1008
        assert [each["read"] for each in relay.records if each["event"] == "reloaded"][-1] == ["deny: 2"]
        await alice.round_trip()
        again = await clients.connect(mallory)
        await again.greet()
        assert await again.expect(c.NotAdmitted) == c.NotAdmitted("this relay is not open to you")
        assert (await again.closed()).code == 1008
        with pytest.raises(AssertionError, match="403"):
            await clients.open(headers={"X-Forwarded-For": "203.0.113.9"})
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"]["denied"] == 4
    assert mallory.id.hex() not in relay.output
    assert "203.0.113" not in relay.output


@run_async
async def test_a_relay_that_closes_down_knows_only_its_list(
    start_relay: Callable[..., RelayProcess], tmp_path: Path
) -> None:
    alice = Identity.generate()
    allow = tmp_path / "allow"
    allow.write_text(alice.id.hex())
    relay = start_relay(arguments=["--decommission", "We close in May: write to us.", "--allow-file", str(allow)])
    async with Clients(relay) as clients:
        stays = await clients.open(alice, prove=False)
        assert await stays.expect(c.Info) == c.Info("We close in May: write to us.")
        stranger = await clients.connect()
        await stranger.greet()
        assert await stranger.expect(c.NotAdmitted) == c.NotAdmitted("We close in May: write to us.")
        assert (await stranger.closed()).reason == "We close in May: write to us."


# --- Callout ---------------------------------------------------------------------------------------------------------


@run_async
async def test_the_operators_service_decides_and_holds_up_nobody_else(
    start_relay: Callable[..., RelayProcess],
) -> None:
    alice, bob, mallory, late = (Identity.generate() for _ in range(4))
    asked: list[str] = []
    waits = asyncio.Event()

    async def may(request: web.Request) -> web.Response:
        question = await request.json()
        asked.append(question["x25519"])
        if question["x25519"] == late.public.x_pub.hex():
            await waits.wait()
        return web.json_response({"allow": question["id"] != mallory.id.hex()})

    app = web.Application()
    app.router.add_post("/may", may)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/may"
    relay = start_relay(arguments=["--admission-url", url], limits={"callout_timeout": 30}, warned=["callout_failed"])
    try:
        async with Clients(relay) as clients:
            slow = await clients.connect(late)
            await slow.greet()
            one, two = await clients.open(alice), await clients.open(bob)
            await one.send(two.public, b"nobody waits for others")
            assert await two.text_from(one.public) == b"nobody waits for others"
            refused = await clients.connect(mallory)
            await refused.greet()
            await refused.expect(c.NotAdmitted)
            assert (await refused.closed()).code == 1008
            waits.set()
            await slow.welcomed()
            # Known for a minute: the service is not asked again, and need not even be there.
            await runner.cleanup()
            await one.close()
            await clients.open(alice)
            assert asked.count(alice.public.x_pub.hex()) == 1
            stranger = await clients.connect()
            await stranger.greet()
            assert (await stranger.closed()).code == 1013
    finally:
        await runner.cleanup()
    await asyncio.to_thread(relay.check)
    assert relay.stopped["endings"]["callout_refused"] == relay.stopped["endings"]["callout_failed"] == 1
    assert url not in json.dumps(relay.records)
