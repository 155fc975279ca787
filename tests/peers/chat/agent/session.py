"""An agent's session: ``blindrelay-chat mcp`` as a process, spoken to by the SDK's own client."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from keys.invite import Invite
from peers.store import contacts
from tests.peers.carrier.conversation import WAIT
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from tests.peers.carrier.conversation import Person
    from tests.peers.chat.user import User
    from tests.support.relay_process import RelayProcess


class Robot:
    """A profile for an agent."""

    def __init__(self, user: User, relay: RelayProcess) -> None:
        self.user = user
        self.invite = Invite.parse(user.joins(relay))
        self.directory = user.home / "profiles" / user.name

    async def meets(self, person: Person, label: str | None = None) -> ContactRow:
        """Make the two contacts of each other; returns what the robot is to them."""
        self.user.does("add", person.keys.invite.text, *(("--label", label) if label else ()))
        return await person.store.write(contacts.add, person.now(), self.invite.public, nickname=self.invite.nickname)

    def parameters(self, *arguments: str) -> StdioServerParameters:
        command, *rest = self.user.command("mcp", *arguments)
        return StdioServerParameters(command=command, args=rest, env=self.user.environment(), cwd=ROOT)

    @property
    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_path.read_text().splitlines()]

    @property
    def audit_path(self) -> Path:
        return self.directory / "audit.jsonl"


class Agent:
    """Calls tools."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that does what it is asked for; returns what it says, checked to be the same in both forms."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        [content] = result.content
        assert content.type == "text"
        assert json.loads(content.text) == result.structured_content
        value: dict[str, Any] | None = result.structured_content
        assert value is not None
        return value

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Call a tool that does not; returns why."""
        result = await self.client.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        [content] = result.content
        assert content.type == "text"
        assert "Traceback" not in content.text
        return content.text.removeprefix(f"Error executing tool {tool}: ")


@asynccontextmanager
async def agent(robot: Robot, *arguments: str, mode: str = "auto") -> AsyncIterator[Agent]:
    """Start the server, and end it as clients do."""
    log = robot.user.home / "mcp-stderr"
    with log.open("a+") as errors:
        transport = stdio_client(robot.parameters(*arguments), errlog=errors)
        async with Client(transport, mode=mode, read_timeout_seconds=WAIT) as client:
            yield Agent(client)
        errors.seek(0)
        assert "Traceback" not in (said := errors.read()), said
