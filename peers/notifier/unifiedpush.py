"""UnifiedPush (kind 3): an endpoint of a push server that people may run themselves, ntfy above all.

What the push server learns: the address of the notifier, the endpoint, which is one app on one device and is known to
it with that device's address, the moment of each push, and by urgency and lifetime whether it is a call. Where the
distributor gave no keys it reads the payload too, which is a constant and says the same. Not who wrote, not what, no id
of the relay. Nobody but its operator learns it, who may be oneself.
"""

from typing import Final

from peers.notifier.breaker import Breaker
from peers.notifier.channel import Outcome, Push, PushType, Result
from peers.notifier.endpoints import Endpoint
from peers.notifier.outbound import Outbound
from peers.notifier.payload import payload
from peers.notifier.subscriptions import TOKEN_MAX
from peers.notifier.webpush import WebPush, hold, push_headers, send
from wire.commands import PushKind

_PRIORITIES: Final = {PushType.MESSAGE: "default", PushType.CALL: "high"}
"""ntfy's own header; other push servers go by Urgency."""


class UnifiedPush:
    """The channel for UnifiedPush distributors: Web Push where the distributor gave keys, else a POST of a constant.

    Args:
        outbound: sends.
        webpush: takes the tokens that are subscriptions.
        breaker: the one of `webpush`: many servers have endpoints of both kinds.
    """

    kind: int = PushKind.UNIFIED_PUSH
    name: str = "unifiedpush"

    def __init__(self, outbound: Outbound, webpush: WebPush, breaker: Breaker) -> None:
        self._outbound = outbound
        self._webpush = webpush
        self._breaker = breaker

    def check_token(self, token: bytes) -> None:
        """Check a URL or a subscription's JSON. See `peers.notifier.channel.Channel.check_token`."""
        if _is_subscription(token):
            self._webpush.check_token(token)
        else:
            self._read(token)

    async def push(self, token: bytes, push: Push) -> Outcome:
        """Send one push. See `peers.notifier.channel.Channel.push`."""
        if _is_subscription(token):
            return await self._webpush.push(token, push)
        try:
            endpoint = self._read(token)
        except ValueError as error:
            return Outcome(Result.UNUSABLE, detail=str(error))
        if (held := hold(self._breaker, endpoint, token, push)) is not None:
            return held
        headers = push_headers(push) | {"Priority": _PRIORITIES[push.type], "Content-Type": "application/json"}
        return await send(self._outbound, self._breaker, endpoint, token, headers, payload(push.type))

    async def close(self) -> None:
        """Keep nothing open: the connections belong to `Outbound`."""

    def _read(self, token: bytes) -> Endpoint:
        if len(token) > TOKEN_MAX:
            raise ValueError(f"an endpoint has {TOKEN_MAX} bytes at most")
        try:
            return self._outbound.check(token.decode())
        except UnicodeDecodeError:
            raise ValueError("an endpoint is an https:// URL") from None


def _is_subscription(token: bytes) -> bool:
    """No URL begins like that."""
    return token.lstrip().startswith(b"{")
