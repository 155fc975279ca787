"""What the machine is and what a process costs on it: cores, pinning, CPU time, memory. Linux only (/proc)."""

import os
import platform
import resource
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Self

KIB = 1024


@dataclass(frozen=True, slots=True)
class CpuTime:
    """What the scheduler counted for a process, in seconds."""

    on_cpu: float
    waiting: float
    """Ready to run, but somebody else had the core."""

    def __sub__(self, other: "CpuTime") -> "CpuTime":
        return CpuTime(self.on_cpu - other.on_cpu, self.waiting - other.waiting)


def cpu_time(pid: int | str = "self") -> CpuTime:
    """Return the CPU time of the main thread of a process, to the nanosecond where the kernel counts so.

    The main thread is all there is to a relay in Python. /proc/PID/schedstat holds nanoseconds on the CPU and in the
    run queue; a kernel without it has ticks of 10 ms, and no waiting. A relay of another kind may have several threads:
    their times are added up.
    """
    on_cpu = waiting = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            running, queued, _ = (task / "schedstat").read_text().split()
            on_cpu += int(running) / 1e9
            waiting += int(queued) / 1e9
        except FileNotFoundError:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            on_cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return CpuTime(on_cpu, waiting)


def resident_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // KIB


def kernel_socket_kib() -> int:
    """Return what the kernel holds, machine-wide, in memory that cannot be reclaimed (sockets, file objects, epoll)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["SUnreclaim"].split()[0])


def raise_file_limit(wanted: int) -> int:
    """Allow this process and its children `wanted` open files; returns how many it may really have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(wanted, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (OSError, ValueError):
            continue
        return limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores are whose. With one core everything shares it, and the report says so."""

    relay: int
    generators: tuple[int, ...]

    @classmethod
    def share_out(cls) -> Self:
        """Give the relay the first core we may use, and the generators the others."""
        ours = sorted(os.sched_getaffinity(0))
        return cls(ours[0], tuple(ours[1:]) or (ours[0],))

    @property
    def apart(self) -> bool:
        """Whether the relay has a core that no generator runs on."""
        return self.relay not in self.generators


def pin(pid: int, core: int) -> None:
    """Let a process run on one core alone; called before it has started a second thread."""
    os.sched_setaffinity(pid, {core})


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head} with uncommitted changes" if dirty else head


def describe() -> dict[str, str]:
    """Return what a reader needs to know of this machine to judge its figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("uvloop", "websockets", "cryptography", "PyNaCl")
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": f"{_cpu_model()}, {cores} core{'s' if cores > 1 else ''}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": versions,
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
