"""Web Push and UnifiedPush, from the channel to a browser that decrypts, through push services of 127.0.0.1."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from time import time
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from peers.notifier.breaker import Breaker
from peers.notifier.channel import Channel, Outcome, Push, PushType, Result
from peers.notifier.endpoints import AllowedHost, Endpoint
from peers.notifier.outbound import Outbound, Reply, Timeouts
from peers.notifier.payload import PAYLOAD_SIZE, payload
from peers.notifier.subscriptions import TOKEN_MAX
from peers.notifier.unifiedpush import UnifiedPush
from peers.notifier.vapid import VapidKey, VapidTokens
from peers.notifier.webpush import TTL_MAX, WebPush
from tests.support.clients import run_async
from tests.support.ntfy import Ntfy
from tests.support.push_services import WAIT, Browser, PushService
from wire.commands import PushKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

MESSAGE = Push(PushType.MESSAGE, 24 * 3600)
CALL = Push(PushType.CALL, 30)
KEY = VapidKey.generate()
CONTACT = "mailto:admin@example.org"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Channels:
    def __init__(self, outbound: Outbound) -> None:
        self.clock = Clock()
        breaker = Breaker(self.clock)
        self.webpush = WebPush(outbound, VapidTokens(KEY, CONTACT), breaker)
        self.unifiedpush = UnifiedPush(outbound, self.webpush, breaker)


class Unvouched(Outbound):
    """Reaches servers of 127.0.0.1 as if they were public ones that nobody allowed."""

    def check(self, url: str, *, ours: bool = False) -> Endpoint:
        return replace(super().check(url, ours=ours), allowed=False)

    async def post(self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> Reply:
        return await super().post(replace(endpoint, allowed=True), headers, body)


@asynccontextmanager
async def channels(*urls: str, timeouts: Timeouts | None = None) -> AsyncIterator[Channels]:
    outbound = Outbound([AllowedHost.parse(url) for url in urls], timeouts=timeouts or Timeouts(WAIT, WAIT, WAIT))
    made = Channels(outbound)
    try:
        yield made
    finally:
        await made.unifiedpush.close()
        await made.webpush.close()
        await outbound.close()


def test_they_are_channels() -> None:
    made = Channels(Outbound())
    webpush: Channel = made.webpush
    unifiedpush: Channel = made.unifiedpush
    assert (webpush.kind, webpush.name) == (PushKind.WEB_PUSH, "webpush")
    assert (unifiedpush.kind, unifiedpush.name) == (PushKind.UNIFIED_PUSH, "unifiedpush")


class TestTheBrowser:
    @run_async
    async def test_it_decrypts_and_the_service_verifies(self) -> None:
        async with PushService().running() as service, channels(service.url) as made:
            browser = Browser(f"{service.url}/wpush/v2/secret?x=1")
            for push in (MESSAGE, CALL):
                made.webpush.check_token(browser.token())
                assert await made.webpush.push(browser.token(), push) == Outcome(Result.SENT)
                got = await service.next()
                assert (got.method, got.path) == ("POST", "/wpush/v2/secret?x=1")
                assert got.headers["Content-Encoding"] == "aes128gcm"
                content = browser.decrypt(got.body)
                assert content == payload(push.type)
                assert json.loads(content) == {"type": push.type.value}
                claims, public = got.vapid()
                assert public == KEY.application_server_key
                assert set(claims) == {"aud", "exp", "sub"}
                assert claims["aud"] == service.url, "the origin, and nothing of the path"
                assert time() < claims["exp"] <= time() + 24 * 3600
                assert claims["sub"] == CONTACT

    @run_async
    async def test_urgency_lifetime_and_topic_by_type(self) -> None:
        async with PushService().running() as service, channels(service.url) as made:
            token = Browser(service.url).token()
            await made.webpush.push(token, MESSAGE)
            message = (await service.next()).headers
            await made.webpush.push(token, CALL)
            call = (await service.next()).headers
            assert (message["TTL"], message["Urgency"], message["Topic"]) == ("86400", "normal", "message")
            assert (call["TTL"], call["Urgency"], call.get("Topic")) == ("30", "high", None)
            for ttl, sent in ((-5, "0"), (0, "0"), (10**9, str(TTL_MAX))):
                await made.webpush.push(token, Push(PushType.CALL, ttl))
                assert (await service.next()).headers["TTL"] == sent

    @run_async
    async def test_size_tells_nothing_and_no_two_are_the_same(self) -> None:
        async with PushService().running() as service, channels(service.url) as made:
            token = Browser(service.url).token()
            bodies = []
            for push in (MESSAGE, CALL, MESSAGE, CALL):
                await made.webpush.push(token, push)
                bodies.append((await service.next()).body)
            # RFC 8188: salt(16) rs(4) idlen(1) keyid(65), then the content, its delimiter and the tag
            assert {len(body) for body in bodies} == {86 + PAYLOAD_SIZE + 1 + 16}
            assert len({body[:16] for body in bodies}) == len(bodies), "salts"
            assert len({body[21:86] for body in bodies}) == len(bodies), "keys"

    @run_async
    async def test_nobody_else_decrypts(self) -> None:
        import http_ece

        async with PushService().running() as service, channels(service.url) as made:
            await made.webpush.push(Browser(service.url).token(), MESSAGE)
            with pytest.raises(http_ece.ECEException):
                Browser(service.url).decrypt((await service.next()).body)

    @run_async
    async def test_the_vapid_token_is_one_for_each_service(self) -> None:
        async with PushService().running() as one, PushService().running() as two, channels(one.url, two.url) as made:
            headers = []
            for service in (one, one, two):
                await made.webpush.push(Browser(service.url).token(), MESSAGE)
                got = await service.next()
                assert got.vapid()[0]["aud"] == service.url
                headers.append(got.headers["Authorization"])
            assert headers[0] == headers[1] != headers[2]


ENDS = [
    (200, {}, Outcome(Result.SENT)),
    (201, {}, Outcome(Result.SENT)),
    (202, {}, Outcome(Result.SENT)),
    (204, {}, Outcome(Result.SENT)),
    (
        302,
        {"Location": "https://x.example.org/"},
        Outcome(Result.STRANGE, None, "status 302"),
    ),
    (400, {}, Outcome(Result.STRANGE, None, "status 400")),
    (404, {}, Outcome(Result.GONE, None, "status 404")),
    (410, {}, Outcome(Result.GONE, None, "status 410")),
    (413, {}, Outcome(Result.REFUSED, None, "status 413")),
    (429, {}, Outcome(Result.RETRY, None, "status 429")),
    (429, {"Retry-After": "120"}, Outcome(Result.RETRY, 120.0, "status 429")),
    (429, {"Retry-After": "nonsense"}, Outcome(Result.RETRY, None, "status 429")),
    (500, {}, Outcome(Result.RETRY, None, "status 500")),
    (502, {}, Outcome(Result.RETRY, None, "status 502")),
    (503, {"Retry-After": "5"}, Outcome(Result.RETRY, 5.0, "status 503")),
    (507, {}, Outcome(Result.RETRY, None, "status 507")),
    (599, {}, Outcome(Result.RETRY, None, "status 599")),
    (418, {}, Outcome(Result.STRANGE, None, "status 418")),
]


class TestHowItEnds:
    @pytest.mark.parametrize(("status", "headers", "outcome"), ENDS)
    @pytest.mark.parametrize("which", ["webpush", "unifiedpush", "unifiedpush with keys"])
    @run_async
    async def test_by_the_status(self, which: str, status: int, headers: dict[str, str], outcome: Outcome) -> None:
        named = {name.replace("-", "_"): value for name, value in headers.items()}
        async with (
            PushService().answer(status, b"secret text", **named).running() as service,
            channels(service.url) as made,
        ):
            url = f"{service.url}/secret"
            token = url.encode() if which == "unifiedpush" else Browser(url).token()
            channel: Channel = made.webpush if which == "webpush" else made.unifiedpush
            assert await channel.push(token, MESSAGE) == outcome
            assert "secret" not in outcome.detail
            assert service.count == 1, "trying again is for the service"

    @pytest.mark.parametrize("status", [401, 403])
    @run_async
    async def test_of_a_vapid_token_that_is_refused(self, status: int) -> None:
        async with PushService().answer(status).running() as service, channels(service.url) as made:
            outcome = await made.webpush.push(Browser(service.url).token(), MESSAGE)
            assert outcome.result is Result.REFUSED
            assert "VAPID" in outcome.detail

    @run_async
    async def test_retry_after_as_a_date(self) -> None:
        async with PushService().running() as service, channels(service.url) as made:
            service.answer(429, Retry_After=formatdate(time() + 600, usegmt=True))
            outcome = await made.webpush.push(Browser(service.url).token(), MESSAGE)
        assert outcome.retry_after is not None
        assert 500 < outcome.retry_after <= 600

    @run_async
    async def test_without_an_answer(self) -> None:
        gate = asyncio.Event()

        async def never(request: web.Request) -> web.StreamResponse:
            await gate.wait()
            return web.Response()

        async with PushService().running() as service, channels(service.url, timeouts=Timeouts(total=0.1)) as made:
            service.answers = [never]
            assert await made.webpush.push(Browser(service.url).token(), CALL) == Outcome(
                Result.RETRY, None, "no answer in time"
            )
            gate.set()

    @pytest.mark.parametrize(
        "endpoint",
        [
            "https://127.0.0.1/x",
            "http://push.example.org/",
            "https://localhost/",
            "https://push.example.org:22/",
            "",
            "x",
        ],
    )
    @run_async
    async def test_of_endpoints_that_nothing_is_sent_to(self, endpoint: str) -> None:
        async with channels() as made:
            for channel, token in (
                (made.webpush, Browser(endpoint).token()),
                (made.unifiedpush, Browser(endpoint).token()),
                (made.unifiedpush, endpoint.encode()),
            ):
                with pytest.raises(ValueError, match="endpoint") as caught:
                    channel.check_token(token)
                assert "example" not in str(caught.value)
                assert (await channel.push(token, MESSAGE)).result is Result.UNUSABLE

    @run_async
    async def test_of_a_name_that_leads_inside(self) -> None:
        """Nothing is sent, and the token is kept: it may be the resolver that is wrong, for every push server."""
        outbound = Outbound(lookup=lambda *_: [(2, "169.254.169.254")])
        made = Channels(outbound)
        for token in (Browser("https://rebind.example.org/x").token(), b"https://rebind.example.org/x"):
            made.unifiedpush.check_token(token)
            outcome = await made.unifiedpush.push(token, MESSAGE)
            assert outcome == Outcome(Result.RETRY, None, "the host has no public address")
        await outbound.close()

    @pytest.mark.parametrize(
        "token",
        [b"", b"{", b"{}", b"\xff\xfe", b"\x00", b"x" * (TOKEN_MAX + 1), b'{"endpoint":"https://a.example.org/"}'],
    )
    @run_async
    async def test_of_tokens_that_are_none(self, token: bytes) -> None:
        async with channels() as made:
            channel: Channel
            for channel in (made.webpush, made.unifiedpush):
                with pytest.raises(ValueError, match=r"endpoint|subscription"):
                    channel.check_token(token)
                assert (await channel.push(token, CALL)).result is Result.UNUSABLE


class TestServersThatFail:
    @run_async
    async def test_one_that_does_not_answer_is_left_alone_and_others_are_not(self) -> None:
        bad = PushService()
        async with PushService().running() as good, bad.running(), channels(good.url, bad.url) as made:
            token = Browser(bad.url).token()
            bad.answer(503)
            for _ in range(3):
                assert (await made.webpush.push(token, MESSAGE)).detail == "status 503"
            bad.answer(201)
            outcome = await made.webpush.push(Browser(bad.url).token(), CALL)
            assert outcome.result is Result.HELD
            assert outcome.retry_after is not None
            assert bad.count == 3, "not even asked"
            assert (await made.webpush.push(Browser(good.url).token(), MESSAGE)).result is Result.SENT
            made.clock.now += outcome.retry_after
            assert (await made.webpush.push(token, MESSAGE)).result is Result.SENT
            assert (await made.webpush.push(token, MESSAGE)).result is Result.SENT

    @pytest.mark.parametrize("status", [429, 507, 500, 404, 403, 400, 302])
    @run_async
    async def test_what_concerns_one_subscription_silences_no_other(self, status: int) -> None:
        """Else whoever has a topic at a shared server could use its limits up for all who are there."""
        async with PushService().running() as service, channels(service.url) as made:
            await made.webpush.push(Browser(service.url).token(), MESSAGE)
            service.answer(status, Retry_After="3600")
            theirs = Browser(service.url).token()
            for _ in range(9):
                await made.webpush.push(theirs, MESSAGE)
                await made.unifiedpush.push(service.url.encode(), MESSAGE)
            assert service.count == 19
            service.answer(201)
            assert (await made.webpush.push(Browser(service.url).token(), MESSAGE)).result is Result.SENT
            assert (await made.unifiedpush.push(service.url.encode(), MESSAGE)).result is Result.SENT

    @run_async
    async def test_429_for_several_tokens_pauses_all_of_that_server_by_either_channel(self) -> None:
        async with PushService().running() as limits, PushService().running() as other:
            limits.answer(429, Retry_After="120")
            async with channels(limits.url, other.url) as made:
                for name in ("a", "b", "c"):
                    outcome = await made.unifiedpush.push(f"{limits.url}/{name}".encode(), MESSAGE)
                    assert outcome == Outcome(Result.RETRY, 120, "status 429")
                for channel, token in (
                    (made.unifiedpush, f"{limits.url}/d".encode()),
                    (made.webpush, Browser(limits.url).token()),
                ):
                    outcome = await channel.push(token, MESSAGE)
                    assert (outcome.result, outcome.retry_after) == (Result.HELD, 120)
                assert limits.count == 3
                assert (await made.webpush.push(Browser(other.url).token(), MESSAGE)).result is Result.SENT
                limits.answer(201)
                made.clock.now += 120
                assert (await made.unifiedpush.push(f"{limits.url}/a".encode(), MESSAGE)).result is Result.SENT
                assert (await made.webpush.push(Browser(limits.url).token(), MESSAGE)).result is Result.SENT

    @pytest.mark.parametrize("status", [200, 301, 400, 405, 401, 404, 500])
    @run_async
    async def test_a_web_site_that_a_stranger_named_is_not_posted_to_without_end(self, status: int) -> None:
        async with PushService().answer(status).running() as site:
            outbound = Unvouched([AllowedHost.parse(site.url)], timeouts=Timeouts(WAIT, WAIT, WAIT))
            made = Channels(outbound)
            for number in range(1000):
                await made.unifiedpush.push(f"{site.url}/{number}".encode(), CALL)
                made.clock.now += 0.001
            await outbound.close()
            # In one second. What a push server may answer as well goes on, a few a minute; the rest is over at once.
            assert site.count == (pytest.approx(550, abs=5) if status == 200 else 5 if status in (401, 404) else 3)

    @run_async
    async def test_many_at_once(self) -> None:
        async with PushService().running() as service, channels(service.url) as made:
            token = Browser(service.url).token()
            outcomes = await asyncio.gather(*(made.webpush.push(token, MESSAGE) for _ in range(300)))
            assert {outcome.result for outcome in outcomes} == {Result.SENT}
            assert service.count == 300


class TestNtfy:
    """Against what ntfy's documentation says of its server; a real one is not to be had where these tests run."""

    @run_async
    async def test_without_keys_a_constant_arrives_at_the_distributor(self) -> None:
        async with Ntfy().running() as ntfy, channels(ntfy.url) as made:
            phone = ntfy.subscribe("upABCDEFGHIJKL")
            token = f"{ntfy.url}/upABCDEFGHIJKL?up=1".encode()
            made.unifiedpush.check_token(token)
            for push, priority in ((MESSAGE, 3), (CALL, 4)):
                assert await made.unifiedpush.push(token, push) == Outcome(Result.SENT)
                got = await asyncio.wait_for(phone.get(), WAIT)
                assert json.loads(got.message) == {"type": push.type.value}
                assert (got.priority, got.encoding, got.title, got.tags) == (priority, "", "", [])
            posted = ntfy.requests[-1]
            assert (posted.headers["TTL"], posted.headers["Urgency"], posted.headers["Priority"]) == (
                "30",
                "high",
                "high",
            )
            assert "Authorization" not in posted.headers, "who we are is nothing to a server that does not ask"

    @run_async
    async def test_with_keys_the_distributor_gets_what_only_the_app_decrypts(self) -> None:
        async with Ntfy().running() as ntfy, channels(ntfy.url) as made:
            phone = ntfy.subscribe("upABCDEFGHIJKL")
            app = Browser(f"{ntfy.url}/upABCDEFGHIJKL?up=1")
            made.unifiedpush.check_token(app.token())
            for push in (MESSAGE, CALL):
                assert await made.unifiedpush.push(app.token(), push) == Outcome(Result.SENT)
                got = await asyncio.wait_for(phone.get(), WAIT)
                assert got.encoding == "base64", "not cut, not made an attachment"
                assert app.decrypt(base64.b64decode(got.message)) == payload(push.type)

    @run_async
    async def test_a_phone_that_was_not_there_for_long_is_not_forgotten(self) -> None:
        """ntfy answers 507 for a topic without a subscriber: it may come back."""
        async with Ntfy().running() as ntfy, channels(ntfy.url) as made:
            token = f"{ntfy.url}/upABCDEFGHIJKL?up=1".encode()
            assert await made.unifiedpush.push(token, MESSAGE) == Outcome(Result.RETRY, None, "status 507")
            ntfy.subscribe("upABCDEFGHIJKL")
            assert (await made.unifiedpush.push(token, MESSAGE)).result is Result.SENT

    @run_async
    async def test_its_limits(self) -> None:
        async with Ntfy(burst=2).running() as ntfy, channels(ntfy.url) as made:
            ntfy.subscribe("upABCDEFGHIJKL")
            token = f"{ntfy.url}/upABCDEFGHIJKL?up=1".encode()
            results = [(await made.unifiedpush.push(token, MESSAGE)).result for _ in range(3)]
            assert results == [Result.SENT, Result.SENT, Result.RETRY]
