"""keys/primitives.py against published vectors, and against implementations that are not ours."""

import pickle
from typing import TYPE_CHECKING

import nacl.bindings
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from keys import primitives as p
from keys.errors import BadKey, OpenError
from tests.keys.known import LOW_ORDER_ED, LOW_ORDER_X, NOT_CANONICAL_ED, NOT_CANONICAL_X, VECTORS, unhex

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = st.binary(min_size=32, max_size=32)


# --- X25519 ---------------------------------------------------------------------------------------------------------


def test_x25519_rfc7748_section_5_2() -> None:
    scalar = unhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    u = unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert p.x25519_shared(scalar, u).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_x25519_rfc7748_section_5_2_iterated_once() -> None:
    nine = b"\x09" + bytes(31)
    assert p.x25519_shared(nine, nine).hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert p.x25519_public(nine) == p.x25519_shared(nine, nine)


def test_x25519_rfc7748_section_6_1() -> None:
    bob = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert p.x25519_public(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert p.x25519_shared(bob, alice_public).hex() == shared


@pytest.mark.parametrize("point", LOW_ORDER_X)
def test_low_order_points_are_refused_whatever_our_secret(point: str) -> None:
    public = unhex(point)
    assert p.check_x25519_public(public) == public  # canonical: the order is why
    for seed in (bytes(32), b"\xff" * 32, b"\x21" * 32):
        with pytest.raises(BadKey, match="low order"):
            p.x25519_shared(seed, public)
    with pytest.raises(BadKey, match="low order"):
        p.check_x25519_order(public)


@pytest.mark.parametrize("public", NOT_CANONICAL_X)
def test_other_spellings_of_a_key_are_refused(public: str) -> None:
    for check in (p.check_x25519_public, p.check_x25519_order):
        with pytest.raises(BadKey, match="not canonical"):
            check(unhex(public))
    with pytest.raises(BadKey, match="not canonical"):
        p.x25519_shared(b"\x21" * 32, unhex(public))


def test_the_greatest_canonical_key_that_is_not_of_low_order_passes() -> None:
    public = (2**255 - 19 - 2).to_bytes(32, "little")
    assert p.check_x25519_order(public) == public


@given(KEYS)
def test_canonical_means_the_number_is_below_the_prime(public: bytes) -> None:
    try:
        p.check_x25519_public(public)
    except BadKey:
        assert int.from_bytes(public, "little") >= 2**255 - 19
    else:
        assert int.from_bytes(public, "little") < 2**255 - 19


@given(KEYS, KEYS)
def test_both_sides_share_one_secret(a: bytes, b: bytes) -> None:
    assert p.x25519_shared(a, p.x25519_public(b)) == p.x25519_shared(b, p.x25519_public(a))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_sizes_are_checked(size: int) -> None:
    wrong, right = bytes(size), b"\x21" * 32
    for call in (
        lambda: p.x25519_public(wrong),
        lambda: p.check_x25519_public(wrong),
        lambda: p.check_ed25519_public(wrong),
        lambda: p.x25519_shared(wrong, right),
        lambda: p.x25519_shared(right, wrong),
        lambda: p.ed25519_keypair(wrong),
        lambda: p.HeaderKeystream(wrong),
    ):
        with pytest.raises(BadKey, match=f"32 bytes, not {size}"):
            call()


# --- Ed25519 --------------------------------------------------------------------------------------------------------

RFC8032 = [  # §7.1, tests 1 and 2: seed, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC8032)
def test_ed25519_rfc8032(seed: str, public: str, message: str, signature: str) -> None:
    made, signing_key = p.ed25519_keypair(unhex(seed))
    assert made.hex() == public
    assert p.check_ed25519_public(made) == made
    assert p.ed25519_sign(signing_key, unhex(message)).hex() == signature
    assert p.ed25519_verify(made, unhex(signature), unhex(message))
    assert not p.ed25519_verify(made, unhex(signature), unhex(message) + b"\0")


def test_a_signature_has_one_form() -> None:
    # RFC 8032 §5.1.7 wants S below the group order; S + L would verify for those who do not look.
    order = 2**252 + 27742317777372353535851937790883648493
    public, signing_key = p.ed25519_keypair(b"\x22" * 32)
    signature = p.ed25519_sign(signing_key, b"message")
    other_s = int.from_bytes(signature[32:], "little") + order
    assert not p.ed25519_verify(public, signature[:32] + other_s.to_bytes(32, "little"), b"message")


@pytest.mark.parametrize("public", LOW_ORDER_ED + NOT_CANONICAL_ED)
def test_keys_that_no_seed_can_have_are_refused(public: str) -> None:
    with pytest.raises(BadKey, match="not one that a secret can have"):
        p.check_ed25519_public(unhex(public))


@pytest.mark.parametrize("public", LOW_ORDER_ED)
def test_under_keys_of_low_order_nothing_verifies(public: str) -> None:
    # R = identity, S = 0 satisfies the equation for any message under the key of order 1.
    forged = b"\x01" + bytes(63)
    for message in (b"", b"anything", b"else"):
        assert not p.ed25519_verify(unhex(public), forged, message)


def test_points_of_mixed_order_are_refused() -> None:
    public, _ = p.ed25519_keypair(b"\x22" * 32)
    mixed = nacl.bindings.crypto_core_ed25519_add(public, unhex(LOW_ORDER_ED[4]))
    with pytest.raises(BadKey):
        p.check_ed25519_public(mixed)


@pytest.mark.parametrize(("public", "signature"), [(b"", bytes(64)), (bytes(31), bytes(64)), (bytes(32), bytes(63))])
def test_verifying_with_wrong_sizes_is_false(public: bytes, signature: bytes) -> None:
    assert not p.ed25519_verify(public, signature, b"message")


# --- XChaCha20-Poly1305 ---------------------------------------------------------------------------------------------


def chacha20_rounds(state: list[int]) -> list[int]:
    x = list(state)

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for target, source, other, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[target] = (x[target] + x[source]) & 0xFFFFFFFF
            mixed = x[other] ^ x[target]
            x[other] = ((mixed << turn) | (mixed >> (32 - turn))) & 0xFFFFFFFF

    for _ in range(10):
        for column in range(4):
            quarter(column, column + 4, column + 8, column + 12)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return x


def words(raw: bytes) -> list[int]:
    return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]


def raw_of(numbers: list[int]) -> bytes:
    return b"".join(n.to_bytes(4, "little") for n in numbers)


CONSTANTS = words(b"expand 32-byte k")


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    state = [*CONSTANTS, *words(key), counter, *words(nonce)]
    return raw_of([(a + b) & 0xFFFFFFFF for a, b in zip(state, chacha20_rounds(state), strict=True)])


def poly1305(key: bytes, message: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(message), 16):
        total = (total + int.from_bytes(message[i : i + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def reference_aead(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """AEAD_XChaCha20_Poly1305 as draft-irtf-cfrg-xchacha-03 and RFC 8439 write it down: slow, and not libsodium."""
    mixed = chacha20_rounds([*CONSTANTS, *words(key), *words(nonce[:16])])
    subkey, short = raw_of(mixed[:4] + mixed[12:]), bytes(4) + nonce[16:]
    blocks = (chacha20_block(subkey, 1 + i, short) for i in range(-(-len(plaintext) // 64)))
    ciphertext = bytes(a ^ b for a, b in zip(plaintext, b"".join(blocks), strict=False))

    def pad(data: bytes) -> bytes:
        return data + bytes(-len(data) % 16)

    lengths = len(aad).to_bytes(8, "little") + len(ciphertext).to_bytes(8, "little")
    return ciphertext + poly1305(chacha20_block(subkey, 0, short)[:32], pad(aad) + pad(ciphertext) + lengths)


# draft-irtf-cfrg-xchacha-03, A.3.1
DRAFT_KEY = bytes(range(0x80, 0xA0))
DRAFT_NONCE = bytes(range(0x40, 0x58))
DRAFT_AAD = unhex("50515253c0c1c2c3c4c5c6c7")
DRAFT_PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you "
    b"only one tip for the future, sunscreen would be it."
)
DRAFT_CIPHERTEXT = unhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216"
    "cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13"
    "b52e"
)
DRAFT_TAG = unhex("c0875924c1c7987947deafd8780acf49")


def test_the_reference_agrees_with_the_draft() -> None:
    assert reference_aead(DRAFT_KEY, DRAFT_NONCE, DRAFT_PLAINTEXT, DRAFT_AAD) == DRAFT_CIPHERTEXT + DRAFT_TAG


def test_the_aead_agrees_with_the_draft() -> None:
    # Packets have no associated data, the draft's vector has: so the tag is compared with the reference's.
    sealed = p.aead_seal(DRAFT_KEY, DRAFT_NONCE, DRAFT_PLAINTEXT)
    assert sealed[:-16] == DRAFT_CIPHERTEXT
    assert sealed == reference_aead(DRAFT_KEY, DRAFT_NONCE, DRAFT_PLAINTEXT)


@given(KEYS, st.binary(min_size=24, max_size=24), st.binary(max_size=200))
def test_the_aead_agrees_with_the_reference(key: bytes, nonce: bytes, plaintext: bytes) -> None:
    sealed = p.aead_seal(key, nonce, plaintext)
    assert sealed == reference_aead(key, nonce, plaintext)
    assert p.aead_open(key, nonce, sealed) == plaintext


@given(KEYS, st.binary(min_size=24, max_size=24), st.binary(max_size=100))
def test_what_was_not_sealed_does_not_open(key: bytes, nonce: bytes, ciphertext: bytes) -> None:
    with pytest.raises(OpenError):
        p.aead_open(key, nonce, ciphertext)


# --- BLAKE3 ---------------------------------------------------------------------------------------------------------

BLAKE3_CONTEXT = "BLAKE3 2019-12-27 16:29:52 test vectors context"


@pytest.mark.parametrize(  # the official test_vectors.json: inputs of 0 and 1 byte
    ("material", "derived"),
    [
        (b"", "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d"),
        (b"\0", "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c"),
    ],
)
def test_blake3_derive_key(material: bytes, derived: str) -> None:
    assert p.derive_key(BLAKE3_CONTEXT, material).hex() == derived


def test_blake3_keyed() -> None:
    key = b"whats the Elvish word for friend"
    digest = "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"
    assert p.keyed_digest(key, b"", 32).hex() == digest
    assert p.keyed_digest(key, b"").hex() == digest[:32]


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_the_keys_of_a_session(name: str) -> None:
    keys = VECTORS["session_keys"][name]
    assert p.derive_key("ws.lleo.me v2 route c2s", unhex(keys["shared"])).hex() == keys["c2s"]
    assert p.derive_key("ws.lleo.me v2 route s2c", unhex(keys["shared"])).hex() == keys["s2c"]


# --- ChaCha20 header keystream --------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", VECTORS["header_mask"])
def test_header_masks(entry: dict[str, str]) -> None:
    keystream = p.HeaderKeystream(unhex(entry["key"]))
    for _ in range(2):  # the second time with a context that is kept
        assert keystream.xor(unhex(entry["clear"]), unhex(entry["nonce"])).hex() == entry["wire"]
        assert keystream.xor(unhex(entry["wire"]), unhex(entry["nonce"])).hex() == entry["clear"]


def test_keystream_rfc8439_appendix_a_1() -> None:
    assert p.HeaderKeystream(bytes(32)).xor(bytes(8), bytes(12)).hex() == "76b8e0ada0f13d90"  # test vector 1
    nonce = bytes(11) + b"\x02"
    assert (
        p.HeaderKeystream(bytes(32)).xor(bytes(8), nonce).hex() == "c2c64d378cd536374ae204b9ef933fcd"[:16]
    )  # vector 5


@given(KEYS, st.lists(st.tuples(st.binary(min_size=8, max_size=8), st.binary(min_size=12, max_size=30)), max_size=5))
def test_a_kept_context_has_no_memory(key: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    keystream = p.HeaderKeystream(key)
    for header, nonce in headers:
        block = chacha20_block(key, 0, nonce[:12])
        assert keystream.xor(header, nonce) == bytes(a ^ b for a, b in zip(header, block, strict=False))


def test_a_keystream_hides_its_key() -> None:
    keystream = p.HeaderKeystream(b"k" * 32)
    assert repr(keystream) == str(keystream) == "HeaderKeystream(…)"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(keystream, protocol)


# --- Of a foreign file format ---------------------------------------------------------------------------------------

AES_GCM = [  # McGrew and Viega's test cases 13, 14 and 15: key, nonce, plaintext, ciphertext and tag
    ("00" * 32, "00" * 12, "", "530f8afbc74536b9a963b4f1c4cb738b"),
    ("00" * 32, "00" * 12, "00" * 16, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
    (
        "feffe9928665731c6d6a8f9467308308" * 2,
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015adb094dac5d93471bdec1a502270e3cc6c",
    ),
]


@pytest.mark.parametrize(("key", "nonce", "plaintext", "sealed"), AES_GCM)
def test_aes256_gcm(key: str, nonce: str, plaintext: str, sealed: str) -> None:
    assert p.aes256_gcm_seal(unhex(key), unhex(nonce), unhex(plaintext)).hex() == sealed
    assert p.aes256_gcm_open(unhex(key), unhex(nonce), unhex(sealed)).hex() == plaintext


def test_aes256_gcm_does_not_open_what_was_changed() -> None:
    sealed = p.aes256_gcm_seal(b"k" * 32, b"n" * 12, b"content")
    for i in range(len(sealed)):
        with pytest.raises(OpenError):
            p.aes256_gcm_open(b"k" * 32, b"n" * 12, sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :])
        with pytest.raises(OpenError):
            p.aes256_gcm_open(b"k" * 32, b"n" * 12, sealed[:i])
    for key, nonce in ((b"j" * 32, b"n" * 12), (b"k" * 32, b"m" * 12)):
        with pytest.raises(OpenError):
            p.aes256_gcm_open(key, nonce, sealed)


@pytest.mark.parametrize(("key", "nonce"), [(16, 12), (24, 12), (0, 12), (32, 11), (32, 13), (32, 0)])
def test_aes256_gcm_takes_keys_of_32_bytes_and_nonces_of_12(key: int, nonce: int) -> None:
    for call in (p.aes256_gcm_seal, p.aes256_gcm_open):
        with pytest.raises(BadKey, match=f"has {32 if key != 32 else 12} bytes"):
            call(bytes(key), bytes(nonce), bytes(16))


@pytest.mark.parametrize(  # RFC 7914 §11, whose outputs have 64 bytes: ours are the first half
    ("passphrase", "salt", "iterations", "key"),
    [
        (b"passwd", b"salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
        (b"Password", b"NaCl", 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"),
    ],
)
def test_pbkdf2_hmac_sha256(passphrase: bytes, salt: bytes, iterations: int, key: str) -> None:
    assert p.pbkdf2_hmac_sha256(passphrase, salt, iterations).hex() == key


# --- Passphrases and randomness -------------------------------------------------------------------------------------


def test_argon2id_agrees_with_openssl() -> None:
    salt = bytes(range(16))
    try:
        theirs = Argon2id(salt=salt, length=32, iterations=3, lanes=1, memory_cost=64)
    except UnsupportedAlgorithm:
        pytest.skip("this OpenSSL has no Argon2id")
    assert p.passphrase_key(b"hunter2", salt, opslimit=3, memlimit=64 << 10) == theirs.derive(b"hunter2")


def test_memory_that_cannot_be_had_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise nacl.exceptions.RuntimeError("Unexpected failure in key derivation")

    monkeypatch.setattr(nacl.bindings, "crypto_pwhash_alg", fail)
    with pytest.raises(MemoryError):
        p.passphrase_key(b"hunter2", bytes(16), opslimit=1, memlimit=8192)


def test_secretbox() -> None:
    sealed = p.secretbox_seal(b"k" * 32, b"n" * 24, b"content")
    assert len(sealed) == len(b"content") + p.SECRETBOX_OVERHEAD
    assert p.secretbox_open(b"k" * 32, sealed) == b"content"
    for i in range(len(sealed)):
        with pytest.raises(OpenError):
            p.secretbox_open(b"k" * 32, sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :])
        with pytest.raises(OpenError):
            p.secretbox_open(b"k" * 32, sealed[:i])


def test_random_bytes_differ() -> None:
    assert len({p.random_bytes(24) for _ in range(100)}) == 100


def test_constant_time_equal() -> None:
    assert p.constant_time_equal(b"a", b"a")
    assert not p.constant_time_equal(b"a", b"b")
    assert not p.constant_time_equal(b"a", b"aa")


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), st.binary(max_size=300), st.binary(max_size=40))
def test_aead_stream_is_xchacha20_poly1305(key: bytes, count: int, plaintext: bytes, bound: bytes) -> None:
    nonce = count.to_bytes(24, "big")
    stream = p.AeadStream(key)
    sealed = stream.seal(count, plaintext, bound)
    assert sealed == p.aead_seal(key, nonce, plaintext, bound)
    assert stream.open(count, sealed, bound) == p.aead_open(key, nonce, sealed, bound) == plaintext
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: stream.open(count ^ 1, sealed, bound),
        lambda: stream.open(count, sealed[:-1] + bytes((sealed[-1] ^ 1,)), bound),
        lambda: stream.open(count, sealed, bound + b"x"),
        lambda: stream.open(count, sealed[:10], bound),
        lambda: p.aead_open(key, nonce, sealed, bound + b"x"),
    )
    for changed in changes:
        with pytest.raises(OpenError):
            changed()
    assert repr(stream) == "AeadStream(…)"


def test_aead_stream_wants_a_whole_key() -> None:
    with pytest.raises(BadKey):
        p.AeadStream(bytes(31))
