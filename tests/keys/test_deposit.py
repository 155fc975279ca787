"""The sealed deposit: what opens it, what does not, and what it shows of its content."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from keys import primitives as p
from keys.contact import Contact
from keys.deposit import (
    DEPOSIT_OVERHEAD,
    PACKET_MAX,
    SIZE_CLASSES,
    drop_digest,
    open_deposit,
    seal_deposit,
    size_class,
)
from keys.errors import BadKey, DepositTooLarge, OpenError
from keys.identity import Identity, PublicIdentity
from tests.keys.known import ALICE, BOB, LOW_ORDER_X, NOT_CANONICAL_X, NOTIFIER, ROOT, SERVER, drawn, unhex

VECTORS = json.loads((ROOT / "tests" / "vectors" / "mailbox.json").read_text("utf-8"))
MAILBOX = NOTIFIER.public
KNOWN = VECTORS["deposit"]


def counted(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def seal(packet: bytes, **changed: object) -> bytes:
    arguments = {"sender": ALICE.public, "recipient_x_pub": BOB.public.x_pub, "mailbox": MAILBOX} | changed
    return seal_deposit(packet=packet, **arguments)  # type: ignore[arg-type]


def sealed_as(plaintext: bytes, seed: bytes = bytes(31) + b"\x01") -> bytes:
    """A deposit of any plaintext, as somebody makes it who does not keep to the layout."""
    ephemeral = p.x25519_public(seed)
    shared = p.x25519_shared(seed, BOB.public.x_pub)
    bound = ephemeral + BOB.public.x_pub + MAILBOX.x_pub + MAILBOX.ed_pub
    key = p.derive_key("blindrelay deposit 1", shared + bound)
    return ephemeral + p.aead_seal(key, bytes(24), plaintext)


@pytest.mark.parametrize("case", KNOWN["cases"], ids=lambda case: str(case["packet_size"]))
def test_the_recorded_deposits(case: dict[str, object]) -> None:
    size = case["packet_size"]
    assert isinstance(size, int)
    deposit = seal(counted(size), random_bytes=drawn(unhex(KNOWN["ephemeral_seed"])))
    assert len(deposit) == case["size"]
    assert blake3(deposit).hexdigest() == case["blake3"]
    assert deposit.hex() == case.get("deposit", deposit.hex())
    assert open_deposit(BOB, MAILBOX, deposit) == (ALICE.public, counted(size))


def test_the_recorded_secret_of_a_deletion() -> None:
    assert drop_digest(unhex(VECTORS["drop"]["secret"])).hex() == VECTORS["drop"]["digest"]
    with pytest.raises(BadKey):
        drop_digest(bytes(31))


@given(st.binary(max_size=5000))
def test_round_trip(packet: bytes) -> None:
    deposit = seal(packet)
    assert len(deposit) == size_class(len(packet))
    assert open_deposit(BOB, MAILBOX, deposit) == (ALICE.public, packet)


def test_sizes() -> None:
    assert [size_class(size - DEPOSIT_OVERHEAD) for size in SIZE_CLASSES] == list(SIZE_CLASSES)
    assert [size_class(size - DEPOSIT_OVERHEAD + 1) for size in SIZE_CLASSES[:-1]] == list(SIZE_CLASSES[1:])
    assert size_class(0) == 1024
    with pytest.raises(DepositTooLarge, match=str(PACKET_MAX)):
        seal(bytes(PACKET_MAX + 1))


def test_only_the_recipient_opens_it_out_of_that_mailbox() -> None:
    deposit = seal(b"packet")
    half = PublicIdentity(MAILBOX.x_pub, SERVER.public.ed_pub)
    for ours, mailbox in ((ALICE, MAILBOX), (NOTIFIER, MAILBOX), (BOB, SERVER.public), (BOB, half)):
        with pytest.raises(OpenError):
            open_deposit(ours, mailbox, deposit)


@given(st.integers(0, 1023), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, by: int) -> None:
    deposit = bytearray(seal(b"packet"))
    deposit[at] ^= by
    with pytest.raises(OpenError):
        open_deposit(BOB, MAILBOX, bytes(deposit))


@given(st.binary(max_size=2000) | st.sampled_from([bytes(size) for size in SIZE_CLASSES]))
def test_anything_else_fails_in_one_way(blob: bytes) -> None:
    with pytest.raises(OpenError, match=r"^does not open$"):
        open_deposit(BOB, MAILBOX, blob)


def padded(packet: bytes, told: int | None = None, keys: bytes = b"", size: int = 1024 - 48) -> bytes:
    keys = keys or ALICE.public.x_pub + ALICE.public.ed_pub
    return (keys + (len(packet) if told is None else told).to_bytes(4, "little") + packet).ljust(size, b"\0")


def test_the_forged_layout_is_the_true_one() -> None:
    assert open_deposit(BOB, MAILBOX, sealed_as(padded(b"packet"))) == (ALICE.public, b"packet")


@pytest.mark.parametrize(
    "plaintext",
    [
        padded(b"packet")[:-1] + b"\x01",  # something in the padding
        padded(b"packet", told=5),  # a byte behind the packet that would be padding
        padded(b"packet", told=1024 - 48 - 68 + 1),
        padded(b"packet", told=0xFFFFFFFF),
        padded(b"packet", size=4096 - 48),  # a class too big
        padded(b"packet", size=1025 - 48),  # no class
        padded(b"packet", keys=bytes(64)),  # the server's id
        padded(b"packet", keys=unhex(NOT_CANONICAL_X[0]) + ALICE.public.ed_pub),
    ],
)
def test_layouts_that_are_none(plaintext: bytes) -> None:
    with pytest.raises(OpenError):
        open_deposit(BOB, MAILBOX, sealed_as(plaintext))


@pytest.mark.parametrize("x_pub", [*LOW_ORDER_X, *NOT_CANONICAL_X, "00" * 31])
def test_recipients_that_cannot_be(x_pub: str) -> None:
    with pytest.raises(BadKey):
        seal(b"packet", recipient_x_pub=unhex(x_pub))
    if len(unhex(x_pub)) == 32:
        with pytest.raises(OpenError):
            open_deposit(BOB, MAILBOX, unhex(x_pub) + bytes(1024 - 32))


def test_the_sender_is_a_claim_until_the_packet_opens() -> None:
    """Mallory writes Alice's keys beside a packet of her own."""
    mallory = Identity.generate()
    deposit = seal(Contact(mallory, BOB.public).seal(b"hello"), sender=ALICE.public)
    sender, packet = open_deposit(BOB, MAILBOX, deposit)
    assert sender == ALICE.public
    with pytest.raises(OpenError):
        Contact(BOB, sender).open(packet)


def test_two_deposits_of_one_packet_have_nothing_in_common() -> None:
    packet = Contact(ALICE, BOB.public).seal(b"hello")
    one, other = seal(packet), seal(packet)
    pieces = {one[at : at + 8] for at in range(0, 1024, 8)}
    assert pieces.isdisjoint(other[at : at + 8] for at in range(0, 1024, 8))
    for secret in (packet[:24], ALICE.public.x_pub, ALICE.public.ed_pub, BOB.public.x_pub, MAILBOX.x_pub):
        assert secret not in one
