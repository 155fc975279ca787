"""The process behind the scenario `sessions`: ``python -m bench.sessions COUNT`` prints what it measured as JSON.

Each session goes through the real opening and handshake; only the transport below it is a sink.
"""

import asyncio
import json
import os
import sys
import time
from statistics import median
from typing import Any, Final

import uvloop

from bench.load.framing import masked, upgrade_request
from bench.machine import resident_kib
from keys.identity import Identity
from relay.core import Core
from relay.heap import keep_heap, quiet_collector
from relay.limits import Limits
from relay.pulse import Pulse
from relay.session import Session
from wire.session import ClientSession

_FIRST: Final = 200
_SWEEPS: Final = 5
_DEADLINE: Final = 30.0


class _Sink(asyncio.Transport):
    """Takes everything and keeps nothing; one serves all sessions."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def _measure(count: int) -> dict[str, float]:
    server = Identity.generate()
    # There are no sockets, so no open files bound them.
    limits = Limits(ping_after=3600.0, silent_after=7200.0, connections=2 * count)
    core = Core(asyncio.get_running_loop(), server, limits)
    pulse = Pulse(core)
    sink = _Sink()
    request = upgrade_request("127.0.0.1", "/ws")
    quiet_collector()

    async def more(number: int) -> None:
        for at in range(number):
            session = Session(core)
            session.connection_made(sink)
            session.data_received(request)
            session.data_received(masked(ClientSession(Identity.generate(), server.public).hello()))
            if at % 10 == 9:
                await asyncio.sleep(0)
        until = time.monotonic() + _DEADLINE
        # What costs much is done in slices of a turn, so some are let in a few turns later.
        while len(core.sessions) < len(core.connections) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def sweep(later: float) -> float:
        """Return the time for one look at each session, in µs, as if so many seconds had passed."""
        now = core.clock() + later
        sessions = list(core.sessions.values())
        begun = time.perf_counter()
        for session in sessions:
            pulse.look(session, now, b"12345678")
        return (time.perf_counter() - begun) / len(sessions) * 1e6

    await more(_FIRST)
    result: dict[str, float] = {}
    before = resident_kib(os.getpid())
    await more(count // 10)
    result["memory, first tenth"] = (resident_kib(os.getpid()) - before) / (count // 10)
    result["one look, first tenth"] = median(sweep(0.0) for _ in range(_SWEEPS))
    await more(count - count // 10)
    result["memory"] = (resident_kib(os.getpid()) - before) / count
    if len(core.sessions) != _FIRST + count:
        raise AssertionError("not all were let in")
    result["one look"] = median(sweep(0.0) for _ in range(_SWEEPS))
    result["first beat"] = sweep(3601.0)
    await asyncio.sleep(0)
    beats = []
    for _ in range(_SWEEPS):
        begun = time.process_time()
        sweep(3601.0)
        await asyncio.sleep(0)  # what was queued is flushed
        beats.append((time.process_time() - begun) / (_FIRST + count) * 1e6)
    result["one beat"] = median(beats)
    return result


def main() -> None:
    """Measure in this process and print the result as JSON."""
    keep_heap()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_measure(int(sys.argv[1])))))


if __name__ == "__main__":
    main()
