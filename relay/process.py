"""What the operating system says of this process, each figure from one small file or call.

`prometheus_client` has a collector for these, which counts open files by listing a directory: with fifteen thousand
connections that holds the event loop for 25 ms, at every scrape.
"""

import os
import resource
import time
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc/self")


class Process(NamedTuple):
    """Figures of this process; None where the system does not tell cheaply."""

    cpu_seconds: float
    resident_bytes: int | None
    open_files: int | None
    max_files: int


def look(proc: Path = _PROC) -> Process:
    """Return the figures of now."""
    return Process(time.process_time(), _resident(proc), _open_files(proc), _max_files())


def started_at(proc: Path = _PROC) -> float | None:
    """Return when the process began, in seconds since 1970, or None."""
    try:
        # The name of the program stands in brackets and may hold anything.
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        # Not from /proc/uptime: under systemd's ProcSubset=pid there is none.
        up = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.time() - (up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (AttributeError, OSError, ValueError, IndexError):
        return None


def _resident(proc: Path) -> int | None:
    try:
        return int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _open_files(proc: Path) -> int | None:
    """Return how many files are open: Linux 6.2 and later give it as the size of the directory, older ones 0."""
    try:
        return (proc / "fd").stat().st_size or None
    except OSError:
        return None


def _max_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
