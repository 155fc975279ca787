"""The cryptographic primitives, and the only module that imports the libraries behind them.

X25519 (RFC 7748), XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), Ed25519 (RFC 8032), Argon2id (RFC 9106) and
XSalsa20-Poly1305 come from libsodium by PyNaCl; BLAKE3 from its reference implementation in Rust; the ChaCha20 header
keystream (RFC 8439) from `cryptography`, whose contexts can be kept and re-nonced. Keys are plain ``bytes`` here:
objects that hide them from ``repr`` are a matter of the modules above.

AES-256-GCM and PBKDF2 are here for one foreign file format only, and nothing new is to be built on them.
"""

import hashlib
import hmac
import os
from collections.abc import Callable
from struct import pack, unpack
from typing import Final

import nacl.bindings as sodium
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from nacl.exceptions import CryptoError

from keys.errors import BadKey, OpenError

KEY_SIZE: Final = 32
"""Bytes of an X25519 or Ed25519 public key, of a seed, and of every symmetric key."""
NONCE_SIZE: Final = 24
"""Bytes of an XChaCha20-Poly1305 nonce: long enough to be drawn at random for every packet under one key."""
TAG_SIZE: Final = 16
"""Bytes of the Poly1305 tag."""
SIGNATURE_SIZE: Final = 64
"""Bytes of an Ed25519 signature."""
SALT_SIZE: Final = sodium.crypto_pwhash_SALTBYTES
"""Bytes of an Argon2id salt."""

_P: Final = 2**255 - 19


def random_bytes(size: int) -> bytes:
    """Return `size` bytes from the operating system's generator."""
    return os.urandom(size)


def constant_time_equal(ours: bytes, theirs: bytes) -> bool:
    """Compare without telling by the time taken where the first difference lies."""
    return hmac.compare_digest(ours, theirs)


# --- X25519 ---------------------------------------------------------------------------------------------------------


def x25519_public(seed: bytes) -> bytes:
    """Return the public key (32 bytes) of a 32-byte seed; clamping is part of the multiplication (RFC 7748 §5)."""
    _check_size(seed, KEY_SIZE, "an X25519 secret")
    return sodium.crypto_scalarmult_base(seed)


def check_x25519_public(public: bytes) -> bytes:
    """Return `public` when it is spelled canonically.

    X25519 ignores bit 255 and reduces modulo 2²⁵⁵−19, so another spelling of a key gives the same secret. Were it
    accepted, one owner could appear under several ids, and two texts could name one key.

    Raises:
        BadKey: wrong size, bit 255 set, or not below 2²⁵⁵−19.
    """
    _check_size(public, KEY_SIZE, "an X25519 public key")
    # The last byte decides all but one case in 2²⁴⁷, so the big number is rarely made.
    if public[31] >= 0x7F and int.from_bytes(public, "little") >= _P:
        raise BadKey("the X25519 public key is not canonical")
    return public


def x25519_shared(seed: bytes, public: bytes) -> bytes:
    """Return the raw shared secret (32 bytes) of our seed and their public key.

    Raises:
        BadKey: `public` is not canonical, or of low order (RFC 7748 §6.1: the result would be all zeros whatever our
            secret is, so that anybody could compute it).
    """
    _check_size(seed, KEY_SIZE, "an X25519 secret")
    check_x25519_public(public)
    try:
        return sodium.crypto_scalarmult(seed, public)
    except RuntimeError as error:  # PyNaCl's own RuntimeError derives from the built-in one
        raise BadKey("the X25519 public key is of low order") from error


_ANY_SCALAR: Final = bytes(KEY_SIZE)


def check_x25519_order(public: bytes) -> bytes:
    """Return `public` when a secret shared with its owner depends on the secrets of both. Costs a multiplication.

    One scalar decides for all: clamped scalars are multiples of the cofactors of the curve (8) and of its twist (4),
    and too small to be multiples of either large prime, so a point is sent to zero by all of them or by none.

    Raises:
        BadKey: wrong size, not canonical, or of low order.
    """
    x25519_shared(_ANY_SCALAR, public)
    return public


# --- Ed25519 --------------------------------------------------------------------------------------------------------


def ed25519_keypair(seed: bytes) -> tuple[bytes, bytes]:
    """Return ``(public key, signing key)`` of a 32-byte seed; the signing key is libsodium's ``seed public`` (64)."""
    _check_size(seed, KEY_SIZE, "an Ed25519 secret")
    return sodium.crypto_sign_seed_keypair(seed)


def check_ed25519_public(public: bytes) -> bytes:
    """Return `public` when it is a key that a seed can have: a point of the prime-order subgroup, spelled canonically.

    Under any other key either nothing verifies or, for points of mixed order, verifiers disagree.

    Raises:
        BadKey: wrong size, no point, not canonical, or not in the subgroup (low order included).
    """
    _check_size(public, KEY_SIZE, "an Ed25519 public key")
    if not sodium.crypto_core_ed25519_is_valid_point(public):
        raise BadKey("the Ed25519 public key is not one that a secret can have")
    return public


