"""Frames: their sizes, and everything for which a handshake request is refused."""

from collections.abc import Callable
from typing import Final

import pytest

from keys.errors import OpenError
from keys.identity import SERVER_ID
from keys.packet import OVERHEAD, open_packet, seal
from keys.primitives import aead_seal
from tests.wire.pair import ALICE, BOB, REQUEST, SERVER, Counted, drawn, forged_hello
from wire import commands as c
from wire import frames, limits, mask
from wire.errors import BadBody, BadFrame, LocalError, WireError
from wire.inner import Inner
from wire.limits import MAX_FRAME, MAX_HANDSHAKE

SHARED: Final = ALICE.shared_with(SERVER.public.x_pub)
KEYSTREAM: Final = mask.client_to_server(SHARED)
P: Final = 2**255 - 19


# --- Frames for peers -----------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_protocol() -> None:
    assert (limits.MIN_FRAME, limits.MAX_FRAME) == (112, 1_048_576)
    assert (limits.MIN_HANDSHAKE, limits.MIN_VALID_HANDSHAKE, limits.MAX_HANDSHAKE) == (136, 172, 4096)
    assert OVERHEAD == 104
    assert limits.PROTOCOL_VERSION == 2


@pytest.mark.parametrize("size", [112, 113, 115, 1024, 2**20 - 1, 2**20])
def test_sizes_that_pass(size: int) -> None:
    packet = bytes(range(256)) * 4096
    packet = packet[: size - 8]
    frame = frames.build_frame(KEYSTREAM, BOB.id, packet)
    assert len(frame) == size
    assert frame[8:] == packet
    assert frame[:8] == KEYSTREAM.xor(BOB.id, packet[:12])
    assert frames.parse_frame(KEYSTREAM, frame) == (BOB.id, packet)
    assert frames.frame_nonce(frame) == packet[:24]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 20, 32, 111, 2**20 + 1, 2**21])
def test_sizes_that_do_not(size: int) -> None:
    with pytest.raises(BadFrame):
        frames.parse_frame(KEYSTREAM, bytes(size))
    if size >= 8:
        with pytest.raises(LocalError):
            frames.build_frame(KEYSTREAM, BOB.id, bytes(size - 8))


@pytest.mark.parametrize("party_id", [b"", bytes(7), bytes(9), ALICE.public.x_pub])
def test_an_id_of_another_size_is_our_bug(party_id: bytes) -> None:
    with pytest.raises(LocalError):
        frames.build_frame(KEYSTREAM, party_id, bytes(200))


def test_the_header_hides_the_id() -> None:
    one, other = (frames.build_frame(KEYSTREAM, BOB.id, bytes((n,)) * 200)[:8] for n in (1, 2))
    assert BOB.id not in (one, other)
    assert one != other


# --- Frames for and from the server ---------------------------------------------------------------------------------


def test_a_server_frame_is_sealed_under_the_zero_id() -> None:
    nonce = bytes(range(24))
    frame = frames.build_server_frame(KEYSTREAM, c.Wake(BOB.id), ALICE, SHARED, message_id=0x0102, random=drawn(nonce))
    plaintext = b"\x02\x01\x48" + BOB.id
    signed = nonce + aead_seal(SHARED, nonce, plaintext)
    assert frame == KEYSTREAM.xor(SERVER_ID, nonce) + signed + ALICE.sign(signed)
    assert frames.open_server_packet(frame[8:], ALICE.public.ed_pub, SHARED) == Inner(0x0102, 0x48, BOB.id)


@pytest.mark.parametrize(
    ("ed_pub", "shared"),
    [(BOB.public.ed_pub, SHARED), (ALICE.public.ed_pub, BOB.shared_with(SERVER.public.x_pub)), (bytes(32), SHARED)],
    ids=["another signer", "another secret", "a key nobody has"],
)
def test_a_server_frame_under_other_keys(ed_pub: bytes, shared: bytes) -> None:
    packet = frames.build_server_frame(KEYSTREAM, c.ServerPing(), ALICE, SHARED, random=Counted("nonce"))[8:]
    with pytest.raises(BadFrame) as caught:
        frames.open_server_packet(packet, ed_pub, shared)
    assert str(caught.value) == "the frame does not open"


@pytest.mark.parametrize("plaintext", [b"", b"\x00", b"\x00\x00"])
def test_a_server_frame_without_an_inner(plaintext: bytes) -> None:
    packet = seal(plaintext, ALICE, SHARED, Counted("nonce"))
    with pytest.raises(BadFrame):
        frames.open_server_packet(packet, ALICE.public.ed_pub, SHARED)


@pytest.mark.parametrize("size", [0, 1, 23, 24, 88, 103])
def test_a_server_frame_shorter_than_any_packet(size: int) -> None:
    with pytest.raises(BadFrame):
        frames.open_server_packet(bytes(size), ALICE.public.ed_pub, SHARED)


