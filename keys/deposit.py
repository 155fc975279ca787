"""The sealed deposit: what a mailbox holds for somebody who is offline (docs/mailbox.md).

    deposit   = ephemeral_x_pub(32) ciphertext(n)             1, 4, 16, 64 or 256 KiB in all
    plaintext = sender_x_pub(32) sender_ed_pub(32) packet_size(u32 LE) packet zeros
    key       = BLAKE3 derive_key( "blindrelay deposit 1",
                    x25519(ephemeral, recipient)(32) ephemeral_x_pub(32) recipient_x_pub(32)
                    mailbox_x_pub(32) mailbox_ed_pub(32) )

The ciphertext is XChaCha20-Poly1305 under that key with a nonce of zeros: safe because the ephemeral key is drawn for
this one deposit, so the key never serves twice.

What it hides. A packet by itself names nobody, but whoever hands it over does, and its length tells much of what is in
it. Sealed like this, a mailbox sees whom it is for, a size class and when it ends. It need not see from whom: the keys
of the sender lie within, and the session that deposits may be a throwaway one. Two deposits of one packet, in two
mailboxes or in the same, have nothing in common that could be compared.

What it proves: nothing about the sender. Anybody who has the recipient's public key can make one and write any keys
into it. The packet within is sealed and signed as every packet is (PROTOCOL.md §4), and only once it opens as a packet
of the keys beside it (:meth:`keys.contact.Contact.open`) does the recipient know who wrote it. Until then these keys
are a claim that says which contact to try. Keys of nobody we know are as good as an introduction: unverified.

What the binding is for. With both public keys and the mailbox's under the key, a deposit opens for one recipient and
out of one mailbox only: a copy that somebody carries to another mailbox does not open there, so what a mailbox hands
out was put into that mailbox by somebody who meant it. It may still be an old one put in again: packets are remembered
by their nonces, wherever they come from.

What it does not give. The recipient's key is a lasting one, so whoever steals its secret opens every deposit that was
recorded (the packet within has no forward secrecy either). The sender's secret opens none of them.
"""

from collections.abc import Callable
from typing import Final

from keys import primitives as p
from keys.errors import BadKey, DepositTooLarge, OpenError
from keys.identity import Identity, PublicIdentity

SIZE_CLASSES: Final = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18)
"""Bytes that a deposit may have: 1, 4, 16, 64 and 256 KiB. Steps of four waste three quarters at worst, and leave five
sizes in the world."""
DEPOSIT_OVERHEAD: Final = p.KEY_SIZE + p.TAG_SIZE + 2 * p.KEY_SIZE + 4
"""Bytes of a deposit that are neither packet nor padding (116)."""
PACKET_MAX: Final = SIZE_CLASSES[-1] - DEPOSIT_OVERHEAD
"""Most bytes of a packet in a deposit."""
DROP_SECRET_SIZE: Final = 32
"""Bytes of the secret by which a depositor deletes what it left."""
DROP_DIGEST_SIZE: Final = 16
"""Bytes of that secret's digest, which the depositor leaves. Whoever would delete for another must find a secret of
it: 2¹²⁸ trials. That its owner may find two secrets of one digest helps nobody."""

_CONTEXT: Final = "blindrelay deposit 1"
_DROP_CONTEXT: Final = "blindrelay deposit drop 1"
_NONCE: Final = bytes(p.NONCE_SIZE)


def size_class(packet_size: int) -> int:
    """Return the bytes of the deposit that a packet of so many bytes makes.

    Raises:
        DepositTooLarge: it fits none.
    """
    for size in SIZE_CLASSES:
        if packet_size + DEPOSIT_OVERHEAD <= size:
            return size
    raise DepositTooLarge(f"a packet of {packet_size} bytes fits no deposit; {PACKET_MAX} are the most")


def seal_deposit(
    sender: PublicIdentity,
    recipient_x_pub: bytes,
    mailbox: PublicIdentity,
    packet: bytes,
    random_bytes: Callable[[int], bytes] = p.random_bytes,
) -> bytes:
    """Return the deposit (1, 4, 16, 64 or 256 KiB) that carries `packet` to the owner of `recipient_x_pub`.

    Args:
        sender: the keys under which `packet` was sealed and signed. The mailbox does not learn them.
        mailbox: the keys of the mailbox that is to hold it; make another deposit for another mailbox.
        packet: a sealed packet from the sender to the recipient, at most 262,028 bytes.

    Raises:
        BadKey: `recipient_x_pub` is not canonical or of low order.
        DepositTooLarge: the packet is too long.
    """
    size = size_class(len(packet))
    seed = random_bytes(p.KEY_SIZE)
    ephemeral = p.x25519_public(seed)
    key = _key(p.x25519_shared(seed, recipient_x_pub), ephemeral, recipient_x_pub, mailbox)
    plaintext = sender.x_pub + sender.ed_pub + len(packet).to_bytes(4, "little") + packet
    return ephemeral + p.aead_seal(key, _NONCE, plaintext.ljust(size - p.KEY_SIZE - p.TAG_SIZE, b"\0"))


def open_deposit(ours: Identity, mailbox: PublicIdentity, deposit: bytes) -> tuple[PublicIdentity, bytes]:
    """Return ``(sender, packet)`` of a deposit that `mailbox` handed us. The sender is a claim until the packet opens.

    Raises:
        OpenError: for any reason.
    """
    if len(deposit) not in SIZE_CLASSES:
        raise OpenError
    ephemeral = deposit[: p.KEY_SIZE]
    try:
        shared = ours.shared_with(ephemeral)
        plaintext = p.aead_open(_key(shared, ephemeral, ours.public.x_pub, mailbox), _NONCE, deposit[p.KEY_SIZE :])
        sender = PublicIdentity(plaintext[: p.KEY_SIZE], plaintext[p.KEY_SIZE : 2 * p.KEY_SIZE])
    except BadKey:
        raise OpenError from None
    start = 2 * p.KEY_SIZE + 4
    end = start + int.from_bytes(plaintext[start - 4 : start], "little")
    # One packet has one plaintext in each size: no room for what only some readers see.
    if end > len(plaintext) or plaintext[end:].strip(b"\0") or size_class(end - start) != len(deposit):
        raise OpenError
    return sender, plaintext[start:end]


def drop_digest(secret: bytes) -> bytes:
    """Return what a depositor leaves (16 bytes) so that it can delete by showing `secret` (32 bytes, at random).

    A retry of a deposit keeps its secret: the mailbox knows it by this digest, and holds it once.

    Raises:
        BadKey: the secret has another size.
    """
    if len(secret) != DROP_SECRET_SIZE:
        raise BadKey(f"a secret for deletion has {DROP_SECRET_SIZE} bytes, not {len(secret)}")
    return p.derive_key(_DROP_CONTEXT, secret)[:DROP_DIGEST_SIZE]


def _key(shared: bytes, ephemeral: bytes, recipient_x_pub: bytes, mailbox: PublicIdentity) -> bytes:
    return p.derive_key(_CONTEXT, shared + ephemeral + recipient_x_pub + mailbox.x_pub + mailbox.ed_pub)
