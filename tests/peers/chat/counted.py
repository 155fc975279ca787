"""``blindrelay-chat`` in a process that kills itself, as kill -9 does, at the n-th step it takes: before or after a
commit or a write to stdout. ``python -m tests.peers.chat.counted N ARGUMENT…``
"""

from __future__ import annotations

import sys

from peers.chat.__main__ import main
from peers.chat.pipes import Output
from tests.support.steps import count_steps


def count_writes(kill_at: int) -> None:
    step, write = count_steps(kill_at), Output._write

    def counted_write(self: Output, raw: bytes) -> None:
        step()
        write(self, raw)
        step()

    Output._write = counted_write  # type: ignore[method-assign]


if __name__ == "__main__":
    count_writes(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
