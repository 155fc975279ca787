"""A NATS credentials file: a user's JWT, and the seed with which that user signs the server's nonce.

The form is that of `nsc generate creds`: both texts between lines of hyphens. The seed is 32 bytes of Ed25519 with two
bytes of kind before it and a CRC-16 (XMODEM, the low byte first) behind, in base32 without padding. The signature is
made here and not by the library's own helper, which has no wheel.
"""

import base64
import binascii
import re
from pathlib import Path
from typing import Final, NamedTuple

from keys.errors import KeyFileError
from keys.primitives import ed25519_keypair, ed25519_sign
from keys.private_file import read_private

_PARTS: Final = re.compile(
    rb"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+.*"
    rb"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+",
    re.DOTALL,
)
_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_SIZE: Final = 36


class Credentials(NamedTuple):
    """What a user of NATS shows: the JWT, and signatures under its key."""

    jwt: bytes
    signing_key: bytes

    def sign(self, nonce: bytes) -> bytes:
        """Return the signature over the server's nonce, in base64 as the library sends it."""
        return base64.b64encode(ed25519_sign(self.signing_key, nonce))

    def __repr__(self) -> str:
        return "Credentials(…)"


def read_credentials(path: Path) -> Credentials:
    """Read a credentials file, which nobody but its owner may.

    Raises:
        KeyFileError: it cannot be read, is open to others, or holds no credentials of a user.
    """
    if not path.exists():
        raise KeyFileError(f"there are no NATS credentials {path}")
    found = _PARTS.search(read_private(path))
    if found is None:
        raise KeyFileError(f"{path} holds no NATS credentials: a JWT and a seed, as nsc generate creds writes them")
    return Credentials(found[1], ed25519_keypair(_seed(path, found[2]))[1])


def _seed(path: Path, text: bytes) -> bytes:
    try:
        raw = base64.b32decode(text + b"=" * (-len(text) % 8))
    except binascii.Error:
        raw = b""
    if len(raw) != _SIZE or binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
        raise KeyFileError(f"the seed in {path} is damaged")
    # Five bits say "seed", the next five whose.
    if raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise KeyFileError(f"the seed in {path} is not that of a user")
    return raw[2:-2]
