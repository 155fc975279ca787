"""``blindrelay-chat`` in a process that kills itself, as kill -9 does, at the n-th step it takes: before or after a
commit or a write to stdout. ``python -m tests.peers.chat.counted N ARGUMENT…``
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from peers.chat.__main__ import main
from peers.chat.pipes import Output
from peers.database import Database


def count_steps(kill_at: int) -> None:
    lock, steps = threading.Lock(), 0

    def step() -> None:
        nonlocal steps
        with lock:
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    commit, write = Database._commit, Output._write

    def counted_commit(self: Database, group: list[Any]) -> None:
        step()
        commit(self, group)
        step()

    def counted_write(self: Output, raw: bytes) -> None:
        step()
        write(self, raw)
        step()

    Database._commit = counted_commit  # type: ignore[method-assign]
    Output._write = counted_write  # type: ignore[method-assign]


if __name__ == "__main__":
    count_steps(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
