"""A bridge as a process, with real pipes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Self

from keys.files import ClientKeys
from keys.identity import Identity
from tests.peers.carrier.conversation import WAIT
from tests.support.relay_process import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from keys.invite import Invite
    from tests.support.relay_process import RelayProcess


def environment(home: Path, keys: ClientKeys, relay: RelayProcess, *peers: Invite) -> dict[str, str]:
    """What telefon's bridge is told by its environment."""
    x_seed, ed_seed = keys.identity.seeds
    return {
        "BLINDRELAY_HOME": str(home),
        "WSCHAT_X_SEED": x_seed.hex(),
        "WSCHAT_ED_SEED": ed_seed.hex(),
        "WSCHAT_NICK": keys.nickname,
        "WSCHAT_PEER_QR": ",".join(peer.text for peer in peers),
        "WS_URL": relay.url,
        "WSCHAT_SERVER_X_PUB": relay.public.x_pub.hex(),
        "WSCHAT_SERVER_ED_PUB": relay.public.ed_pub.hex(),
    }


def heeds_signals() -> None:
    """For the child: also where the tests themselves were started to ignore some, as by nohup(1)."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def robot() -> ClientKeys:
    return ClientKeys(Identity.generate(), "robot")


class Bridge:
    """One run of it. As `async with`, at whose end it is killed if it still runs."""

    def __init__(self, variables: Mapping[str, str], *arguments: str, kill_at: int | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WS", "BLINDRELAY_"))}
        self._environment = {**clean, **variables}
        program = ("peers.chat",) if kill_at is None else ("tests.peers.chat.counted", str(kill_at))
        self._command = [sys.executable, "-m", *program, "bridge", *arguments]
        self._errors = ""
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
            preexec_fn=heeds_signals,
        )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._listening
        if kind is not None:
            print(f"stderr of the bridge:\n{self._errors}")

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._errors += line.decode()

    async def write(self, *lines: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        await self._process.stdin.drain()

    async def write_raw(self, raw: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(raw)
        await self._process.stdin.drain()

    def end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def read(self) -> str:
        """The next line of stdout; "" at its end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT):
            return (await self._process.stdout.readline()).decode().removesuffix("\n")

    async def read_record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(await self.read())
        return record

    async def rest(self) -> list[str]:
        """What is left on stdout, after its end."""
        lines = []
        while line := await self.read():
            lines.append(line)
        return lines

    async def says(self, text: str) -> None:
        """Wait until stderr holds a text."""
        async with asyncio.timeout(WAIT):
            while text not in self._errors:
                assert not self._listening.done(), self._errors
                await asyncio.sleep(0.01)

    @property
    def errors(self) -> str:
        return self._errors

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """End it as kill -9 does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def dies(self) -> int:
        return await self._process.wait()

    def stop_reading(self) -> None:
        """Close our end of its stdout."""
        transport = self._process._transport  # type: ignore[attr-defined]
        transport.get_pipe_transport(1).close()

    async def ends(self) -> int:
        async with asyncio.timeout(WAIT):
            status = await self._process.wait()
            await self._listening
        assert "Traceback" not in self._errors, self._errors
        return status