def ed25519_sign(signing_key: bytes, message: bytes) -> bytes:
    """Return the 64-byte signature of `message`."""
    return sodium.crypto_sign(message, signing_key)[:SIGNATURE_SIZE]


def ed25519_verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` is the owner of `public`'s over `message` (low-order keys never verify)."""
    if len(public) != KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        return False
    try:
        sodium.crypto_sign_open(signature + message, public)
    except CryptoError:
        return False
    return True


# --- XChaCha20-Poly1305 ---------------------------------------------------------------------------------------------


def aead_seal(key: bytes, nonce: bytes, plaintext: bytes, bound: bytes | None = None) -> bytes:
    """Return `plaintext` sealed: its length plus a 16-byte tag. A nonce must never serve twice under one key.

    `bound` (associated data) is not in the result, and who opens has to give the same.
    """
    return sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, bound, nonce, key)


def aead_open(key: bytes, nonce: bytes, ciphertext: bytes, bound: bytes | None = None) -> bytes:
    """Return what :func:`aead_seal` sealed.

    Raises:
        OpenError: for any reason.
    """
    if len(ciphertext) < TAG_SIZE:
        raise OpenError
    try:
        return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, bound, nonce, key)
    except CryptoError:
        raise OpenError from None


class AeadStream:
    """XChaCha20-Poly1305 under one key with counted nonces: 16 zero bytes and a count of 8 (big endian).

    The same bytes as :func:`aead_seal` with that nonce, three times as fast and more for large messages: XChaCha20 is
    ChaCha20 (RFC 8439) under a subkey of the key and the nonce's first 16 bytes (draft-irtf-cfrg-xchacha §2.3). These
    do not change here, so the subkey is made once, and OpenSSL does the rest. No count may serve twice under one key.
    """

    __slots__ = ("_open", "_seal")

    def __init__(self, key: bytes) -> None:
        _check_size(key, KEY_SIZE, "an AEAD key")
        aead = ChaCha20Poly1305(_hchacha20(key, bytes(16)))
        self._seal, self._open = aead.encrypt, aead.decrypt

    def seal(self, count: int, plaintext: bytes, bound: bytes) -> bytes:
        """Return `plaintext` sealed: its length plus a 16-byte tag."""
        return self._seal(count.to_bytes(12, "big"), plaintext, bound)

    def open(self, count: int, ciphertext: bytes | memoryview, bound: bytes) -> bytes:
        """Return what :meth:`seal` sealed under the same count.

        Raises:
            OpenError: for any reason.
        """
        try:
            return self._open(count.to_bytes(12, "big"), ciphertext, bound)
        except InvalidTag:
            raise OpenError from None

    def __repr__(self) -> str:
        return "AeadStream(…)"


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return HChaCha20 of a key and 16 bytes (draft-irtf-cfrg-xchacha §2.2).

    It is the first and last four words of the ChaCha20 state after its rounds. A block of keystream is that state with
    the initial one added, which is known and so can be taken off.
    """
    block = unpack("<16I", Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64)))
    initial = unpack("<16I", b"expand 32-byte k" + key + nonce)
    rounds = [(word - before) & 0xFFFFFFFF for word, before in zip(block, initial, strict=True)]
    return pack("<8I", *rounds[:4], *rounds[12:])


# --- BLAKE3 ---------------------------------------------------------------------------------------------------------


def derive_key(context: str, material: bytes) -> bytes:
    """Return 32 bytes derived from `material` for one purpose, which `context` names (BLAKE3 ``derive_key``)."""
    return blake3(material, derive_key_context=context).digest()


def keyed_digest(key: bytes, data: bytes, size: int = 16) -> bytes:
    """Return `size` bytes of BLAKE3 keyed with the 32-byte `key`."""
    return blake3(data, key=key).digest(length=size)


class Digest:
    """BLAKE3 of bytes that come in pieces; other threads run while a piece is digested."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = blake3()

    def update(self, data: bytes | memoryview) -> None:
        """Take the next piece."""
        self._state.update(data)

    def digest(self) -> bytes:
        """Return the 32 bytes for all that came so far."""
        return self._state.digest()


# --- ChaCha20 header keystream --------------------------------------------------------------------------------------

COUNTER_0: Final = bytes(4)
"""Block counter 0 of ChaCha20 as `HeaderKeystream` wants it before a nonce: u32, little endian."""


class HeaderKeystream:
    """The ChaCha20 keystream that masks routing headers under one key.

    The cipher context is made at the first use and kept: giving it a new nonce costs a tenth of making another. It
    weighs more than a kilobyte, so :meth:`rest` lets go of it where the next use is not near.
    """

    __slots__ = ("_key", "_methods")

    def __init__(self, key: bytes) -> None:
        _check_size(key, KEY_SIZE, "a header key")
        self._key = key
        self._methods: tuple[Callable[[bytes], None], Callable[[bytes], bytes]] | None = None

    @property
    def methods(self) -> tuple[Callable[[bytes], None], Callable[[bytes], bytes]]:
        """The two steps of :meth:`xor`, for whoever masks many headers in one go: ``reset(COUNTER_0 + nonce[:12])``
        starts the keystream of a nonce (16 bytes, none more), ``update(header)`` applies it. Each reset serves once.
        """
        methods = self._methods
        if methods is None:
            # `cryptography` takes the block counter (u32 LE) and the nonce of RFC 8439 as one 16-byte value.
            context = Cipher(ChaCha20(self._key, bytes(16)), mode=None).encryptor()
            methods = self._methods = (context.reset_nonce, context.update)
        return methods

    def xor(self, header: bytes, nonce: bytes) -> bytes:
        """Return `header` (8 bytes) XOR the start of keystream block 0 under ``nonce[:12]``.

        Masking and unmasking are the same operation. `nonce` needs 12 bytes or more; those beyond are not used.
        """
        reset, update = self.methods
        reset(COUNTER_0 + nonce[:12])
        return update(header)

    @property
    def awake(self) -> bool:
        """Whether there is a cipher context now."""
        return self._methods is not None

    def rest(self) -> None:
        """Let go of the cipher context; the next use makes another."""
        self._methods = None

    def __repr__(self) -> str:
        return "HeaderKeystream(…)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a header keystream is not pickled: its key would travel in clear")


# --- Passphrases ----------------------------------------------------------------------------------------------------


def passphrase_key(passphrase: bytes, salt: bytes, *, opslimit: int, memlimit: int) -> bytes:
    """Return the 32-byte key of a passphrase by Argon2id (RFC 9106): `opslimit` passes over `memlimit` bytes.

    Raises:
        MemoryError: `memlimit` bytes cannot be had.
    """
    try:
        return sodium.crypto_pwhash_alg(
            KEY_SIZE, passphrase, salt, opslimit, memlimit, sodium.crypto_pwhash_ALG_ARGON2ID13
        )
    except RuntimeError:  # all that libsodium's result can mean once PyNaCl has checked the arguments
        raise MemoryError("not enough memory to derive the key of a passphrase") from None


SECRETBOX_OVERHEAD: Final = NONCE_SIZE + TAG_SIZE
"""Bytes that :func:`secretbox_seal` adds."""


def secretbox_seal(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """Return ``nonce(24) ciphertext`` under XSalsa20-Poly1305 (libsodium's secretbox)."""
    return nonce + sodium.crypto_secretbox(plaintext, nonce, key)


def secretbox_open(key: bytes, sealed: bytes) -> bytes:
    """Return what :func:`secretbox_seal` sealed.

    Raises:
        OpenError: for any reason.
    """
    if len(sealed) < SECRETBOX_OVERHEAD:
        raise OpenError
    try:
        return sodium.crypto_secretbox_open(sealed[NONCE_SIZE:], sealed[:NONCE_SIZE], key)
    except CryptoError:
        raise OpenError from None


# --- Of a foreign file format ---------------------------------------------------------------------------------------

AES_GCM_NONCE_SIZE: Final = 12
"""Bytes of an AES-GCM nonce as that format has it (NIST SP 800-38D §8.2 recommends no other)."""
AES_GCM_TAG_SIZE: Final = 16
"""Bytes that :func:`aes256_gcm_seal` adds."""


def aes256_gcm_seal(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """Return ``ciphertext tag(16)`` under AES-256-GCM (NIST SP 800-38D), as WebCrypto arranges it.

    For telefon's account file only. A nonce that serves twice under one key gives away the authentication key, and 12
    bytes are too few to be drawn at random often: so each key is made for one file, from a salt of its own.

    Raises:
        BadKey: a key that has not 32 bytes, or a nonce that has not 12.
    """
    return _aes256_gcm(key, nonce).encrypt(nonce, plaintext, None)


def aes256_gcm_open(key: bytes, nonce: bytes, ciphertext: bytes) -> bytes:
    """Return what :func:`aes256_gcm_seal` sealed. For telefon's account file only.

    Raises:
        BadKey: a key that has not 32 bytes, or a nonce that has not 12.
        OpenError: for any other reason.
    """
    cipher = _aes256_gcm(key, nonce)
    if len(ciphertext) < AES_GCM_TAG_SIZE:
        raise OpenError
    try:
        return cipher.decrypt(nonce, ciphertext, None)
    except InvalidTag:
        raise OpenError from None


def pbkdf2_hmac_sha256(passphrase: bytes, salt: bytes, iterations: int) -> bytes:
    """Return the 32-byte key of a passphrase by PBKDF2 with HMAC-SHA-256 (RFC 8018 §5.2).

    For telefon's account file only: it takes no memory, so that guessing is cheap on graphics cards. Whoever reads
    `iterations` from a file bounds it first; ten million take some seconds.
    """
    return hashlib.pbkdf2_hmac("sha256", passphrase, salt, iterations, KEY_SIZE)


def _aes256_gcm(key: bytes, nonce: bytes) -> AESGCM:
    _check_size(key, KEY_SIZE, "an AES-256 key")  # AESGCM would take 16 and 24 as well
    _check_size(nonce, AES_GCM_NONCE_SIZE, "an AES-GCM nonce")
    return AESGCM(key)


def _check_size(value: bytes, size: int, what: str) -> None:
    if len(value) != size:
        raise BadKey(f"{what} has {size} bytes, not {len(value)}")