def test_the_largest_server_frame() -> None:
    room = MAX_FRAME - limits.MIN_FRAME - limits.INNER_HEAD
    for size in (room, room - 1):
        frame = frames.build_server_frame(KEYSTREAM, c.Unknown(0x70, bytes(size)), ALICE, SHARED)
        assert len(frame) == MAX_FRAME - room + size
        assert len(frames.open_server_packet(frame[8:], ALICE.public.ed_pub, SHARED).body) == size
    with pytest.raises(LocalError):
        frames.build_server_frame(KEYSTREAM, c.Unknown(0x70, bytes(room + 1)), ALICE, SHARED)


def test_as_many_keys_as_a_frame_can_hold() -> None:
    keys = [BOB.public.x_pub] * limits.MAX_KEYS_PER_FRAME
    assert len(frames.build_server_frame(KEYSTREAM, c.Subscribe.of(keys), ALICE, SHARED)) <= MAX_FRAME
    with pytest.raises(LocalError):
        frames.build_server_frame(KEYSTREAM, c.Subscribe.of([*keys, keys[0]]), ALICE, SHARED)


@pytest.mark.parametrize("message_id", [-1, 0x10000])
def test_a_message_id_out_of_range_is_our_bug(message_id: int) -> None:
    with pytest.raises(LocalError):
        frames.build_server_frame(KEYSTREAM, c.ServerPing(), ALICE, SHARED, message_id=message_id)
    with pytest.raises(LocalError):
        frames.build_handshake(ALICE, SHARED, message_id=message_id)


# --- The handshake request ------------------------------------------------------------------------------------------


def request(body: bytes = REQUEST, *, command: int = 0x01) -> bytes:
    return Inner(0, command, body).encode()


def test_what_a_handshake_request_gives() -> None:
    nonce = bytes(range(24))
    frame = frames.build_handshake(ALICE, SHARED, message_id=0x0203, version=7, random=drawn(nonce))
    assert len(frame) == 172
    assert frame[:56] == ALICE.public.x_pub + nonce
    plaintext = open_packet(frame[32:], ALICE.public.ed_pub, SHARED)
    assert plaintext == b"\x03\x02\x01" + ALICE.public.ed_pub + b"\x07"
    assert frames.parse_handshake(frame, SERVER) == frames.Hello(ALICE.public, SHARED, nonce, 7)


def test_a_version_out_of_range_is_our_bug() -> None:
    with pytest.raises(LocalError):
        frames.build_handshake(ALICE, SHARED, version=256)


def test_a_forged_request_that_is_right_in_everything_passes() -> None:
    """Each refusal below differs from this one in one thing."""
    assert frames.parse_handshake(forged_hello(request()), SERVER).public == ALICE.public


def test_what_a_later_version_appends_is_not_looked_at() -> None:
    room = MAX_HANDSHAKE - limits.MIN_VALID_HANDSHAKE
    for appended in (b"\x00", b"later", bytes(room)):
        hello = frames.parse_handshake(forged_hello(request(REQUEST + appended)), SERVER)
        assert (hello.public, hello.version) == (ALICE.public, 2)
    with pytest.raises(BadFrame):
        frames.parse_handshake(forged_hello(request(REQUEST + bytes(room + 1))), SERVER)


def test_the_size_is_judged_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def multiply(*_: object) -> bytes:
        pytest.fail("a multiplication for a frame of this size")

    monkeypatch.setattr("keys.primitives.x25519_shared", multiply)
    for size in (0, 31, 32, 135, MAX_HANDSHAKE + 1, MAX_FRAME):
        with pytest.raises(BadFrame):
            frames.parse_handshake(bytes(size), SERVER)


@pytest.mark.parametrize("size", [136, 137, 171, 172, 173, MAX_HANDSHAKE])
def test_noise_of_any_size(size: int) -> None:
    with pytest.raises(BadFrame):
        frames.parse_handshake(ALICE.public.x_pub + b"\x5a" * (size - 32), SERVER)


def _cut(size: int) -> bytes:
    return forged_hello(request()[:size])


ORDER_8: Final = (
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)
"""The two canonical u-coordinates of order 8 (Curve25519's small subgroup)."""


def low_order(u: bytes) -> bytes:
    return forged_hello(request(), x_pub=u, shared=bytes(32))


def another_spelling(value: int) -> bytes:
    """Seal as the owner of the canonical key would, and spell the key `value`."""
    canonical = ((value & (2**255 - 1)) % P).to_bytes(32, "little")
    return forged_hello(request(), x_pub=value.to_bytes(32, "little"), shared=SERVER.shared_with(canonical))


def zero_id() -> bytes:
    x_pub = bytes(8) + b"\x01" * 24
    return forged_hello(request(), x_pub=x_pub)


