"""Whether keys that are minted here would be gone at the next start."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# What `docker run` and `podman run` make for a VOLUME that nobody named: a new one with every container.
_ANONYMOUS = re.compile(r"/volumes/[0-9a-f]{64}/_data$")
# What Kubernetes makes for an emptyDir: gone with the pod, so that every rollout has a new one.
_EMPTY_DIR = "/kubernetes.io~empty-dir/"
_FLEETING = frozenset(("tmpfs", "ramfs"))
_ESCAPE = re.compile(r"\\([0-7]{3})")
# Not systemd-nspawn or LXC: their root file systems live on, as a machine's does.
_KINDS = frozenset(("docker", "podman", "oci"))


def in_container(environ: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Tell whether this process runs in a container whose own files end with it (Docker, Podman, Kubernetes)."""
    return (
        (root / ".dockerenv").exists()
        or (root / "run" / ".containerenv").exists()
        or environ.get("container") in _KINDS
        or "KUBERNETES_SERVICE_HOST" in environ
    )


def on_volume(directory: Path, mountinfo: str) -> bool:
    """Tell whether a directory lies on a mount that outlives the container and that its successor gets too.

    Args:
        directory: need not exist yet.
        mountinfo: the text of /proc/self/mountinfo (proc(5)): field 4 is the directory that is mounted, field 5 where,
            and the file system's type follows the lone hyphen.
    """
    path = Path(os.path.realpath(directory))
    best = source = kind = ""
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split()
        if len(fields) < 5 or not tail:
            continue
        # Blanks and the like are written as octal escapes, everything else as it is.
        point = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best):
            best, source, kind = point, fields[3], tail.split()[0]
    if best in ("", "/") or kind in _FLEETING:
        return False
    return _ANONYMOUS.search(source) is None and _EMPTY_DIR not in source


def keys_would_vanish(directory: Path, environ: Mapping[str, str]) -> bool:
    """Tell whether `directory` is in a container and on no volume."""
    if not in_container(environ):
        return False
    try:
        mountinfo = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return True
    return not on_volume(directory, mountinfo)
