"""Memory management of the process: what glibc gives back to the system, and how often Python looks for cycles."""

import contextlib
import ctypes
import gc
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


_YOUNG: Final = 20_000
_OLDER: Final = 20


def quiet_collector() -> None:
    """Let the garbage collector look at new objects less often, and never again at those that are there now.

    Sessions and all that hangs on them are freed by their reference counts; a test holds that they are in no cycle when
    they end. So the collector finds next to nothing here, and with a hundred thousand sessions one full look takes a
    quarter of a second in which nobody is served. It goes on all the same, for what libraries leave behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
