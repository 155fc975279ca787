"""Web Push (kind 2): RFC 8030 requests with RFC 8291 contents and RFC 8292 tokens.

What the push service (of the browser's maker: Mozilla, Google, Apple, Microsoft) learns: the address of the notifier
and the contact of its operator, the subscription, which is one browser on one device and is known to it with that
device's address, the moment of each push, and by urgency and lifetime whether it is a call. Not who wrote, not what, no
id of the relay; the payload is encrypted to the browser and always of the same size.
"""

import time
from collections.abc import Callable
from typing import Final

from pywebpush import WebPusher

from peers.notifier.breaker import Breaker
from peers.notifier.channel import Outcome, Push, PushType, Result
from peers.notifier.endpoints import Endpoint
from peers.notifier.outbound import Forbidden, Outbound, Reply, Unreachable
from peers.notifier.payload import payload
from peers.notifier.subscriptions import Subscription, read_subscription
from peers.notifier.vapid import VapidTokens
from wire.commands import PushKind

TTL_MAX: Final = 28 * 24 * 3600
"""Most seconds that push services keep anything."""
_TOPIC: Final = "message"
_UNAVAILABLE: Final = 503


class WebPush:
    """The channel for browsers.

    It never gives BUSY. The endpoints are chosen by strangers, on servers of their choice, and none of those is to
    silence the channel for everybody. 429 is about one subscription (RFC 8030 §8.4, and UnifiedPush says so too): that
    push waits. A server that three times in a row does not answer, or answers 503, is left alone for a while, with all
    that goes there.

    Args:
        outbound: sends.
        tokens: say who we are.
        clock: seconds that only grow.
    """

    kind: int = PushKind.WEB_PUSH
    name: str = "webpush"

    def __init__(self, outbound: Outbound, tokens: VapidTokens, clock: Callable[[], float] = time.monotonic) -> None:
        self._outbound = outbound
        self._tokens = tokens
        self._breaker = Breaker(clock)

    def check_token(self, token: bytes) -> None:
        """Check a subscription's JSON. See `peers.notifier.channel.Channel.check_token`."""
        self._read(token)

    async def push(self, token: bytes, push: Push) -> Outcome:
        """Send one push. See `peers.notifier.channel.Channel.push`."""
        try:
            subscription, endpoint = self._read(token)
            authorization = self._tokens.authorization(endpoint.origin)
        except ValueError as error:
            return Outcome(Result.UNUSABLE, detail=str(error))
        headers = push_headers(push) | {
            "Authorization": authorization,
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
        }
        return await send(self._outbound, self._breaker, endpoint, headers, encrypt(subscription, payload(push.type)))

    async def close(self) -> None:
        """Keep nothing open: the connections belong to `Outbound`."""

    def _read(self, token: bytes) -> tuple[Subscription, Endpoint]:
        subscription = read_subscription(token)
        return subscription, self._outbound.check(subscription.endpoint)


def push_headers(push: Push) -> dict[str, str]:
    """Return the headers of RFC 8030 §5: how long, how urgent, and that the newer message push replaces the older."""
    headers = {
        "TTL": str(min(max(push.ttl, 0), TTL_MAX)),
        "Urgency": "high" if push.type is PushType.CALL else "normal",
    }
    if push.type is PushType.MESSAGE:
        headers["Topic"] = _TOPIC
    return headers


def encrypt(subscription: Subscription, content: bytes) -> bytes:
    """Encrypt to a subscription: one record of aes128gcm (RFC 8188 §2, RFC 8291 §4), with a key made for it alone."""
    keys = {"p256dh": _padded(subscription.p256dh), "auth": _padded(subscription.auth)}
    body: bytes = WebPusher({"endpoint": subscription.endpoint, "keys": keys}).encode(content)["body"]
    return body


async def send(
    outbound: Outbound, breaker: Breaker, endpoint: Endpoint, headers: dict[str, str], body: bytes
) -> Outcome:
    """Send to an endpoint, unless its server is left alone, and tell how it ended."""
    wait = breaker.wait(endpoint.origin)
    if wait > 0:
        return Outcome(Result.RETRY, wait, "this push server failed again and again: it is left alone for a while")
    try:
        reply = await outbound.post(endpoint, headers, body)
    except Unreachable as error:
        breaker.failed(endpoint.origin)
        return Outcome(Result.RETRY, detail=str(error))
    except Forbidden as error:
        return Outcome(Result.UNUSABLE, detail=str(error))
    outcome = judge(reply)
    if reply.status == _UNAVAILABLE:
        breaker.failed(endpoint.origin, reply.retry_after)
    else:
        breaker.succeeded(endpoint.origin)
    return outcome


def judge(reply: Reply) -> Outcome:
    """Tell what the answer of an endpoint means (RFC 8030 §5, §7.3, §8.4; UnifiedPush says the same)."""
    status, detail = reply.status, f"status {reply.status}"
    if 200 <= status < 300:
        return Outcome(Result.SENT)
    if status in (404, 410):
        return Outcome(Result.GONE, detail=detail)
    if status in (408, 425, 429) or status >= 500:
        return Outcome(Result.RETRY, reply.retry_after, detail)
    if 300 <= status < 400:
        return Outcome(Result.REFUSED, detail=f"{detail}: redirects are not followed")
    if status in (401, 403):
        return Outcome(
            Result.REFUSED, detail=f"{detail}: the subscription is for another VAPID key, or our clock is wrong"
        )
    return Outcome(Result.REFUSED, detail=detail)


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
