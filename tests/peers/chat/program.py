"""`bridge` and `mcp` as processes, without the command line around them: errors get its exit statuses here."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from peers.chat.exits import Exit
from peers.chat.pipes import Output
from peers.client import RelayRefused
from peers.database import Database, DatabaseError
from peers.profile import NoSuchProfile, ProfileError
from peers.store.errors import NoSuchContact, StoreError


def main(name: str, options: dict[str, Any]) -> int:
    try:
        _count_steps(options.pop("kill_at", 0))
        if name == "bridge":
            from peers.chat import bridge

            if "watch" in options:
                options["watch"] = Path(options["watch"])
            if "peers" in options:
                options["peers"] = tuple(options["peers"])
            return bridge.run(os.environ, bridge.BridgeOptions(**options))
        raise ValueError(name)
    except (NoSuchProfile, NoSuchContact) as error:
        return _told(error, Exit.NOT_FOUND)
    except (ProfileError, StoreError) as error:
        return _told(error, Exit.USAGE)
    except RelayRefused as error:
        return _told(error, Exit.REFUSED)
    except DatabaseError as error:
        return _told(error, Exit.UNEXPECTED)


def _count_steps(kill_at: int) -> None:
    """Kill this process, as kill -9 does, at the n-th step it takes: before or after a commit or a write to stdout."""
    if not kill_at:
        return
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


def _told(error: Exception, status: Exit) -> int:
    print(f"blindrelay-chat: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
