"""As many sessions as a system's limit of open files may forbid: 100,000 in one process, without their sockets.

This shows what the relay itself keeps for a session and what its pulse costs for so many. The kernel's part is
shown by `idle`. There is no base for it.
"""

import json
import subprocess
import sys
from typing import Final

from bench.context import Context
from bench.stats import OURS, Figure
from bench.targets import ROOT

_COUNT: Final = 100_000
_COUNT_QUICK: Final = 4000
_TIMEOUT: Final = 300.0


def run(context: Context) -> list[Figure]:
    """Measure in a process of its own."""
    count = _COUNT_QUICK if context.quick else _COUNT
    context.tell(f"sessions: {count:,} without sockets")
    command = [sys.executable, "-m", "bench.sessions", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT, check=True, cwd=ROOT)
    result = json.loads(done.stdout)
    figures = [
        Figure(f"sessions/{name}", unit, more_is_better=False, values={OURS: [result[name]]})
        for name, unit in (("memory", "KiB"), ("one look", "µs"), ("first beat", "µs"), ("one beat", "µs"))
    ]
    figures[0].note(f"{count:,} sessions; of the first tenth {result['memory, first tenth']:.2f} KiB each")
    figures[1].note(f"of the first tenth {result['one look, first tenth']:.2f} µs")
    return figures
