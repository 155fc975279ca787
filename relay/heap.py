"""Keeps the C heap from shrinking and growing with every turn of the event loop."""

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
KEPT: Final = 16 * 1024 * 1024
"""Free bytes at the top of the heap that stay with the process."""
MAPPED: Final = 4 * 1024 * 1024
"""Size from which a block is mapped by itself: above the largest frame with its head, and a joined write."""


def keep_heap() -> bool:
    """Let glibc keep what large frames leave free; returns whether it listened, False where there is no glibc.

    By default it gives the top of the heap back to the system as soon as 128 KiB of it are free, which a turn with a
    few large frames does every time, and the next turn faults the pages in again: half of what such a frame costs.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_TRIM_THRESHOLD, KEPT) and mallopt(_M_MMAP_THRESHOLD, MAPPED))
    return False
