"""Who has an id: a question on its subject. NATS itself says at once if nobody does.

A node subscribes to the subject of an id while it has, or claims, it. Question and answer are sealed; the answer is
bound to the nonce of its question. Asking changes nothing.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is named like a module
from typing import TYPE_CHECKING, Final, NamedTuple

from keys.errors import OpenError
from relay.backplane.bus import Outcome
from relay.backplane.seals import ANSWER, ASK, CALL_HEAD

if TYPE_CHECKING:
    from relay.backplane.node import Backplane

ANSWER_WITHIN: Final = 2.0
"""Seconds that a node may take to answer; it is as hung as a client that answers no ping (`claim_wait`)."""

MORE_WITHIN: Final = 0.05
"""Seconds for which the holder's own answer is waited for once another node has answered."""

_ANSWER: Final = Struct(">BIQ")


class Standing(IntEnum):
    """How a node stands to an id."""

    WAITING = 0  # a newcomer of its own stands in line for the id at another node
    ABSENT = 1  # it had the id until just now
    CLAIMING = 2  # a newcomer of its own may have the id, if nobody else does
    HOLDING = 3


class Found(NamedTuple):
    """What a question brought. Without a node nobody has the id, or `outcome` says why that is not known."""

    outcome: Outcome
    node: bytes = b""
    standing: Standing = Standing.ABSENT
    serial: int = 0
    age: float = 0.0


def ask(node: "Backplane", client_id: bytes, answered: Callable[[Found], None]) -> None:
    """Ask who has an id; `answered` is called once: with the holder, if one answers, whoever else does.

    Of several who claim it the one with the lowest number is told of: it is the one that goes on.
    """
    seals = node.seals
    subject = seals.id_subject(client_id)
    question = seals.seal_call(ASK, b"", subject)

    best: Found | None = None
    done = False

    def finish(found: Found) -> None:
        nonlocal done
        if not done:
            done = True
            answered(found)

    def received(outcome: Outcome, data: bytes) -> bool:
        nonlocal best
        if outcome is not Outcome.ANSWER:
            finish(best or Found(outcome))
            return False
        try:
            source, body = seals.open_call(data, seals.answer_prefix, seals.number, question[:CALL_HEAD])
            standing, serial, age = _ANSWER.unpack(body)
            found = Found(outcome, source, Standing(standing), serial, age / 1e6)
        except (OpenError, ValueError, StructError):
            node.count("not_sealed")
            return not done
        if found.standing is Standing.HOLDING:
            finish(found)
        elif best is None:
            # Whoever holds it may be farther away than who claims it, or just let go of it.
            best = found
            node.later(MORE_WITHIN, lambda: finish(best or found))
        elif (-found.standing, found.node) < (-best.standing, best.node):
            best = found
        return not done

    node.bus.request(subject, question, ANSWER_WITHIN, received)


def answer(node: "Backplane", subject: str, question: bytes, reply: str, how: tuple[Standing, int, float]) -> None:
    """Answer a question; what is none is counted."""
    seals = node.seals
    try:
        source, _ = seals.open_call(question, subject)
    except OpenError:
        node.count("not_sealed")
        return
    if source == node.number:
        # NATS does not bring us what we say ourselves. Whoever does could have us claim an id against ourselves.
        node.count("unknown")
        return
    standing, serial, age = how
    body = _ANSWER.pack(standing, serial, int(age * 1e6))
    data = seals.seal_call(ANSWER, body, seals.answer_prefix, source, question[:CALL_HEAD])
    node.bus.publish(reply, data)
