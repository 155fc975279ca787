"""The routing header's masks (PROTOCOL.md §5).

A header on the wire is the 8 clear bytes XOR the first 8 of the ChaCha20 keystream (RFC 8439, block counter 0) under a
key of the session and direction, with the first 12 bytes of the nonce of the packet that follows.

This hides ids from somebody who sees frames but holds no session secret. It is no privacy boundary by itself: the keys
are static, so two frames with one nonce share one mask, and the relay reads every header, as it must.
"""

from typing import Final

from keys.primitives import HeaderKeystream, derive_key

CONTEXT_C2S: Final = "ws.lleo.me v2 route c2s"
CONTEXT_S2C: Final = "ws.lleo.me v2 route s2c"


def client_to_server(shared: bytes) -> HeaderKeystream:
    """Return the keystream for headers from the client to the relay; `shared` is their X25519 secret (32 bytes)."""
    return HeaderKeystream(derive_key(CONTEXT_C2S, shared))


def server_to_client(shared: bytes) -> HeaderKeystream:
    """Return the keystream for headers from the relay to the client; `shared` is their X25519 secret (32 bytes)."""
    return HeaderKeystream(derive_key(CONTEXT_S2C, shared))
