"""The tool that sends files, and out of where it may."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from peers.chat.agent.desk import Desk, Refused
from peers.chat.agent.reading import Name
from peers.chat.agent.sending import DELIVERY_MAX, delivered
from peers.chat.agent.shapes import SentFile, for_agent, sent
from peers.profile import ProfileError
from peers.store import Connection, files
from peers.store.file_rows import FileRow


class Outbox:
    """Directories out of which files may be sent.

    Args:
        directories: as the operator names them; looked up once, so that a link that is changed later opens nothing.

    Raises:
        ProfileError: one of them is not there.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories: list[Path] = []
        for directory in directories:
            try:
                real = directory.resolve(strict=True)
            except (OSError, RuntimeError):
                raise ProfileError(f"there is no directory {directory} to send files from") from None
            if not real.is_dir():
                raise ProfileError(f"{directory} is no directory to send files from")
            self.directories.append(real)

    def find(self, name: str) -> Path:
        """Return the real path of a file that may be sent; blocks.

        Links are followed, and what counts is where they lead. Nothing whose name, or a directory's on the way from the
        allowed one, begins with a dot: that is where programs keep keys, tokens and settings.

        Raises:
            Refused: it may not be sent, or is not there.
        """
        places = ", ".join(str(directory) for directory in self.directories)
        if not name or "\0" in name:
            raise Refused(f"name a file in: {places}")
        # An absolute name stands for itself, whatever it is joined to.
        for directory in self.directories:
            try:
                path = (directory / name).resolve()
                if self._opens(path) and path.is_file():
                    return path
            except (OSError, RuntimeError, ValueError):  # a name that is too long or cannot be, a loop of links
                continue
        # One text for all reasons: whether a file exists elsewhere is not the agent's concern.
        raise Refused(f"there is no such file that may be sent; files may be sent from: {places} (no hidden ones)")

    def _opens(self, path: Path) -> bool:
        home = next((each for each in self.directories if path.is_relative_to(each)), None)
        return home is not None and not any(part.startswith(".") for part in path.relative_to(home).parts)


class Filing:
    """The tool."""

    def __init__(self, desk: Desk, outbox: Outbox) -> None:
        self._desk = desk
        self._outbox = outbox

    async def send_file(
        self,
        contact: Name,
        path: Annotated[
            str, Field(description="A file in one of the directories that get_status names.", max_length=4096)
        ],
        context: Context[Any, Any],
        wait_seconds: Annotated[
            float, Field(description="How long to wait for it to be delivered.", ge=0, le=DELIVERY_MAX)
        ] = 10,
    ) -> SentFile:
        """Send a file to a contact. It must stay as it is until it is delivered; never send it twice."""
        async with self._desk.call("send_file") as facts:
            row = await self._desk.contact(contact, facts)
            real = await asyncio.get_running_loop().run_in_executor(None, self._outbox.find, path)
            self._desk.take(row)
            # Of the log the path is part, also without texts: what left this machine is what it is for.
            facts["path"] = str(real)
            await self._desk.began("send_file", facts)
            session = self._desk.session
            file = await session.store.write(_offer, session.now(), row.id, real)
            facts |= {"id": file.message, "bytes": file.size}
            said = await delivered(self._desk, context, file.message, wait_seconds)
            now = await session.store.read(files.get, file.message)
            facts["state"] = said.standing
            told = sent(said, row).model_dump()
            return SentFile(**told, name=for_agent(file.name), bytes=file.size, sent_bytes=now.moved, why=now.why)


def _offer(db: Connection, now: int, contact: int, path: Path) -> FileRow:
    file = files.offer(db, now, contact, path)
    if file.source != str(path):
        # A directory on the way became a link since it was looked at. What is raised here undoes the offer; from now on
        # the file is known by its inode, and another one in its place is not read.
        raise Refused("the file was moved while it was looked at: try again")
    return file