def identity_point_signature() -> bytes:
    """Sign as the Ed25519 identity point "would": S = 0, R = the point itself; a lax verifier takes it for any text."""
    point = b"\x01" + bytes(31)
    frame = forged_hello(request(point + b"\x02"))
    return frame[:-64] + point + bytes(32)


REFUSED: Final[dict[str, Callable[[], bytes]]] = {
    "another secret": lambda: forged_hello(request(), shared=BOB.shared_with(SERVER.public.x_pub)),
    "another relay's secret": lambda: forged_hello(request(), shared=ALICE.shared_with(BOB.public.x_pub)),
    "another X key before it": lambda: BOB.public.x_pub + forged_hello(request())[32:],
    "the server's own X key before it": lambda: SERVER.public.x_pub + forged_hello(request())[32:],
    "signed by another key": lambda: forged_hello(request(), signer=BOB),
    "another Ed key inside": lambda: forged_hello(request(BOB.public.ed_pub + b"\x02")),
    "no signature": lambda: forged_hello(request())[:-64] + bytes(64),
    "a signature by the identity point": identity_point_signature,
    "the Ed key cut": lambda: _cut(34),
    "no Ed key": lambda: _cut(3),
    "no command": lambda: _cut(2),
    "nothing inside": lambda: _cut(0),
    "HANDSHAKE_OK inside": lambda: forged_hello(request(command=0x02)),
    "SUBSCRIBE inside": lambda: forged_hello(request(command=0x40)),
    "an unknown command inside": lambda: forged_hello(request(command=0x00)),
    "low order: 0": lambda: low_order(bytes(32)),
    "low order: 1": lambda: low_order(b"\x01" + bytes(31)),
    "low order: p - 1": lambda: low_order((P - 1).to_bytes(32, "little")),
    "low order: 8, one": lambda: low_order(bytes.fromhex(ORDER_8[0])),
    "low order: 8, other": lambda: low_order(bytes.fromhex(ORDER_8[1])),
    "low order, not canonical: p": lambda: low_order(P.to_bytes(32, "little")),
    "low order, not canonical: p + 1": lambda: low_order((P + 1).to_bytes(32, "little")),
    "not canonical: p + 9": lambda: another_spelling(P + 9),
    "not canonical: 2^255 - 1": lambda: another_spelling(2**255 - 1),
    "not canonical: bit 255": lambda: another_spelling(int.from_bytes(ALICE.public.x_pub, "little") | 1 << 255),
    "the zero id": zero_id,
}


@pytest.mark.parametrize("forge", REFUSED.values(), ids=REFUSED.keys())
def test_refused_handshakes(forge: Callable[[], bytes]) -> None:
    frame = forge()
    with pytest.raises(WireError) as caught:
        frames.parse_handshake(frame, SERVER)
    assert type(caught.value) is BadFrame
    assert str(caught.value) in {"the handshake request does not open", "the first frame is a handshake request"}
    assert caught.value.__cause__ is None


def test_every_failure_to_open_reads_alike() -> None:
    texts = set()
    for name, forge in REFUSED.items():
        if not name.endswith("command inside") and name not in {"HANDSHAKE_OK inside", "SUBSCRIBE inside"}:
            with pytest.raises(BadFrame) as caught:
                frames.parse_handshake(forge(), SERVER)
            texts.add(str(caught.value))
    assert texts == {"the handshake request does not open"}


def test_the_key_9_is_an_ordinary_one() -> None:
    """The control for `another_spelling`: its canonical spelling passes."""
    x_pub = (9).to_bytes(32, "little")
    hello = frames.parse_handshake(forged_hello(request(), x_pub=x_pub), SERVER)
    assert hello.public.x_pub == x_pub


def test_a_request_without_its_version() -> None:
    with pytest.raises(BadBody):
        frames.parse_handshake(_cut(35), SERVER)


def test_a_replayed_request_opens_again() -> None:
    """Nothing in v2 makes it fresh: replay memory is the relay's, by the nonce that is returned."""
    frame = frames.build_handshake(ALICE, SHARED)
    assert frames.parse_handshake(frame, SERVER) == frames.parse_handshake(frame, SERVER)


def test_a_request_for_another_relay() -> None:
    with pytest.raises(BadFrame):
        frames.parse_handshake(frames.build_handshake(ALICE, SHARED), BOB)


def test_repr_of_a_hello_shows_nothing() -> None:
    hello = frames.parse_handshake(frames.build_handshake(ALICE, SHARED), SERVER)
    assert repr(hello) == "Hello(…)"


def test_a_packet_for_a_peer_stays_closed_to_the_relay() -> None:
    packet = seal(b"\x00\x00\x20secret", ALICE, ALICE.shared_with(BOB.public.x_pub))
    with pytest.raises(OpenError):
        open_packet(packet, ALICE.public.ed_pub, SERVER.shared_with(ALICE.public.x_pub))
