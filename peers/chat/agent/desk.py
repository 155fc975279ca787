"""Where the tools of an agent meet its profile: whom it may talk with, how much, and the log of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError

from peers.chat.agent.access import Access
from peers.chat.agent.audit import Audit, AuditFailed
from peers.chat.agent.rate import Limit
from peers.chat.output import complain
from peers.chat.session import Session
from peers.chat.views import stamp, whom
from peers.client import RelayRefused
from peers.database import DatabaseError
from peers.profile import ProfileError
from peers.store import Connection
from peers.store.contacts import ContactRow
from peers.store.errors import StoreError

T = TypeVar("T")
_PROGRESS: Final = 5.0
"""Seconds between notices of progress: clients that count from the last one must not give up."""


REFUSED: Final = "the relay does not serve this profile: its operator has to look at it (blindrelay-chat status)"
"""For an agent. The error itself may hold words of the relay, which are for people."""


class Refused(Exception):
    """A bound that the operator has set. The text says what to do."""


EXPECTED: Final = (Refused, StoreError, DatabaseError, ProfileError, RelayRefused, AuditFailed)
"""Errors whose texts are for the agent."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What all tools share.

    Attributes:
        session: the profile.
        access: with whom to talk.
        limit: how much.
        audit: the log.
        agent: the name under which it reads.
        max_text: most bytes of a text of the agent's.
    """

    session: Session
    access: Access
    limit: Limit
    audit: Audit
    agent: str
    max_text: int

    @property
    def reader(self) -> str:
        """The name of the agent's cursors."""
        return f"mcp:{self.agent}"

    @asynccontextmanager
    async def call(self, tool: str, **facts: Any) -> AsyncIterator[dict[str, Any]]:
        """Write down a call and how it ended. What is put into the dictionary on the way is written too.

        Raises:
            ToolError: for every error that can be expected.
        """
        try:
            yield facts
            outcome = facts.pop("outcome", "done")
            if "began" in facts:
                # It is done, and that it was begun is written: an error now would have the agent do it again.
                await self._write_if_possible(tool, outcome, facts)
            else:
                await self._write(tool, outcome, facts)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._write_if_possible(tool, "cancelled", facts)
            raise
        except EXPECTED as error:
            outcome = "refused" if isinstance(error, (Refused, StoreError, ProfileError)) else "failed"
            await self._write_if_possible(tool, outcome, {**facts, "reason": type(error).__name__})
            raise ToolError(REFUSED if isinstance(error, RelayRefused) else str(error)) from None
        except Exception as error:
            await self._write_if_possible(tool, "failed", {**facts, "reason": type(error).__name__})
            raise

    async def began(self, tool: str, facts: dict[str, Any]) -> None:
        """Write down what is about to be done to others.

        Raises:
            AuditFailed: it cannot be written, and so must not be done.
        """
        now = self.session.now()
        await self.audit.write(now, tool, "began", **facts)
        facts["began"] = stamp(now)

    async def contact(self, name: str, facts: dict[str, Any]) -> ContactRow:
        """Look up a contact that the agent names.

        Raises:
            NoSuchContact: there is none that is allowed.
        """
        row = await self.session.store.read(self.access.find, name)
        facts |= whom(row)
        return row

    def text(self, text: str, facts: dict[str, Any]) -> str:
        """Check a text of the agent's.

        Raises:
            Refused: it is too long.
        """
        size = len(text.encode("utf-8", "replace"))
        facts["bytes"] = size
        if self.audit.texts:
            facts["text"] = text
        if size > self.max_text:
            raise Refused(f"the text has {size} bytes, and {self.max_text} are allowed: say less")
        return text

    def take(self, contact: ContactRow) -> None:
        """Count something that is sent to a contact.

        Raises:
            Refused: there was too much of it.
        """
        wait = self.limit.take(contact.id, asyncio.get_running_loop().time())
        if wait:
            raise Refused(f"too many messages: the operator's limit allows the next one in {wait:.0f} s")

    async def wait(
        self,
        context: Context[Any, Any] | None,
        seconds: float,
        read: Callable[[Connection], T],
        holds: Callable[[T], bool],
    ) -> T | None:
        """Return what the store has as soon as it is as wanted; None if it is not within so many seconds. Meanwhile the
        client is told that we are still waiting."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        waiting = asyncio.create_task(self.session.until_store(read, holds))
        try:
            while True:
                rest = begin + seconds - clock()
                done, _ = await asyncio.wait({waiting}, timeout=max(min(rest, _PROGRESS), 0.0))
                if done:
                    return waiting.result()
                if clock() - begin >= seconds:
                    return None
                if context is not None:
                    await context.report_progress(clock() - begin, seconds, "waiting")
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _write(self, tool: str, outcome: str, facts: dict[str, Any]) -> None:
        await self.audit.write(self.session.now(), tool, outcome, **facts)

    async def _write_if_possible(self, tool: str, outcome: str, facts: dict[str, Any]) -> None:
        """Where something else is to be told to the agent; the operator is told on stderr."""
        try:
            await self._write(tool, outcome, facts)
        except AuditFailed as error:
            complain(str(error), "warning", json=False)
