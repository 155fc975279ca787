"""What a push says: the same bytes for everybody, of the same size for a message and a call."""

import json
from typing import Final

from peers.notifier.channel import PushType

PAYLOAD_SIZE: Final = 64
"""Bytes of every payload. Once it is encrypted, its size does not tell what it is."""


def payload(kind: PushType) -> bytes:
    """Return ``{"type":"message"}`` or ``{"type":"call"}``, padded with spaces, which JSON allows."""
    return json.dumps({"type": kind.value}, separators=(",", ":")).encode().ljust(PAYLOAD_SIZE)
