"""Counts of what the relay did: plain integers, every reason there from the start, no ids.

What can be told by looking (how many sessions there are, what the budget holds) is not counted here.
"""

from typing import Final

from relay.histogram import Histogram
from relay.limits import KIB, MIB
from relay.reasons import Ending, Held, Refusal

LAG_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
DEPTH_BOUNDS: Final = (KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 2 * MIB, 4 * MIB, 16 * MIB)


class Counters:
    """Counted since the process started. `relay.metrics` has a row for each."""

    __slots__ = (
        "admitted",
        "bytes_in",
        "bytes_out",
        "commands",
        "endings",
        "frames_in",
        "frames_out",
        "held",
        "introductions",
        "loop_lag",
        "out_of_files",
        "presence_told",
        "push_registrations",
        "queue_depth",
        "refusals",
        "shed",
        "wakes",
    )

    def __init__(self) -> None:
        self.admitted = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.frames_in = 0
        self.frames_out = 0
        self.commands = 0
        self.introductions = 0
        self.wakes = 0
        self.push_registrations = 0
        self.presence_told = 0
        self.shed = 0
        self.out_of_files = 0
        self.refusals = dict.fromkeys(Refusal, 0)
        self.endings = dict.fromkeys(Ending, 0)
        self.held = dict.fromkeys(Held, 0)
        self.loop_lag = Histogram(LAG_BOUNDS)
        self.queue_depth = Histogram(DEPTH_BOUNDS)
