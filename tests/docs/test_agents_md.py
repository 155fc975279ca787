"""docs/agents.md: its examples run against a real relay, its tables are what the programs have."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.main import get_command

import peers.chat.cli  # noqa: F401 - registers the commands
from keys.invite import Invite, RelayCard
from peers.chat.bridge import environment
from peers.chat.commands.frame import app
from peers.chat.exits import Exit
from peers.store import contacts, messages
from tests.docs import markdown
from tests.peers.carrier.conversation import WAIT, Person
from tests.peers.chat.agent.session import Agent
from tests.peers.chat.user import User
from tests.support.clients import run_async

if TYPE_CHECKING:
    from pathlib import Path

    from peers.store.contacts import ContactRow
    from tests.support.relay_process import RelayProcess

DOCUMENT = (markdown.ROOT / "docs" / "agents.md").read_text()
BLOCKS = markdown.blocks(DOCUMENT)


def block(language: str, holds: str) -> str:
    [found] = ["\n".join(each.lines) for each in BLOCKS if each.language == language and holds in "\n".join(each.lines)]
    return found


class Reader:
    """Somebody who does what the document says."""

    def __init__(self, directory: Path, relay: RelayProcess) -> None:
        self.alice = Person(directory / "alice", "Alice")
        self.user = User(directory / "home", "robot")
        self.user.home.mkdir()
        self.relay = relay
        programs = directory / "bin"
        programs.mkdir()
        program = programs / "blindrelay-chat"
        program.write_text(
            f'#!/bin/sh\ncd {shlex.quote(str(markdown.ROOT))} && exec {sys.executable} -m peers.chat "$@"\n'
        )
        program.chmod(0o755)
        self.environment = {
            **self.user.environment(
                THE_CARD=RelayCard(relay.public, relay.url).text, ALICE_INVITE=self.alice.keys.invite.text
            ),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(markdown.ROOT),
        }

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-euc", script], env=self.environment, capture_output=True, text=True, timeout=WAIT, check=False
        )

    async def begins(self) -> ContactRow:
        """Run the first block; returns what the robot is to Alice."""
        done = await asyncio.to_thread(self.sh, block("sh", "init --profile robot"))
        assert done.returncode == 0, done.stderr
        invite = Invite.parse(re.findall(r"K0[\w-]+", done.stdout)[0])
        return await self.alice.store.write(contacts.add, 1, invite.public, nickname=invite.nickname)

    async def heard(self, contact: ContactRow) -> str:
        """The first thing that Alice hears."""
        rows = await self.alice.until(messages.history, lambda rows: any(not row.outgoing for row in rows), contact.id)
        return next(row.text for row in rows if not row.outgoing)


@pytest.fixture
def reader(tmp_path: Path, relay: RelayProcess) -> Reader:
    return Reader(tmp_path, relay)


def test_every_block_is_tried_here() -> None:
    assert [each.language for each in BLOCKS] == ["sh", "sh", "python", "json", "python"]


@run_async
async def test_a_pipe(reader: Reader) -> None:
    robot = await reader.begins()
    async with reader.alice.at(reader.relay):
        done = await asyncio.to_thread(reader.sh, block("sh", "| blindrelay-chat bridge"))
        assert (done.returncode, done.stdout) == (Exit.DONE, ""), done.stderr
        assert await reader.heard(robot) == "the backup is done"


@run_async
async def test_a_program_of_a_few_lines(reader: Reader) -> None:
    robot = await reader.begins()
    async with reader.alice.at(reader.relay):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", block("python", "Popen"), env=reader.environment, start_new_session=True
        )
        try:
            await reader.alice.says(robot, "two\nlines")
            assert await reader.heard(robot) == "you said: two\nlines"
        finally:
            os.killpg(process.pid, 9)
            await process.wait()


@run_async
async def test_the_configuration_of_a_client(reader: Reader, tmp_path: Path) -> None:
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters

    await reader.begins()
    server = json.loads(block("json", "mcpServers"))["mcpServers"]["blindrelay"]
    reports = tmp_path / "reports"
    reports.mkdir()
    arguments = [str(reports) if argument == "/srv/reports" else argument for argument in server["args"]]
    parameters = StdioServerParameters(command=server["command"], args=arguments, env=reader.environment)
    async with Client(parameters, read_timeout_seconds=WAIT) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert sorted(tools) == sorted(markdown.code(row["tool"]) for row in markdown.rows(DOCUMENT, "tool", ""))
        status = await Agent(client).call("get_status")
        assert (status["human"], status["send_files_from"], status["contacts"]) == (True, [str(reports)], 1)


@run_async
async def test_the_sdk(reader: Reader) -> None:
    robot = await reader.begins()
    async with reader.alice.at(reader.relay):
        script = f"import os\nenvironment = dict(os.environ)\n{block('python', 'StdioServerParameters')}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, env=reader.environment, stdout=subprocess.PIPE
        )
        assert await reader.heard(robot) == "shall I?"
        await reader.alice.says(robot, "yes")
        out, _ = await asyncio.wait_for(process.communicate(), WAIT)
        assert (process.returncode, out) == (0, b"Alice wrote 'yes'\n")


def test_the_variables_are_those_that_are_read() -> None:
    told = {markdown.code(row["variable"]) for row in markdown.rows(DOCUMENT, "variable", "")}
    assert told == {value for name, value in vars(environment).items() if name.isupper() and isinstance(value, str)}


def test_the_options_are_those_of_the_command() -> None:
    told = {markdown.code(row["option"]) for row in markdown.rows(DOCUMENT, "option", "")}
    command = get_command(app).commands["mcp"]  # type: ignore[attr-defined]
    real = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    assert told == real - {"--profile", "--json", "--quiet"}


def test_the_exit_statuses() -> None:
    told = {int(row["status"]) for row in markdown.rows(DOCUMENT, "status", "")}
    assert told == {int(status) for status in Exit} - {Exit.UNEXPECTED, Exit.FAILED_THERE}
