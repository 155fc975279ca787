"""Who is refused, for good or for now: wrong keys, tokens, versions, ids in use, rates, and what is no relay at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from keys.errors import BadKey
from keys.identity import Identity, PublicIdentity
from keys.invite import RelayCard
from keys.packet import seal
from peers.client import (
    ClientOptions,
    Connected,
    Disconnected,
    IdInUse,
    NotAdmitted,
    NotConnected,
    Reason,
    RelayClient,
    RelayRefused,
    WrongRelayKeys,
    WrongVersion,
)
from peers.client.client import UNANSWERED_MOST
from tests.peers.client.scripted import FAST, WAIT, Connection, ScriptedRelay, expect, next_event, until
from tests.support.clients import run_async
from wire import commands as c
from wire import frames, mask
from wire.inner import Inner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TOKEN = "0f0c2a4be1d35f8790aa6bdc41e2738d"


async def welcome_and_stay(at: Connection) -> None:
    await (await at.welcome()).stay()


def refusing(error: c.ErrorBody) -> Callable[[Connection], Awaitable[None]]:
    async def script(at: Connection) -> None:
        await at.hello()
        await at.ws.send(at.session.refuse(error))
        await at.ws.close(1008)

    return script


def closing(code: int, reason: str = "") -> Callable[[Connection], Awaitable[None]]:
    async def script(at: Connection) -> None:
        await at.frame()
        await at.ws.close(code, reason)

    return script


def answering(make: Callable[[Connection, bytes], bytes]) -> Callable[[Connection], Awaitable[None]]:
    """Answer the hello, whatever it is, by these bytes."""

    async def script(at: Connection) -> None:
        await at.ws.send(make(at, await at.frame()))
        await at.stay()

    return script


async def refused(client: RelayClient, kind: type[RelayRefused]) -> RelayRefused:
    """Enter the client and return how it is refused for good."""
    async with client:
        with pytest.raises(kind) as caught:
            while True:
                await next_event(client)
        with pytest.raises(kind):
            await client.connected(WAIT)
        with pytest.raises(kind):
            await next_event(client)  # and so at every later call
        with pytest.raises(NotConnected) as unsent:
            await client.send(b"target_8", bytes(200))
        assert str(caught.value) in str(unsent.value)
    return caught.value


# --- Keys ------------------------------------------------------------------------------------------------------------


def from_the_server(at: Connection, hello: bytes, inner: Inner, *, signer: Identity | None = None) -> bytes:
    shared = at.session._ours.shared_with(hello[:32])
    packet = seal(inner.encode(), signer or at.session._ours, shared)
    return frames.build_frame(mask.server_to_client(shared), bytes(8), packet)


@run_async
async def test_another_signing_key() -> None:
    genuine = Identity.generate()
    forged = Identity(genuine.seeds[0], os.urandom(32))  # knows one of the two secrets
    async with ScriptedRelay(welcome_and_stay, identity=forged) as relay:
        card = RelayCard(genuine.public, relay.card.url + "?token=" + TOKEN)
        error = await refused(RelayClient(Identity.generate(), card), WrongRelayKeys)
        assert relay.connections == 1, "there is nothing to try again"
        assert "compare the card" in str(error)
        assert relay.card.url in str(error)
        assert TOKEN not in str(error)


@run_async
async def test_an_answer_under_another_exchange_key() -> None:
    async with ScriptedRelay(answering(lambda _, hello: hello + bytes(60))) as relay:
        await refused(relay.client(), WrongRelayKeys)
        assert relay.connections == 1
    async with ScriptedRelay(answering(lambda *_: b"hello")) as relay:
        await refused(relay.client(), WrongRelayKeys)


@run_async
async def test_a_close_instead_of_an_answer_is_tried_again_a_few_times() -> None:
    async with ScriptedRelay(closing(1008, "no valid handshake")) as relay:
        client = relay.client()
        async with client:
            for _ in range(UNANSWERED_MOST - 1):
                lost = await expect(client, Disconnected)
                assert lost.reason is Reason.UNANSWERED
                assert "no valid handshake" in lost.text
            with pytest.raises(WrongRelayKeys):
                await next_event(client)
        assert relay.connections == UNANSWERED_MOST


@run_async
async def test_one_that_came_too_late_is_forgiven() -> None:
    late = closing(1008, "no handshake in time")
    most = [late] * (UNANSWERED_MOST - 1)

    async def accept_and_go(at: Connection) -> None:
        await at.welcome()
        await at.ws.close(1001)

    async with (
        ScriptedRelay(*most, accept_and_go, *most, refusing(c.IdInUse()), welcome_and_stay) as relay,
        relay.client() as client,
    ):
        for _ in most:
            await expect(client, Disconnected)
        await expect(client, Connected)
        await expect(client, Disconnected)
        for _ in most:
            await expect(client, Disconnected)
        await expect(client, IdInUse)


@run_async
async def test_other_closes_before_the_answer_are_no_verdict() -> None:
    codes = [1001, 1011, 1000, 1001, 1002, 1001]

    async def cut(at: Connection) -> None:
        await at.frame()
        at.ws.transport.abort()

    async with (
        ScriptedRelay(*map(closing, codes), cut, closing(1013), welcome_and_stay) as relay,
        relay.client() as client,
    ):
        for _ in codes:
            assert (await expect(client, Disconnected)).reason is Reason.UNANSWERED
        assert (await expect(client, Disconnected)).reason is Reason.LOST
        assert (await expect(client, Disconnected)).reason is Reason.BUSY
        await expect(client, Connected)


def test_our_own_keys_are_no_relay() -> None:
    ours = Identity.generate()
    with pytest.raises(BadKey):
        RelayClient(ours, RelayCard(ours.public, "ws://127.0.0.1:1/ws"))


@run_async
async def test_right_keys_and_a_wrong_tale_are_no_verdict_about_keys() -> None:
    """A relay with a fault may be repaired; the keys are not to blame."""
    tales = [
        Inner(0, c.Command.SERVER_PING, b""),
        Inner(0, c.Command.ERROR, b""),
        Inner(0, c.Command.HANDSHAKE_OK, b""),
        Inner(0, c.Command.ERROR, b"\x70"),
    ]
    scripts = [answering(lambda at, hello, inner=inner: from_the_server(at, hello, inner)) for inner in tales]  # type: ignore[misc]
    async with ScriptedRelay(*scripts, welcome_and_stay) as relay, relay.client() as client:
        for _ in tales:
            assert (await expect(client, Disconnected)).reason is Reason.VIOLATION
        await expect(client, Connected)


@run_async
async def test_text_messages_before_the_answer_are_ignored() -> None:
    async def script(at: Connection) -> None:
        await at.ws.send("welcome to this server")
        await welcome_and_stay(at)

    async with ScriptedRelay(script) as relay, relay.client() as client:
        await expect(client, Connected)


# --- Answers ---------------------------------------------------------------------------------------------------------


@run_async
async def test_not_admitted() -> None:
    async with ScriptedRelay(refusing(c.NotAdmitted("We close\x1b[2J on 1 May."))) as relay:
        error = await refused(relay.client(), NotAdmitted)
        assert relay.connections == 1
    assert isinstance(error, NotAdmitted)
    assert error.text == "We close [2J on 1 May."


@run_async
async def test_another_version() -> None:
    async with ScriptedRelay(refusing(c.BadVersion(7))) as relay:
        error = await refused(relay.client(), WrongVersion)
        assert relay.connections == 1
    assert isinstance(error, WrongVersion)
    assert error.supported == 7

    accepts_another = answering(lambda at, hello: from_the_server(at, hello, Inner(0, c.Command.HANDSHAKE_OK, b"\x03")))
    async with ScriptedRelay(accepts_another) as relay:
        assert str(await refused(relay.client(), WrongVersion)) == str(WrongVersion(3))


@run_async
async def test_an_id_in_use_is_told_and_tried_again_slowly() -> None:
    async with ScriptedRelay(refusing(c.IdInUse()), welcome_and_stay) as relay, relay.client() as client:
        await expect(client, IdInUse)
        lost = await expect(client, Disconnected)
        assert lost.reason is Reason.ID_IN_USE
        assert 2 <= lost.retry_in < 3
        await expect(client, Connected)


# --- Openings --------------------------------------------------------------------------------------------------------


@run_async
async def test_the_token_is_shown_in_a_header() -> None:
    async with ScriptedRelay(welcome_and_stay) as relay, relay.client(token=TOKEN) as client:
        await client.connected(WAIT)
        (request,) = relay.requests
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in request.path
        assert "User-Agent" not in request.headers
        assert "Sec-WebSocket-Extensions" not in request.headers
    async with ScriptedRelay(welcome_and_stay) as relay, relay.client() as client:
        await client.connected(WAIT)
        assert "Authorization" not in relay.requests[0].headers


@pytest.mark.parametrize(
    ("status", "token", "said"),
    [(401, None, "none is set"), (401, TOKEN, "not valid"), (403, None, "403")],
)
@run_async
async def test_refused_at_the_opening_for_good(status: int, token: str | None, said: str) -> None:
    async with ScriptedRelay(welcome_and_stay, answers=[(status, {})]) as relay:
        error = await refused(relay.client(token=token), NotAdmitted)
        assert relay.connections == 0
    assert said in str(error)
    assert TOKEN not in str(error)


@run_async
async def test_retry_after_is_honoured_and_bounded() -> None:
    async def retry_in(status: int, headers: dict[str, str]) -> Disconnected:
        async with ScriptedRelay(welcome_and_stay, answers=[(status, headers)]) as relay, relay.client() as client:
            return await expect(client, Disconnected)

    for status in (429, 503):
        lost = await retry_in(status, {"Retry-After": "37"})
        assert lost.reason is Reason.BUSY
        assert 37 <= lost.retry_in <= 41
    assert 600 <= (await retry_in(503, {"Retry-After": "86400"})).retry_in <= 660
    assert (await retry_in(503, {})).retry_in <= FAST["backoff_max"]
    assert (await retry_in(503, {"Retry-After": "soon"})).retry_in <= FAST["backoff_max"]
    assert (await retry_in(429, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"})).retry_in >= 300


@run_async
async def test_what_opens_no_websocket_is_tried_again() -> None:
    answers: list[tuple[int, Any]] = [(404, {}), (200, {}), (302, {"Location": "ws://192.0.2.1/ws"}), (502, {})]
    async with ScriptedRelay(welcome_and_stay, answers=answers) as relay, relay.client(token=TOKEN) as client:
        for status in (404, 200, 302, 502):
            lost = await expect(client, Disconnected)
            assert lost.reason is Reason.NOT_A_RELAY
            assert str(status) in lost.text
        await expect(client, Connected)
    assert len(relay.requests) == 5, "a redirect is not followed, least of all with a token"


@run_async
async def test_no_tls_where_the_card_says_so() -> None:
    async with ScriptedRelay(welcome_and_stay) as relay:
        card = RelayCard(relay.card.public, relay.card.url.replace("ws:", "wss:"))
        async with RelayClient(Identity.generate(), card) as client:
            assert (await expect(client, Disconnected)).reason in (Reason.TLS, Reason.UNREACHABLE)
        assert relay.connections == 0


@run_async
async def test_silence_at_the_opening() -> None:
    async def silent(at: Connection) -> None:
        await at.stay()

    async with ScriptedRelay(silent, welcome_and_stay) as relay, relay.client(open_timeout=0.2) as client:
        lost = await expect(client, Disconnected)
        assert lost.reason is Reason.UNREACHABLE
        assert "0.2 s" in lost.text
        # The other one may take longer than that on a busy machine, and is tried again.
        await until(client, Connected)


# --- Proxies ---------------------------------------------------------------------------------------------------------


@run_async
async def test_no_proxy_for_this_machine() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "socks_proxy", "all_proxy", "ws_proxy", "wss_proxy"):
            patch.setenv(name, "http://user:secret@127.0.0.1:1")
        patch.delenv("no_proxy", raising=False)
        async with ScriptedRelay(welcome_and_stay) as relay, relay.client() as client:
            await expect(client, Connected)


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("socks5h://user:secret@127.0.0.1:1", Reason.PROXY),
        ("gopher://user:secret@127.0.0.1:1", Reason.PROXY),
        ("http://user:secret@127.0.0.1:1", Reason.UNREACHABLE),
    ],
)
@run_async
async def test_a_proxy_that_does_not_help(proxy: str, reason: Reason) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("https_proxy", proxy)
        public = PublicIdentity(Identity.generate().public.x_pub, Identity.generate().public.ed_pub)
        card = RelayCard(public, "wss://relay.invalid/ws")
        async with RelayClient(Identity.generate(), card, ClientOptions()) as client:
            lost = await expect(client, Disconnected)
    assert lost.reason is reason
    assert "secret" not in lost.text
