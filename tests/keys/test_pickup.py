"""The proof of a pick-up: what it binds, piece by piece."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import BadKey, OpenError
from keys.identity import PublicIdentity
from keys.pickup import ANSWER_SIZE, CHALLENGE_SIZE, Ticket, answer_challenge, check_answer, make_challenge
from tests.keys.known import ALICE, BOB, LOW_ORDER_X, NOT_CANONICAL_X, NOTIFIER, ROOT, SERVER, drawn, unhex

KNOWN = json.loads((ROOT / "tests" / "vectors" / "mailbox.json").read_text("utf-8"))["pickup"]
SECRET = bytes(range(32))
MAILBOX = NOTIFIER.public
URL = "https://mailbox.example/box"
ASKED: dict[str, Any] = {"mailbox": MAILBOX, "url": URL, "operation": 0x71, "arguments": b"args"}


def challenge(now: int = 1000, mailbox: PublicIdentity = MAILBOX, x_pub: bytes = BOB.public.x_pub) -> bytes:
    return make_challenge(SECRET, mailbox, x_pub, now)


def check(answer: bytes, **changed: Any) -> Ticket:
    arguments = ASKED | {"secret": SECRET, "recipient_x_pub": BOB.public.x_pub, "now": 1000, "lifetime": 60_000}
    return check_answer(answer=answer, **(arguments | changed))


def test_the_recorded_proof() -> None:
    made = make_challenge(
        unhex(KNOWN["secret"]),
        MAILBOX,
        BOB.public.x_pub,
        KNOWN["now"],
        drawn(unhex(KNOWN["salt"]), unhex(KNOWN["ephemeral_seed"])),
    )
    assert made.hex() == KNOWN["challenge"]
    asked = (KNOWN["url"], KNOWN["operation"], unhex(KNOWN["arguments"]))
    answer = answer_challenge(BOB, MAILBOX, *asked, made)
    assert answer.hex() == KNOWN["answer"]
    ticket = check_answer(
        unhex(KNOWN["secret"]), MAILBOX, asked[0], BOB.public.x_pub, *asked[1:], answer, KNOWN["now"], 0
    )
    assert ticket == Ticket(KNOWN["now"], unhex(KNOWN["salt"]))


def test_sizes_and_freshness() -> None:
    one, other = challenge(), challenge()
    assert len(one) == CHALLENGE_SIZE == 104
    assert one != other
    assert len(answer_challenge(BOB, challenge=one, **ASKED)) == ANSWER_SIZE == 56


def test_it_is_good_for_its_lifetime() -> None:
    answer = answer_challenge(BOB, challenge=challenge(1000), **ASKED)
    for now in (1000, 61_000):
        assert check(answer, now=now).issued == 1000
    for now in (999, 61_001):
        with pytest.raises(OpenError):
            check(answer, now=now)


@pytest.mark.parametrize(
    "changed",
    [
        {"mailbox": SERVER.public},
        {"mailbox": PublicIdentity(MAILBOX.x_pub, SERVER.public.ed_pub)},
        {"url": URL + "/"},
        {"url": URL.replace("https", "http")},
        {"url": ""},
        {"recipient_x_pub": ALICE.public.x_pub},
        {"operation": 0x72},
        {"arguments": b""},
        {"arguments": b"args!"},
        {"secret": bytes(32)},
    ],
    ids=str,
)
def test_what_an_answer_binds(changed: dict[str, Any]) -> None:
    answer = answer_challenge(BOB, challenge=challenge(), **ASKED)
    check(answer)
    with pytest.raises(OpenError):
        check(answer, **changed)


def test_the_url_does_not_run_into_what_follows() -> None:
    """Bytes that move from one field to the next are another asking."""
    answer = answer_challenge(BOB, MAILBOX, "https://a/q", ord("r"), b"s", challenge())
    with pytest.raises(OpenError):
        check(answer, url="https://a/", operation=ord("q"), arguments=b"rs")


def test_a_mailbox_cannot_use_the_challenge_of_another() -> None:
    """An evil mailbox asks the true one for a challenge to Bob, and hands it to Bob who dialled the evil one."""
    evil = ALICE.public
    theirs = challenge()
    with pytest.raises(OpenError):  # Bob binds the mailbox that he dialled, so he cannot even open it
        answer_challenge(BOB, challenge=theirs, **(ASKED | {"mailbox": evil}))
    # Evil puts the true one's keys into its own card: then the address is not the one that it can be reached at.
    answer = answer_challenge(BOB, challenge=theirs, **(ASKED | {"url": "https://evil.example/"}))
    with pytest.raises(OpenError):
        check(answer)


def test_only_the_recipient_can_answer() -> None:
    for other in (ALICE, NOTIFIER, SERVER):
        with pytest.raises(OpenError):
            answer_challenge(other, challenge=challenge(), **ASKED)


@given(st.integers(0, CHALLENGE_SIZE - 1), st.integers(1, 255))
def test_no_byte_of_a_challenge_can_be_changed(at: int, by: int) -> None:
    changed = bytearray(challenge())
    changed[at] ^= by
    with pytest.raises(OpenError):
        answer_challenge(BOB, challenge=bytes(changed), **ASKED)


@given(st.integers(0, ANSWER_SIZE - 1), st.integers(1, 255))
def test_no_byte_of_an_answer_can_be_changed(at: int, by: int) -> None:
    """The time and the salt among them: nobody makes a fresh answer of an old one."""
    answer = bytearray(answer_challenge(BOB, challenge=challenge(), **ASKED))
    answer[at] ^= by
    with pytest.raises(OpenError):
        check(bytes(answer), lifetime=1 << 64)


@given(st.binary(max_size=200))
def test_any_bytes_fail_in_one_way(blob: bytes) -> None:
    with pytest.raises(OpenError, match=r"^does not open$"):
        answer_challenge(BOB, challenge=blob, **ASKED)
    with pytest.raises(OpenError, match=r"^does not open$"):
        check(blob)


@pytest.mark.parametrize("x_pub", [*LOW_ORDER_X, *NOT_CANONICAL_X, "00" * 31])
def test_keys_that_nobody_can_have(x_pub: str) -> None:
    with pytest.raises(BadKey):
        challenge(x_pub=unhex(x_pub))


@pytest.mark.parametrize("x_pub", LOW_ORDER_X)
def test_a_challenge_under_a_key_of_low_order(x_pub: str) -> None:
    with pytest.raises(OpenError):
        answer_challenge(BOB, challenge=bytes(24) + unhex(x_pub) + bytes(48), **ASKED)


def test_what_no_card_and_no_command_has() -> None:
    for url, operation in (("https://" + "a" * 1017, 0x71), (URL, 256), (URL, -1)):
        with pytest.raises(OpenError):
            answer_challenge(BOB, MAILBOX, url, operation, b"", challenge())
