"""Safety numbers: what two people compare to know that each has the true keys of the other (docs/chat.md).

    digest(32)    = BLAKE3 derive_key( "blindrelay safety number 1", x_pub(32) ed_pub(32) )
    fingerprint   = digest as a number, big endian, modulo 10³⁰, written with 30 digits
    safety number = the fingerprints of both, the smaller one first: 60 digits

Both keys go in, so neither can be exchanged without the other: with the Ed25519 key alone somebody could write in a
contact's name, with the X25519 key alone read what is meant for them.

Each half is made of one party's keys alone, for two reasons. A person can print theirs on a card. And whoever stands in
the middle has to find keys whose fingerprint is exactly the one of Alice, and other keys for that of Bob: nothing that
they choose stands on both sides of a comparison, so there is no birthday among 60 digits to be had, as there would be
in one digest over both parties. To hit one given fingerprint takes 10³⁰ ≈ 2⁹⁹·⁷ trials, each with a key pair of its
own; to hit any of a million people's still takes 10²⁴ ≈ 2⁸⁰, and then it fits one of them only. The digest is
therefore not iterated: that would make the trial dearer and everybody's `contacts` slower. Taking 256 bits modulo 10³⁰
prefers some numbers over others by less than one in 2¹⁵⁶.

What is compared in part protects in part: keys that agree in ten digits of a half are found by one machine in days.
"""

from typing import Final

from keys.identity import PublicIdentity
from keys.primitives import derive_key

FINGERPRINT_DIGITS: Final = 30
SAFETY_DIGITS: Final = 2 * FINGERPRINT_DIGITS
GROUP: Final = 5
"""Digits that are read in one breath."""
_CONTEXT: Final = "blindrelay safety number 1"


def fingerprint(public: PublicIdentity) -> str:
    """Return the 30 digits of one party, which are one half of every safety number of theirs."""
    digest = derive_key(_CONTEXT, public.x_pub + public.ed_pub)
    return f"{int.from_bytes(digest, 'big') % 10**FINGERPRINT_DIGITS:0{FINGERPRINT_DIGITS}d}"


def safety_number(ours: PublicIdentity, theirs: PublicIdentity) -> str:
    """Return the 60 digits that both parties see alike, whoever of them asks."""
    return "".join(sorted((fingerprint(ours), fingerprint(theirs))))


def grouped(digits: str) -> str:
    """Return `digits` in groups of five, with a space between."""
    return " ".join(digits[i : i + GROUP] for i in range(0, len(digits), GROUP))


def parse_safety_number(text: str) -> str | None:
    """Return the 60 digits of a number as people write it, whatever white space is in it; None if it is none."""
    digits = "".join(text.split())
    return digits if len(digits) == SAFETY_DIGITS and digits.isascii() and digits.isdigit() else None
