import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import packet
from keys.errors import OpenError
from keys.identity import Identity
from tests.keys.known import ALICE, BOB, NOTIFIER, SERVER, VECTORS, drawn, unhex

AB = ALICE.shared_with(BOB.public.x_pub)
TEXT = VECTORS["text"]
TEXT_PACKET = unhex(TEXT["packet"])

# Sealed by and sealed for; the packet follows the routing header of 8 bytes.
FRAMES = [
    ("handshake_ok", SERVER, ALICE),
    ("error_id_in_use", SERVER, ALICE),
    ("error_bad_version", SERVER, ALICE),
    ("error_recipient_offline", SERVER, ALICE),
    ("subscribe", ALICE, SERVER),
    ("unsubscribe", ALICE, SERVER),
    ("peer_online", SERVER, ALICE),
    ("peer_offline", SERVER, ALICE),
    ("introduce", ALICE, SERVER),
    ("wake_call", ALICE, SERVER),
    ("push_register", ALICE, SERVER),
    ("server_ping", SERVER, ALICE),
    ("intro_from", SERVER, BOB),
    ("wake_call_forwarded", SERVER, NOTIFIER),
    ("push_register_forwarded", SERVER, NOTIFIER),
]
HANDSHAKES = ["handshake_request", "handshake_request_bad_version"]


def test_no_recorded_frame_is_forgotten() -> None:
    recorded = {name for name, entry in VECTORS.items() if isinstance(entry, dict) and "frame" in entry}
    assert recorded == {frame[0] for frame in FRAMES} | set(HANDSHAKES)


def test_the_recorded_text() -> None:
    inner = unhex(TEXT["inner"])
    assert packet.seal(inner, ALICE, AB, drawn(TEXT_PACKET[:24])) == TEXT_PACKET
    assert packet.open_packet(TEXT_PACKET, ALICE.public.ed_pub, BOB.shared_with(ALICE.public.x_pub)) == inner
    for frame in ("sent_by_alice", "delivered_to_bob"):
        assert unhex(TEXT[frame])[8:] == TEXT_PACKET


@pytest.mark.parametrize(("name", "author", "reader"), FRAMES, ids=[frame[0] for frame in FRAMES])
def test_recorded_frames(name: str, author: Identity, reader: Identity) -> None:
    entry = VECTORS[name]
    sealed, inner = unhex(entry["frame"])[8:], unhex(entry["inner"])
    shared = author.shared_with(reader.public.x_pub)
    assert packet.seal(inner, author, shared, drawn(unhex(entry["nonce"]))) == sealed
    assert packet.open_packet(sealed, author.public.ed_pub, reader.shared_with(author.public.x_pub)) == inner


@pytest.mark.parametrize("name", HANDSHAKES)
def test_recorded_handshakes(name: str) -> None:
    frame = unhex(VECTORS[name]["frame"])
    x_pub, sealed = frame[:32], frame[32:]
    shared = SERVER.shared_with(x_pub)
    inner, ed_pub = packet.open_introducing(sealed, shared, slice(3, 35))
    assert ed_pub == ALICE.public.ed_pub
    assert inner[2:] == b"\x01" + ed_pub + bytes([VECTORS[name].get("version", 2)])
    assert packet.seal(inner, ALICE, shared, drawn(unhex(VECTORS[name]["nonce"]))) == sealed


@given(st.binary(max_size=2000))
def test_round_trip(plaintext: bytes) -> None:
    sealed = packet.seal(plaintext, ALICE, AB)
    assert len(sealed) == len(plaintext) + packet.OVERHEAD == len(plaintext) + 104
    assert packet.open_packet(sealed, ALICE.public.ed_pub, AB) == plaintext


def test_every_changed_byte_is_noticed() -> None:
    for i in range(len(TEXT_PACKET)):
        for change in (0x01, 0x80, 0xFF):
            tampered = bytearray(TEXT_PACKET)
            tampered[i] ^= change
            with pytest.raises(OpenError):
                packet.open_packet(bytes(tampered), ALICE.public.ed_pub, AB)


