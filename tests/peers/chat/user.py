"""Somebody who uses ``blindrelay-chat``, each command a process of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from keys.invite import RelayCard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cutting import CuttingProxy
    from tests.support.relay_process import RelayProcess

ROOT: Final = Path(__file__).resolve().parents[3]
WAIT: Final = 60.0
"""Seconds after which a test gives up; nothing here takes more than a few on an idle machine."""
_OURS: Final = ("BLINDRELAY_", "RELAY_", "_BLINDRELAY")
_COLOURS: Final = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TERM", "COLUMNS", "GITHUB_ACTIONS", "PY_COLORS")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> dict[str, Any]:
        [record] = self.records
        return record

    @property
    def error(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.err)
        return value


class User:
    """A person with a profile.

    Args:
        home: for BLINDRELAY_HOME; several people may share one.
        name: of the profile.
    """

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS) and k not in _COLOURS}
        return {**kept, "BLINDRELAY_HOME": str(self.home), "BLINDRELAY_PROFILE": self.name, **more}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "peers.chat", *arguments]

    def run(self, *arguments: str, stdin: str | bytes = b"", **environment: str) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            env=self.environment(**environment),
            cwd=ROOT,
            timeout=WAIT,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return Done(done.returncode, out, err)

    def does(self, *arguments: str, **how: Any) -> Done:
        """Run a command that ends well."""
        done = self.run(*arguments, **how)
        assert done.status == 0, done
        return done

    def at_terminal(self, *arguments: str, typed: str = "", columns: int = 80, **environment: str) -> Done:
        """Run a command at a terminal, where stdout and stderr are one."""
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        variables = self.environment(**{"TERM": "xterm-256color", **environment})
        process = subprocess.Popen(
            self.command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=variables, cwd=ROOT
        )
        os.close(theirs)
        if typed:
            os.write(ours, typed.encode())
        seen = b""
        with suppress(OSError):  # EIO: the other end is closed
            while part := os.read(ours, 65536):
                seen += part
        os.close(ours)
        return Done(process.wait(WAIT), seen.decode().replace("\r\n", "\n"), "")

    def starts(self, *arguments: str) -> Running:
        """Start a command that goes on until it is told to end."""
        return Running(self, arguments)

    def joins(self, relay: RelayProcess | CuttingProxy, nickname: str | None = None) -> str:
        """Make the profile; returns the invite."""
        card = RelayCard(relay.public, relay.url).text
        invite: str = self.does("init", "--relay", card, "--name", nickname or self.name, "--json").record["invite"]
        return invite


class Running:
    """A command that runs."""

    def __init__(self, user: User, arguments: tuple[str, ...]) -> None:
        self._errors = (user.home / f"stderr-{user.name}").open("w+b")
        self.process = subprocess.Popen(
            user.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=user.environment(),
            cwd=ROOT,
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    @property
    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode()

    def lines(self) -> Iterator[str]:
        """What it prints; ends with it, or by the time-out of the test."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield line.decode().removesuffix("\n")

    def records(self) -> Iterator[dict[str, Any]]:
        for line in self.lines():
            yield json.loads(line)

    def until(self, event: str, **fields: Any) -> dict[str, Any]:
        """The next record of that event with these fields."""
        for record in self.records():
            if record["event"] == event and all(record.get(name) == value for name, value in fields.items()):
                return record
        raise AssertionError(f"it ended before there was a {event}: {self.errors}")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT)
