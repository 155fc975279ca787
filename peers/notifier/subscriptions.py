"""Web Push subscriptions as browsers and UnifiedPush distributors give them: JSON with an endpoint and two keys."""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from py_vapid import Vapid02

from peers.notifier.vapid import encode64

TOKEN_MAX: Final = 4096
"""Bytes of a token (PROTOCOL.md §7.10)."""
_P256DH_SIZE: Final = 65
_AUTH_SIZE: Final = 16
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where to push, and the keys that only the device has the other halves of (RFC 8291 §3)."""

    endpoint: str = field(repr=False)
    p256dh: str = field(repr=False)
    """The device's P-256 key, an uncompressed point, in unpadded base64url."""
    auth: str = field(repr=False)
    """The 16 bytes of the authentication secret, in unpadded base64url."""


def read_subscription(token: bytes) -> Subscription:
    """Read the JSON of a PushSubscription: ``{"endpoint": …, "keys": {"p256dh": …, "auth": …}}``.

    Other members are ignored. The endpoint is a text and not yet checked.

    Raises:
        ValueError: it is none; the text does not repeat it.
    """
    if len(token) > TOKEN_MAX:
        raise ValueError(f"a subscription has {TOKEN_MAX} bytes at most")
    try:
        told = json.loads(token)
    except (ValueError, RecursionError):
        raise ValueError("a subscription is JSON") from None
    keys = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(keys, dict):
        raise ValueError(  # noqa: TRY004 - a stranger's JSON, not our caller's argument
            'a subscription is {"endpoint": …, "keys": {"p256dh": …, "auth": …}}'
        )
    endpoint = told.get("endpoint")
    if not isinstance(endpoint, str):
        raise ValueError("the subscription has no endpoint")  # noqa: TRY004
    p256dh = _decode(keys.get("p256dh"), _P256DH_SIZE, "p256dh")
    try:
        # Off the curve, a chosen point could tell about the other half of what we multiply it by. That one is fresh for
        # each push; but nothing can be sent to such a key either.
        Vapid02.from_raw_public(encode64(p256dh).encode())
    except ValueError:
        raise ValueError("the subscription's p256dh is no point of P-256") from None
    return Subscription(endpoint, encode64(p256dh), encode64(_decode(keys.get("auth"), _AUTH_SIZE, "auth")))


def _decode(text: Any, size: int, name: str) -> bytes:
    if isinstance(text, str) and len(text) <= 2 * size and _BASE64URL.fullmatch(text):
        bare = text.rstrip("=")
        try:
            data = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
        except binascii.Error:
            data = b""
        if len(data) == size:
            return data
    raise ValueError(f"the subscription's {name} is {size} bytes in base64url")
