"""A mailbox's commands over HTTP: round trips, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.pickup import ANSWER_SIZE
from wire.errors import BadBody, LocalError
from wire.mailbox_answers import About, Kept, Refused
from wire.mailbox_codes import MailboxCommand, Reason
from wire.mailbox_commands import Ack, Deposit, Drop, Fetch, List, Restore
from wire.mailbox_http import (
    PATHS,
    PROOF_SIZE,
    STATUS,
    OurRequest,
    about_from_json,
    about_to_json,
    arguments_of,
    encode_answer,
    encode_request,
    parse_answer,
    parse_request,
    path_of,
    split_proven,
    status_of,
)

X_PUB = b"\x01" * 32
ANSWER = b"\x02" * ANSWER_SIZE
OPEN: list[OurRequest] = [Deposit(0, X_PUB, 60, bytes(16), b"d" * 1024), Drop(0, X_PUB, bytes(32))]
PROVEN: list[OurRequest] = [Fetch(0, 7), List(0), Restore(0), Ack(0, (1, 2), 3)]
ABOUT = About(0, 1_700_000_000_000, 4, 0, 1_209_600, 2_592_000, 262_144, 1000, 1 << 25)


@pytest.mark.parametrize("request_", OPEN, ids=lambda r: type(r).__name__)
def test_a_request_that_anybody_may_make_comes_back(request_: OurRequest) -> None:
    body = encode_request(request_)
    assert parse_request("/drop", body[0], body[1:]) == request_


@pytest.mark.parametrize("request_", PROVEN, ids=lambda r: type(r).__name__)
def test_a_proven_request_comes_back_with_what_its_proof_binds(request_: OurRequest) -> None:
    proven = split_proven(encode_request(request_, X_PUB, ANSWER))
    assert proven == (X_PUB, ANSWER, request_.command, arguments_of(request_))
    assert parse_request(path_of(request_), proven.command, proven.arguments) == request_


def test_proofs_stand_where_they_belong() -> None:
    with pytest.raises(LocalError):
        encode_request(PROVEN[0])
    with pytest.raises(LocalError):
        encode_request(OPEN[0], X_PUB, ANSWER)
    with pytest.raises(BadBody):
        split_proven(bytes(PROOF_SIZE))


@pytest.mark.parametrize("path", PATHS)
def test_a_path_takes_its_own_commands_only(path: str) -> None:
    for command in set(MailboxCommand) - PATHS[path]:
        with pytest.raises(BadBody):
            parse_request(path, command, bytes(200))


def test_every_refusal_has_a_status_that_is_none_of_success() -> None:
    assert set(STATUS) == set(Reason)
    for reason in Reason:
        answer = Refused(0, reason, 9)
        assert status_of(answer) >= 400
        assert parse_answer(encode_answer(answer)) == answer
    assert status_of(Kept(0, 60)) == 200


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_refused(body: bytes) -> None:
    try:
        parse_answer(body)
    except BadBody:
        return
    assert body


def test_what_info_tells_comes_back() -> None:
    body = about_to_json(ABOUT, name="Drop")
    assert json.loads(body)["name"] == "Drop"
    assert about_from_json(body) == ABOUT


WHOLE = about_to_json(ABOUT)
WRONG = [WHOLE.replace(b": 4", value) for value in (b': "4"', b": -4", b": true", b": 4.0")]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"[" * 100_000, *WRONG])
def test_what_is_no_info_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody):
        about_from_json(body)
