"""Counts of what the relay did: plain integers, every reason there from the start, no ids."""

from relay.reasons import Ending, Refusal


class Counters:
    """Counted since the process started."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "commands",
        "connections",
        "endings",
        "frames_in",
        "presence_told",
        "refusals",
        "sessions",
        "shed",
        "wakes",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.sessions = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.frames_in = 0
        self.commands = 0
        self.wakes = 0
        self.presence_told = 0
        self.shed = 0
        self.refusals = dict.fromkeys(Refusal, 0)
        self.endings = dict.fromkeys(Ending, 0)
