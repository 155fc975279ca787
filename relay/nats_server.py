"""The private NATS server of `--workers`: on loopback, for this relay's own processes, and gone when they are.

Its password exists in memory only: the configuration goes through a pipe (`-c /dev/fd/N`), so that there is no file
that a killed process would leave, and none is needed where no file can be written. A shell stands between as a guard
and ends the server when its standard input does, which the kernel closes however this process ends.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from relay.backoff import Backoff

MAX_PAYLOAD: Final = 8 * 1024 * 1024
"""Bytes of one message between processes: a batch with a frame of 1 MiB and what surrounds it, with room."""
_USER: Final = "blindrelay"
_START: Final = 20.0
_ASK: Final = 0.02
_LINE: Final = 64 * 1024
_ABOVE: Final = 32
_GUARD: Final = """\
exec 3<&0 4>&2 </dev/null 2>/dev/null
"$@" 2>&4 3<&- 4>&- &
server=$!
exec 4>&-
{ read -r nothing <&3; kill -9 "$server"; } >/dev/null &
guard=$!
exec 3<&-
wait "$server"
status=$?
kill -9 "$guard"
wait "$guard"
exit "$status"
"""
# `read` is the shell's own, so there is no third process. The guard goes before the shell does: later the number of the
# server's process could be another's.


class NatsServerError(Exception):
    """The private server does not run; the text says why."""


class NatsServer:
    """Starts the server, and again whenever it ends, always on the same port.

    Args:
        program: the path of nats-server.
        died: is called each time that it ended without being told to, with its exit status.
        cores: how many it may keep busy (``GOMAXPROCS``). With more than it needs its threads look for work in turns,
            which costs half as much again for each message.
    """

    def __init__(self, program: Path, died: Callable[[int], None], cores: int = 1) -> None:
        self._program = program
        self._cores = cores
        self._died = died
        self._password = secrets.token_hex(32)
        self._held: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._last = ""
        self.port = 0
        self.restarts = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def user(self) -> str:
        """The only user."""
        return _USER

    @property
    def password(self) -> str:
        """The password of that user: 32 random bytes in hex, new with every relay."""
        return self._password

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, and watch over it until :meth:`stop`.

        Raises:
            NatsServerError: it does not start.
        """
        self._take_port()
        await self._run()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End it. Nothing is stored there, so nothing has to be finished."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        await self._end()
        if self._held is not None:
            self._held.close()

    def _take_port(self) -> None:
        """Choose a free port. On Linux it stays ours while nobody listens there: SO_REUSEADDR lets the server in."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        if sys.platform == "linux":
            self._held = sock
        else:
            sock.close()

    def _configuration(self) -> str:
        return (
            f'server_name: "blindrelay"\nhost: "127.0.0.1"\nport: {self.port}\n'
            f'authorization {{ user: "{_USER}", password: "{self._password}" }}\n'
            f'max_payload: {MAX_PAYLOAD}\nwrite_deadline: "5s"\nping_interval: "10s"\nping_max: 2\n'
            # One subscription for each session, and no file, no JetStream, no monitoring port.
            "max_subscriptions: 0\nmax_connections: 1024\nno_sys_acc: true\n"
        )

    async def _run(self) -> None:
        first, writing = os.pipe()
        # A number that the guard's own redirections do not take.
        reading = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
        os.close(first)
        try:
            # Far less than a pipe holds, so nobody has to read it yet.
            os.write(writing, self._configuration().encode())
            os.close(writing)
            self._process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _GUARD,
                "blindrelay-nats",
                self._program,
                "-c",
                f"/dev/fd/{reading}",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(reading,),
                limit=_LINE,
                # Ctrl-C is for the relay, which ends this server last.
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath), "GOMAXPROCS": str(self._cores)},
            )
        except OSError as error:
            raise NatsServerError(f"cannot start {self._program}: {error.strerror}") from error
        finally:
            os.close(reading)
        # It lives until the process's standard error ends, and then by itself.
        self._listener = asyncio.create_task(self._listen(self._process))
        await self._until_it_answers(self._process)

    async def _until_it_answers(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(_START):
                while process.returncode is None:
                    try:
                        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                        said = await reader.readline()
                    except OSError:
                        await asyncio.sleep(_ASK)
                        continue
                    writer.close()
                    if said.startswith(b"INFO "):
                        return
        except TimeoutError:
            pass
        await self._end()
        raise NatsServerError(f"{self._program} does not start: {self._last or 'it says nothing'}")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Log what the server warns of; its other lines are for somebody who runs it by hand."""
        if process.stderr is None:
            raise AssertionError("its standard error is a pipe")
        log = structlog.get_logger()
        while True:
            try:
                line = (await process.stderr.readline()).decode(errors="replace")
            except ValueError:
                continue  # longer than a line of a log is
            if not line:
                return
            _, bracket, text = line.rpartition("[INF] " if "[INF] " in line else "] ")
            self._last = (text if bracket else line).strip()
            # Of the password in the configuration, which nobody but the two of us has seen.
            if "[INF]" not in line and "Plaintext passwords" not in line:
                log.warning("nats_server", text=self._last)

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            process = self._process
            if process is None:
                raise AssertionError("it was not started")
            status = await process.wait()
            self._died(status)
            while True:
                await asyncio.sleep(backoff.next())
                try:
                    await self._run()
                except (NatsServerError, OSError) as error:  # OSError: no more open files, for one
                    structlog.get_logger().error("nats_server_failed", reason=str(error))
                else:
                    self.restarts += 1
                    break

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