def test_every_cut_and_every_addition_is_noticed() -> None:
    for i in range(len(TEXT_PACKET)):
        for cut in (TEXT_PACKET[:i], TEXT_PACKET[i + 1 :], TEXT_PACKET[:i] + TEXT_PACKET[i + 1 :]):
            with pytest.raises(OpenError):
                packet.open_packet(cut, ALICE.public.ed_pub, AB)
    for more in (TEXT_PACKET + b"\0", b"\0" + TEXT_PACKET, TEXT_PACKET * 2):
        with pytest.raises(OpenError):
            packet.open_packet(more, ALICE.public.ed_pub, AB)


def test_a_packet_that_is_sent_back_does_not_open() -> None:
    # The shared secret is the same for both: only the signature tells who wrote it.
    with pytest.raises(OpenError):
        packet.open_packet(TEXT_PACKET, BOB.public.ed_pub, AB)


def test_a_packet_for_somebody_else_does_not_open() -> None:
    with pytest.raises(OpenError):
        packet.open_packet(TEXT_PACKET, ALICE.public.ed_pub, SERVER.shared_with(ALICE.public.x_pub))


def test_a_packet_that_was_signed_again_does_not_open() -> None:
    # Mallory takes Alice's ciphertext for her own: Bob shares another secret with Mallory.
    mallory = Identity(b"m" * 32, b"M" * 32)
    stolen = TEXT_PACKET[:-64] + mallory.sign(TEXT_PACKET[:-64])
    with pytest.raises(OpenError):
        packet.open_packet(stolen, mallory.public.ed_pub, BOB.shared_with(mallory.public.x_pub))


def test_a_truncated_ciphertext_that_is_signed_does_not_open() -> None:
    for size in range(24, 40):
        signed = TEXT_PACKET[:size]
        with pytest.raises(OpenError):
            packet.open_packet(signed + ALICE.sign(signed), ALICE.public.ed_pub, AB)


@given(st.binary(max_size=400))
def test_any_bytes_give_an_open_error(data: bytes) -> None:
    with pytest.raises(OpenError):
        packet.open_packet(data, ALICE.public.ed_pub, AB)
    with pytest.raises(OpenError):
        packet.open_introducing(data, AB, slice(3, 35))


@given(st.binary(max_size=400))
def test_any_signed_bytes_give_an_open_error(data: bytes) -> None:
    with pytest.raises(OpenError):
        packet.open_packet(data + ALICE.sign(data), ALICE.public.ed_pub, AB)


@given(st.binary(max_size=60))
def test_an_introduction_is_signed_by_the_key_that_it_names(plaintext: bytes) -> None:
    where = slice(3, 35)
    sealed = packet.seal(plaintext, ALICE, AB)
    if plaintext[where] != ALICE.public.ed_pub:
        with pytest.raises(OpenError):
            packet.open_introducing(sealed, AB, where)
    named = plaintext[:3].ljust(3, b"\0") + ALICE.public.ed_pub + plaintext[3:]
    assert packet.open_introducing(packet.seal(named, ALICE, AB), AB, where) == (named, ALICE.public.ed_pub)
    with pytest.raises(OpenError):
        packet.open_introducing(packet.seal(named, BOB, AB), AB, where)


def test_nonces_are_drawn_anew() -> None:
    assert len({packet.seal(b"", ALICE, AB)[:24] for _ in range(50)}) == 50


def test_an_open_error_tells_nothing() -> None:
    texts = set()
    for data in (b"", TEXT_PACKET[:-1], TEXT_PACKET[:-64] + bytes(64), bytes(200)):
        with pytest.raises(OpenError) as caught:
            packet.open_packet(data, ALICE.public.ed_pub, AB)
        texts.add(str(caught.value))
    assert texts == {"does not open"}
