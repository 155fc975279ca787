"""Web Push (kind 2): RFC 8030 requests with RFC 8291 contents and RFC 8292 tokens.

What the push service (of the browser's maker: Mozilla, Google, Apple, Microsoft) learns: the address of the notifier
and the contact of its operator, the subscription, which is one browser on one device and is known to it with that
device's address, the moment of each push, and by urgency and lifetime whether it is a call. Not who wrote, not what, no
id of the relay; the payload is encrypted to the browser and always of the same size.
"""

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
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503
_NO_SUBSCRIBER: Final = 507
"""What ntfy says of a UnifiedPush topic that nobody listens to."""


class WebPush:
    """The channel for browsers.

    It never gives BUSY. The endpoints are chosen by strangers, on servers of their choice, and none of those is to
    silence the channel for everybody: what pauses, and how much is sent where, is up to the breaker, server by server.

    Args:
        outbound: sends.
        tokens: say who we are.
        breaker: of this channel and of others that send to push servers by their URLs.
    """

    kind: int = PushKind.WEB_PUSH
    name: str = "webpush"

    def __init__(self, outbound: Outbound, tokens: VapidTokens, breaker: Breaker) -> None:
        self._outbound = outbound
        self._tokens = tokens
        self._breaker = breaker

    def check_token(self, token: bytes) -> None:
        """Check a subscription's JSON. See `peers.notifier.channel.Channel.check_token`."""
        self._read(token)

    async def push(self, token: bytes, push: Push) -> Outcome:
        """Send one push. See `peers.notifier.channel.Channel.push`."""
        try:
            subscription, endpoint = self._read(token)
            if (held := hold(self._breaker, endpoint, token, push)) is not None:
                return held
            authorization = self._tokens.authorization(endpoint.origin)
        except ValueError as error:
            return Outcome(Result.UNUSABLE, detail=str(error))
        headers = push_headers(push) | {
            "Authorization": authorization,
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
        }
        body = encrypt(subscription, payload(push.type))
        return await send(self._outbound, self._breaker, endpoint, token, headers, body)

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


def hold(breaker: Breaker, endpoint: Endpoint, token: bytes, push: Push) -> Outcome | None:
    """Return how a push ends that is not to be sent now, None for "send it". Before anything is signed or encrypted."""
    wait = breaker.wait(
        endpoint.origin, token, call=push.type is PushType.CALL, known=push.known, trusted=endpoint.allowed
    )
    return Outcome(Result.HELD, wait, "this push server is left alone for now") if wait > 0 else None


async def send(
    outbound: Outbound, breaker: Breaker, endpoint: Endpoint, token: bytes, headers: dict[str, str], body: bytes
) -> Outcome:
    """Send to an endpoint that :func:`hold` let through, and tell how it ended."""
    try:
        reply = await outbound.post(endpoint, headers, body)
    except (Unreachable, Forbidden) as error:
        # Forbidden too: what a name resolves to says nothing of the token. A resolver that filters, lies or is behind a
        # captive portal gives inner addresses for every push server, and the whole registry would be forgotten by it. A
        # name that does lead inside fails until the registry is pruned.
        breaker.failed(endpoint.origin)
        return Outcome(Result.RETRY, detail=str(error))
    outcome = judge(reply)
    if outcome.result is Result.SENT:
        breaker.took(endpoint.origin)
    elif outcome.result is Result.STRANGE:
        breaker.strange(endpoint.origin)
    elif reply.status == _TOO_MANY:
        breaker.limited(endpoint.origin, token, reply.retry_after)
    elif reply.status == _UNAVAILABLE:
        breaker.failed(endpoint.origin, reply.retry_after)
    elif reply.status >= 500 and reply.status != _NO_SUBSCRIBER and reply.retry_after is None:
        breaker.erred(endpoint.origin)
    else:
        breaker.answered(endpoint.origin)
    return outcome


def judge(reply: Reply) -> Outcome:
    """Tell what the answer of an endpoint means (RFC 8030 §5, §7.3, §8.4; UnifiedPush says the same)."""
    status, detail = reply.status, f"status {reply.status}"
    if 200 <= status < 300:
        return Outcome(Result.SENT)
    if status in (404, 410):
        return Outcome(Result.GONE, detail=detail)
    if status in (408, 425, _TOO_MANY) or status >= 500:
        return Outcome(Result.RETRY, reply.retry_after, detail)
    if status in (401, 403):
        return Outcome(
            Result.REFUSED, detail=f"{detail}: the subscription is for another VAPID key, or our clock is wrong"
        )
    if status == 413:
        return Outcome(Result.REFUSED, detail=detail)
    # Redirects (which are not followed), 400, 405 and the like: what web sites say to those who post to them.
    return Outcome(Result.STRANGE, detail=detail)


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)
