"""How a mailbox's commands travel over HTTP (docs/mailbox.md, "Over HTTP"). Sans-I/O: both sides use it.

| request | body | answer |
|---|---|---|
| ``POST /drop`` | ``command(1) arguments`` of DEPOSIT or DROP | ``command(1) body`` of KEPT, DROPPED or REFUSED |
| ``POST /challenge`` | ``recipient_x_pub(32)`` | ``challenge(104)``, or REFUSED |
| ``POST /pickup`` | ``recipient_x_pub(32) answer(56) command(1) arguments`` of FETCH, LIST or RESTORE | LEASE, COUNTS, RESTORED or REFUSED |
| ``POST /ack`` | the same of ACK | ACKED or REFUSED |
| ``GET /info`` | | JSON, see :func:`about_to_json` |

Arguments and bodies are those of the commands, without the request id: one exchange carries one. The answer to a
challenge (:mod:`keys.pickup`) binds the command's code and these arguments, byte for byte.
"""  # noqa: E501 - a table

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from keys.pickup import ANSWER_SIZE
from keys.primitives import KEY_SIZE
from wire.errors import BadBody, LocalError
from wire.mailbox_answers import About, FromMailbox, Refused, parse_from_mailbox
from wire.mailbox_codes import BODY_MAX, REQUEST_SIZE, MailboxCommand, Reason
from wire.mailbox_commands import Ack, Deposit, Drop, Fetch, ForMailbox, List, Restore, parse_for_mailbox

CONTENT_TYPE: Final = "application/octet-stream"
_NO_REQUEST: Final = bytes(REQUEST_SIZE)

PATHS: Final[Mapping[str, frozenset[int]]] = {
    "/drop": frozenset({MailboxCommand.DEPOSIT, MailboxCommand.DROP}),
    "/pickup": frozenset({MailboxCommand.FETCH, MailboxCommand.LIST, MailboxCommand.RESTORE}),
    "/ack": frozenset({MailboxCommand.ACK}),
}
"""Which commands each path takes. What goes to /pickup and /ack bears a proof."""
CHALLENGE_PATH: Final = "/challenge"
INFO_PATH: Final = "/info"
PROOF_SIZE: Final = KEY_SIZE + ANSWER_SIZE
"""Bytes before the command of what bears a proof (88)."""
REQUEST_MAX: Final = PROOF_SIZE + 1 + BODY_MAX
ANSWER_MAX: Final = 1 + BODY_MAX
"""Most bytes of any request's and any answer's body: neither side reads more."""

STATUS: Final[Mapping[Reason, int]] = {
    Reason.FAILED: 503,
    Reason.FULL: 507,
    Reason.TOO_BIG: 413,
    Reason.BAD_DEPOSIT: 422,
    Reason.TOO_FAST: 429,
    Reason.STAMP_CHEAP: 402,
    Reason.STAMP_WRONG: 403,
    Reason.STAMP_TIME: 403,
    Reason.STAMP_USED: 409,
    Reason.NOT_SERVED: 403,
    Reason.TOKEN: 403,
    Reason.BAD_REQUEST: 400,
}
"""The status that goes with a refusal, for proxies and people; clients go by the reason."""

OurRequest = Deposit | Fetch | Ack | List | Drop | Restore


class Proven(NamedTuple):
    """A request that bears a proof: whose key, the answer to a challenge, and what it binds."""

    x_pub: bytes
    answer: bytes
    command: int
    arguments: bytes


def arguments_of(request: OurRequest) -> bytes:
    """Return a request's body as it travels and as an answer to a challenge binds it."""
    return request.encode()[REQUEST_SIZE:]


def path_of(request: OurRequest) -> str:
    """Return the path that takes a request."""
    return next(path for path, commands in PATHS.items() if request.command in commands)


def encode_request(request: OurRequest, x_pub: bytes = b"", answer: bytes = b"") -> bytes:
    """Return the body of a POST.

    Args:
        x_pub, answer: the proof, for what goes to /pickup and /ack; else both are empty.

    Raises:
        LocalError: the proof is missing, or is one where none is wanted.
    """
    proof = x_pub + answer
    if len(proof) != (0 if path_of(request) == "/drop" else PROOF_SIZE):
        raise LocalError("what is picked up bears a proof, what is dropped bears none")
    return proof + bytes((request.command,)) + arguments_of(request)


def split_proven(body: bytes) -> Proven:
    """Take the proof off a request's body. Nothing of it is checked.

    Raises:
        BadBody: it is too short.
    """
    if len(body) <= PROOF_SIZE:
        raise BadBody("the proof is missing")
    return Proven(body[:KEY_SIZE], body[KEY_SIZE:PROOF_SIZE], body[PROOF_SIZE], body[PROOF_SIZE + 1 :])


def parse_request(path: str, command: int, arguments: bytes) -> ForMailbox:
    """Give the typed request that came to a path, with request id 0.

    Raises:
        BadBody: this path takes no such command, or it does not fit its layout.
    """
    if command not in PATHS[path]:
        raise BadBody(f"{path} takes no such command")
    return parse_for_mailbox(command, _NO_REQUEST + arguments)


def encode_answer(answer: FromMailbox) -> bytes:
    """Return the body of a response."""
    return bytes((answer.command,)) + answer.encode()[REQUEST_SIZE:]


def status_of(answer: FromMailbox) -> int:
    """Return the status of a response."""
    if not isinstance(answer, Refused):
        return 200
    return STATUS.get(Reason(answer.reason), 503)


def parse_answer(body: bytes) -> FromMailbox:
    """Give the typed answer of a response, with request id 0.

    Raises:
        BadBody: it does not fit its layout.
    """
    if not body:
        raise BadBody("the answer is empty")
    return parse_from_mailbox(body[0], _NO_REQUEST + body[1:])


_NUMBERS: Final = ("now", "bits", "access", "ttl", "ttl_max", "item", "items", "size")


def about_to_json(about: About, **more: Any) -> bytes:
    """Return what ``GET /info`` gives: the fields of :class:`About` as numbers, and what else the mailbox tells."""
    return json.dumps({**more, **{name: getattr(about, name) for name in _NUMBERS}}).encode()


def about_from_json(body: bytes) -> About:
    """Read what ``GET /info`` gave.

    Raises:
        BadBody: it is not JSON, or a number is missing or is none.
    """
    try:
        fields = json.loads(body)
        numbers = [fields[name] for name in _NUMBERS]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadBody("this is not what a mailbox tells about itself") from None
    if not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
        raise BadBody("what a mailbox tells about itself are whole numbers")
    return About(0, *numbers)
