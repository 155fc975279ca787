"""The proof by which a mailbox knows whose post it hands out, where no session proves it already (docs/mailbox.md).

    ticket    = issued_ms(u64 LE) salt(16)
    challenge = ticket(24) ephemeral_x_pub(32) ciphertext(32 + 16)               104 bytes
    answer    = ticket(24) proof(32)                                             56 bytes
    token     = BLAKE3 keyed( derive_key("blindrelay pickup token 1", secret),
                    ticket recipient_x_pub(32) mailbox_x_pub(32) mailbox_ed_pub(32) )
    key       = derive_key( "blindrelay pickup challenge 1",
                    x25519(ephemeral, recipient)(32) ephemeral_x_pub(32) recipient_x_pub(32)
                    mailbox_x_pub(32) mailbox_ed_pub(32) ticket(24) )
    proof     = derive_key( "blindrelay pickup answer 1",
                    token(32) recipient_x_pub(32) mailbox_x_pub(32) mailbox_ed_pub(32)
                    url_size(u16 LE) url operation(u8) arguments )

The mailbox seals a token to the recipient's X25519 key (XChaCha20-Poly1305 under `key`, a nonce of zeros: the key
serves once, for the ephemeral one is fresh). Only who holds that key's secret learns the token, and shows it by a
digest under it. The token is made of the mailbox's own secret and of the ticket, which comes back with the answer: so
the mailbox keeps nothing for those who ask and never answer, and a wrong answer costs it two digests, no more.

What the answer binds. The mailbox's keys and the address that the client dialled, as its card has them: a mailbox that
passes another's challenge on to its own clients gets answers that the other refuses, and a client that dialled
another mailbox than the one that made the challenge cannot even open it. The operation and its arguments: whoever sits
in between cannot turn a fetch into a deletion, nor name other items. The recipient: a token is of no use for another.

What it leaves. Within its lifetime an answer verifies again; the caller uses each ticket once. Whoever sits between
client and mailbox sees what comes back (deposits, sealed) and can withhold it: the address in a card had better be
https:// or wss://.

Nothing is looked up before the answer has been checked, and a challenge is made for every key alike. So a stranger
learns nothing by asking: a key for which much is held and one that nobody ever heard of give the same.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from keys import primitives as p
from keys.errors import BadKey, OpenError
from keys.identity import Identity, PublicIdentity
from keys.invite import URL_MAX

_SALT_SIZE: Final = 16
TICKET_SIZE: Final = 8 + _SALT_SIZE
CHALLENGE_SIZE: Final = TICKET_SIZE + p.KEY_SIZE + p.KEY_SIZE + p.TAG_SIZE
"""Bytes of a challenge (104)."""
ANSWER_SIZE: Final = TICKET_SIZE + p.KEY_SIZE
"""Bytes of an answer (56)."""

_SEALED_CONTEXT: Final = "blindrelay pickup token 1"
_CHALLENGE_CONTEXT: Final = "blindrelay pickup challenge 1"
_ANSWER_CONTEXT: Final = "blindrelay pickup answer 1"
_NONCE: Final = bytes(p.NONCE_SIZE)


class Ticket(NamedTuple):
    """What names a challenge; to be used once.

    Attributes:
        issued: when the mailbox made it, in milliseconds of the mailbox's own counting.
        salt: 16 random bytes.
    """

    issued: int
    salt: bytes


def make_challenge(
    secret: bytes,
    mailbox: PublicIdentity,
    recipient_x_pub: bytes,
    now: int,
    random_bytes: Callable[[int], bytes] = p.random_bytes,
) -> bytes:
    """Return a challenge (104 bytes) that only the owner of `recipient_x_pub` can answer. Two multiplications.

    Args:
        secret: 32 random bytes of this mailbox, of any lifetime longer than a challenge's; they never leave it.
        now: milliseconds, of any clock that does not go back while `secret` lives; at most 2⁶⁴ − 1.

    Raises:
        BadKey: the recipient's key is not canonical or of low order.
    """
    ticket = now.to_bytes(8, "little") + random_bytes(_SALT_SIZE)
    seed = random_bytes(p.KEY_SIZE)
    ephemeral = p.x25519_public(seed)
    key = _challenge_key(p.x25519_shared(seed, recipient_x_pub), ephemeral, recipient_x_pub, mailbox, ticket)
    return ticket + ephemeral + p.aead_seal(key, _NONCE, _token(secret, ticket, recipient_x_pub, mailbox))


def answer_challenge(
    ours: Identity, mailbox: PublicIdentity, url: str, operation: int, arguments: bytes, challenge: bytes
) -> bytes:
    """Return the answer (56 bytes) that asks `mailbox` for one operation in our name.

    Args:
        url: the address that we dialled, as the mailbox's card has it.
        operation: the code of the command that we ask for (0 to 255).
        arguments: its body, exactly as it is sent.

    Raises:
        OpenError: the challenge was not made for us by this mailbox, or is none.
    """
    if len(challenge) != CHALLENGE_SIZE:
        raise OpenError
    ticket = challenge[:TICKET_SIZE]
    ephemeral = challenge[TICKET_SIZE : TICKET_SIZE + p.KEY_SIZE]
    try:
        shared = ours.shared_with(ephemeral)
    except BadKey:
        raise OpenError from None
    key = _challenge_key(shared, ephemeral, ours.public.x_pub, mailbox, ticket)
    token = p.aead_open(key, _NONCE, challenge[TICKET_SIZE + p.KEY_SIZE :])
    return ticket + _proof(token, ours.public.x_pub, mailbox, url, operation, arguments)


def check_answer(
    secret: bytes,
    mailbox: PublicIdentity,
    url: str,
    recipient_x_pub: bytes,
    operation: int,
    arguments: bytes,
    answer: bytes,
    now: int,
    lifetime: int,
) -> Ticket:
    """Return the ticket of an answer by the owner of `recipient_x_pub`. The caller takes each ticket once.

    Args:
        url: our address, as our card has it.
        now: as for :func:`make_challenge`.
        lifetime: milliseconds for which a challenge can be answered.

    Raises:
        OpenError: for any reason: no answer, another's, to another challenge, for another operation, too late.
    """
    if len(answer) != ANSWER_SIZE:
        raise OpenError
    ticket = answer[:TICKET_SIZE]
    issued = int.from_bytes(ticket[:8], "little")
    token = _token(secret, ticket, recipient_x_pub, mailbox)
    proof = _proof(token, recipient_x_pub, mailbox, url, operation, arguments)
    if not (p.constant_time_equal(proof, answer[TICKET_SIZE:]) and 0 <= now - issued <= lifetime):
        raise OpenError
    return Ticket(issued, ticket[8:])


def _token(secret: bytes, ticket: bytes, recipient_x_pub: bytes, mailbox: PublicIdentity) -> bytes:
    bound = ticket + recipient_x_pub + mailbox.x_pub + mailbox.ed_pub
    return p.keyed_digest(p.derive_key(_SEALED_CONTEXT, secret), bound, p.KEY_SIZE)


def _challenge_key(
    shared: bytes, ephemeral: bytes, recipient_x_pub: bytes, mailbox: PublicIdentity, ticket: bytes
) -> bytes:
    bound = ephemeral + recipient_x_pub + mailbox.x_pub + mailbox.ed_pub + ticket
    return p.derive_key(_CHALLENGE_CONTEXT, shared + bound)


def _proof(
    token: bytes, recipient_x_pub: bytes, mailbox: PublicIdentity, url: str, operation: int, arguments: bytes
) -> bytes:
    address = url.encode("utf-8", "surrogatepass")
    if len(address) > URL_MAX or not 0 <= operation <= 0xFF:
        raise OpenError  # no card has such an address, and no command such a code
    # All but the last have one size or tell it, so that no two askings make the same bytes.
    bound = recipient_x_pub + mailbox.x_pub + mailbox.ed_pub + len(address).to_bytes(2, "little") + address
    return p.derive_key(_ANSWER_CONTEXT, token + bound + bytes((operation,)) + arguments)
