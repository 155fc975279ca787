"""Tools that say something: send_message, ask_human."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import anyio
from mcp.server.mcpserver import Context
from pydantic import Field

from keys.primitives import random_bytes
from peers.chat.agent.desk import REFUSED, Desk, Refused
from peers.chat.agent.reading import Name
from peers.chat.agent.shapes import TEXT_SHOWN, Answer, Sent, for_agent, party, sent
from peers.client import RelayRefused
from peers.database import DatabaseError
from peers.store import Connection, messages
from peers.store.contacts import ContactRow
from peers.store.message_rows import MessageRow, State

DELIVERY_MAX: Final = 60.0
ANSWER_MAX: Final = 3600.0
_LETTERS: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""No 0 and O, no 1, I and L, no U: people type it."""
_CODE: Final = 4
_YES: Final = frozenset({"yes", "y"})
_NO: Final = frozenset({"no", "n"})
_ANSWER: Final = re.compile(r"\W*(\w+)\W*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Words:
    decision: Literal["yes", "no", "other"]
    text: str


class Sending:
    """The tools."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._session = desk.session
        self._store = desk.session.store
        self._open: set[str] = set()

    async def send_message(
        self,
        contact: Name,
        text: Annotated[str, Field(description="What to say.")],
        context: Context[Any, Any],
        wait_seconds: Annotated[
            float, Field(description="How long to wait for it to be delivered.", ge=0, le=DELIVERY_MAX)
        ] = 10,
    ) -> Sent:
        """Send a text to a contact. It is kept until it is delivered, also if that takes days: never send it twice."""
        async with self._desk.call("send_message") as facts:
            row = await self._desk.contact(contact, facts)
            messages.check_text(self._desk.text(text, facts))
            self._desk.take(row)
            await self._desk.began("send_message", facts)
            said = await self._session.say(row.id, text)
            facts["id"] = said.id
            said = await delivered(self._desk, context, said.id, wait_seconds)
            facts["state"] = said.standing
            return sent(said, row)

    async def ask_human(
        self,
        question: Annotated[str, Field(description="Say what you want to do, and what speaks against it.")],
        context: Context[Any, Any],
        timeout_seconds: Annotated[float, Field(ge=1, le=ANSWER_MAX)] = 300,
    ) -> Answer:
        """Ask the human whom the operator named, and wait for the answer: yes, no, or words of their own.

        Only "yes" is a yes. No answer in time is none.
        """
        async with self._desk.call("ask_human") as facts:
            human = self._desk.access.human
            if human is None:
                raise Refused("the operator named no human to ask (--human LABEL)")
            facts |= {"label": human.label, "peer_id": human.public.id.hex()}
            messages.check_text(self._desk.text(question, facts))
            self._desk.take(human)
            await self._desk.began("ask_human", facts)
            code = self._code()
            try:
                asked = await self._session.say(human.id, _question(self._desk.agent, code, question))
                facts["id"] = asked.id
                answer = await self._answer(context, human, asked, code, timeout_seconds)
            finally:
                self._open.discard(code)
            facts["outcome"] = "timed_out" if answer is None else answer.decision
            if answer is None:
                return Answer(decision="none", text="", answered_by=party(human), code=code)
            if self._desk.audit.texts:
                facts["answer"] = answer.text
            return Answer(
                decision=answer.decision,
                text=for_agent(answer.text)[:TEXT_SHOWN],
                answered_by=party(human),
                code=code,
            )

    async def _answer(
        self, context: Context[Any, Any], human: ContactRow, asked: MessageRow, code: str, seconds: float
    ) -> _Words | None:
        answer: _Words | None = None
        try:
            answer = await self._desk.wait(
                context, seconds, lambda db: _look(db, human, asked, code), lambda words: words is not None
            )
            return answer
        finally:
            if answer is None:
                # Otherwise somebody says yes to what nobody waits for any more, and believes that it was done.
                with anyio.CancelScope(shield=True):
                    await self._close(human, code)

    async def _close(self, human: ContactRow, code: str) -> None:
        try:
            await self._session.say(human.id, f"Question {code} is closed: an answer has no effect any more.")
        except DatabaseError:
            return  # an error is on its way already

    def _code(self) -> str:
        while True:
            # 256 is no multiple of 30, so the first letters come a little more often. The code only names a question;
            # who answers is proven by their keys.
            code = "".join(_LETTERS[byte % len(_LETTERS)] for byte in random_bytes(_CODE))
            if code not in self._open:
                self._open.add(code)
                return code


async def delivered(desk: Desk, context: Context[Any, Any], message: int, seconds: float) -> MessageRow:
    """Return a message of ours once it is delivered, left in a mailbox, or has failed, or as it is after so many
    seconds.

    Raises:
        Refused: nothing is delivered now, and waiting is of no use.
    """
    try:
        now = await desk.wait(
            context,
            seconds,
            lambda db: messages.get(db, message),
            lambda row: row.state >= State.DELIVERED or row.left > 0,
        )
    except RelayRefused:
        kept = f"the message is kept under the id {message}: do not send it again. It cannot be delivered now"
        raise Refused(f"{kept}: {REFUSED}") from None
    return await desk.session.store.read(messages.get, message) if now is None else now


def _question(agent: str, code: str, question: str) -> str:
    return (
        f'Question {code} of the agent "{agent}":\n\n{question}\n\n'
        f'To answer, begin with the code: "{code} yes", "{code} no", or "{code}" and your words.'
    )


def _look(db: Connection, human: ContactRow, asked: MessageRow, code: str) -> _Words | None:
    """Return the first answer since a question was asked: a text of the human's that begins with its code."""
    for row in messages.received(db, human.id, after=asked.id, limit=1000):
        found = _ANSWER.fullmatch(row.text) if row.kind == "text" else None
        if found is not None and found[1].upper() == code:
            return _words(found[2])
    return None


def _words(text: str) -> _Words:
    text = text.strip()
    word = text.rstrip(".! \n").casefold()
    if word in _YES:
        return _Words("yes", text)
    return _Words("no" if word in _NO else "other", text)
