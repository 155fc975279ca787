"""The sealed packet, the one thing that every way of delivery carries (PROTOCOL.md §4).

    packet = nonce(24) ciphertext(n + 16) signature(64)

The ciphertext is XChaCha20-Poly1305 under the raw X25519 secret of the two parties; the signature is the sender's
Ed25519 over ``nonce ciphertext``. The secret is the same in both directions and for ever, so the safety of the cipher
rests on the nonce: 24 bytes drawn at random do not repeat (birthday bound 2⁹⁶). The signature is what tells the two
directions apart: a packet that is sent back to its author does not verify under the peer's key.
"""

from collections.abc import Callable
from typing import Final

from keys import primitives as p
from keys.errors import OpenError
from keys.identity import Identity

OVERHEAD: Final = p.NONCE_SIZE + p.TAG_SIZE + p.SIGNATURE_SIZE
"""Bytes that a packet has beyond its plaintext (104)."""


def seal(
    plaintext: bytes, ours: Identity, shared: bytes, random_bytes: Callable[[int], bytes] = p.random_bytes
) -> bytes:
    """Return the packet that carries `plaintext` (any length) from us to whoever shares `shared` with us."""
    nonce = random_bytes(p.NONCE_SIZE)
    signed = nonce + p.aead_seal(shared, nonce, plaintext)
    return signed + ours.sign(signed)


def open_packet(packet: bytes, their_ed_pub: bytes, shared: bytes) -> bytes:
    """Return the plaintext of a packet: verify first, then decrypt, so that nothing unsigned reaches the cipher.

    Raises:
        OpenError: for any reason.
    """
    if len(packet) < OVERHEAD:
        raise OpenError
    signed = packet[: -p.SIGNATURE_SIZE]
    if not p.ed25519_verify(their_ed_pub, packet[-p.SIGNATURE_SIZE :], signed):
        raise OpenError
    return p.aead_open(shared, signed[: p.NONCE_SIZE], signed[p.NONCE_SIZE :])


def open_introducing(packet: bytes, shared: bytes, ed_pub_at: slice) -> tuple[bytes, bytes]:
    """Return ``(plaintext, ed_pub)`` of a packet that itself tells the key that signed it, at `ed_pub_at`.

    Only a handshake request is such a packet (PROTOCOL.md §6.1), so only there does decryption come first. That is
    safe because the AEAD alone proves that the author holds the X25519 secret (or ours); the signature then proves the
    Ed25519 key that the author claims.

    Raises:
        OpenError: for any reason.
    """
    if len(packet) < OVERHEAD:
        raise OpenError
    signed = packet[: -p.SIGNATURE_SIZE]
    plaintext = p.aead_open(shared, signed[: p.NONCE_SIZE], signed[p.NONCE_SIZE :])
    ed_pub = plaintext[ed_pub_at]
    if not p.ed25519_verify(ed_pub, packet[-p.SIGNATURE_SIZE :], signed):
        raise OpenError
    return plaintext, ed_pub
