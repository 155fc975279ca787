"""A process that kills itself, as kill -9 does, at the n-th step it takes."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from peers.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable


def count_steps(kill_at: int) -> Callable[[], None]:
    """Count a step before and one after each commit; returns what counts one more. 0: never."""
    lock, steps = threading.Lock(), 0

    def step() -> None:
        nonlocal steps
        with lock:
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    commit = Database._commit

    def counted_commit(self: Database, group: list[Any]) -> None:
        step()
        commit(self, group)
        step()

    Database._commit = counted_commit  # type: ignore[method-assign]
    return step
