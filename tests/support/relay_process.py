"""The relay as a process of its own, for the tests over real sockets.

It listens on a free port of 127.0.0.1 and its output goes to files: a pipe that nobody reads would one day block it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil  # type: ignore[import-untyped]

from keys.files import ServerKeys, read_server_keys, write_server_keys
from keys.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
_LISTENS = re.compile(
    r"^blindrelay \S+ listens on ((?:wss?://127\.0\.0\.1:(\d+)/ws)|unix:\S+) x25519_public=\"([0-9a-f]{64})\"", re.M
)
_START = 60.0
_STOP = 15.0
"""The relay promises 5 seconds; a loaded machine may take its time."""


class RelayProcess:
    """One run of ``python -m relay``.

    Args:
        directory: where its keys and its output lie. A second run with the same directory has the same keys.
        limits: fields of `relay.limits.Limits`.
        arguments: further ones of the command line.
        drain: seconds over which its sessions are closed at the end.
        notifier_id: 8 bytes, written into the key file.
        admin: where its admin listener listens; many run at once, so not on the default port.
        variables: further ones of its environment.
        files: how many it may open.
        warned: events of level warning and above that are part of the test.
        may_warn: such events that depend on who is first.
        program: what the interpreter runs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limits: Mapping[str, float] | None = None,
        arguments: Sequence[str] = (),
        drain: float = 0.0,
        notifier_id: bytes | None = None,
        admin: str = "off",
        variables: Mapping[str, str] | None = None,
        files: int | None = None,
        warned: Sequence[str] = (),
        may_warn: Sequence[str] = (),
        program: Sequence[str] = ("-m", "relay"),
    ) -> None:
        keys = directory / "relay.keys"
        if not keys.exists():
            write_server_keys(keys, ServerKeys(Identity.generate(), notifier_id))
        self._told = False
        self._warned = frozenset(warned)
        self._may_warn = frozenset(may_warn)
        run = sum(1 for _ in directory.glob("stdout-*"))
        self._out = directory / f"stdout-{run}"
        self._err = directory / f"stderr-{run}"
        command = [
            sys.executable,
            *program,
            "--port",
            "0",
            "--drain",
            str(drain),
            "--admin",
            admin,
            *arguments,
        ]  # of two ports the last one counts
        for name, value in (limits or {}).items():
            command += [f"--limits.{name.replace('_', '-')}", str(value)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        environment["RELAY_DATA_DIR"] = str(directory)
        environment |= variables or {}
        before = None if files is None else partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=before
            )
        try:
            url, port, x_pub = self._await_listening()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.url = url
        self.port = int(port or 0)
        self.public = read_server_keys(keys).identity.public
        assert self.public.x_pub.hex() == x_pub

    def _await_listening(self) -> tuple[str, str | None, str]:
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            found = _LISTENS.search(self._out.read_text())
            if found:
                return found[1], found[2], found[3]
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the relay does not listen:\n{self.output}")

    # --- What can be seen of it --------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """All of stdout and stderr so far."""
        return self._out.read_text() + self._err.read_text()

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was logged so far."""
        return [json.loads(line) for line in self._err.read_text().splitlines()]

    @property
    def stopped(self) -> dict[str, Any]:
        """The last record of a run that ended as it should: counts of frames, refusals and endings."""
        record = self.records[-1]
        assert record["event"] == "stopped", record
        return record

    @property
    def started(self) -> dict[str, Any]:
        """The record that says what is on, which comes just after the relay listens."""
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            for record in self.records:
                if record["event"] == "started":
                    return record
            time.sleep(0.01)
        raise AssertionError(f"the relay does not say what is on:\n{self.output}")

    @property
    def admin_port(self) -> int:
        """The port of the admin listener."""
        return int(self.started["admin"].rpartition(":")[2])

    def processor(self) -> float:
        """Seconds of processor time so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Bytes of resident memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def connections(self) -> int:
        """Sockets that clients hold open, as the kernel sees it."""
        sockets = psutil.Process(self.process.pid).net_connections(kind="tcp")
        return sum(1 for each in sockets if each.status != psutil.CONN_LISTEN)

    # --- Its end -----------------------------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        self._told = True
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return the exit status, soon after a signal."""
        try:
            return self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the relay does not stop:\n{self.output}") from None

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def check(self) -> None:
        """Stop it if it runs, and find that it did and that nothing went wrong inside."""
        killed = self.process.returncode == -signal.SIGKILL
        if self.running:
            if not self._told:
                self.signal(signal.SIGTERM)
            try:
                status = self.wait()
            finally:
                self.process.kill()
                self.process.wait()
            assert status == 0, self.output
        output = self.output
        assert "Traceback" not in output, output
        assert "internal_error" not in output, output
        loud = {record["event"] for record in self.records if record["level"] not in ("debug", "info")}
        assert loud - self._may_warn == self._warned, output
        assert killed or self.stopped


@contextmanager
def running_relay(directory: Path, **how: Any) -> Iterator[RelayProcess]:
    """A relay that runs until the end of the block, which finds that nothing went wrong inside; it is gone in any case.

    Args:
        directory: made if it is missing.
        how: as of :class:`RelayProcess`.
    """
    directory.mkdir(exist_ok=True)
    running = RelayProcess(directory, **how)
    try:
        yield running
        running.check()
    finally:
        running.kill()
