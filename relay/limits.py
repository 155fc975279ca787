"""The relay's limits: one frozen dataclass, each with the reason for its default (PROTOCOL.md §9).

Sizes of the protocol itself stand in `wire.limits`. A rate of 0 switches that limit off.
"""

import os
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Final

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

KIB: Final = 1024
MIB: Final = 1024 * 1024


def available_memory(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's where that has less."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        memory = 1024 * MIB
    try:
        return min(memory, int(cgroup.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return memory


def default_total_queue() -> int:
    """Return 256 MiB, or a quarter of the memory where that is less (a small board keeps room to live)."""
    return max(16 * MIB, min(256 * MIB, available_memory() // 4))


GROUPS: Final = {
    "opening_deadline": "opening",
    "ping_after": "life",
    "frames_per_second": "what one session may send",
    "flush_size": "what may wait for recipients",
    "subscriptions": "presence, introductions, wakes",
    "replay_ring": "memory of what was seen, and time",
}
"""Titles by the first limit of each group, for texts about them."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Limits:
    """Bounds and deadlines. Sizes in bytes, times in seconds, rates per second."""

    # Opening: nobody is known yet, so a stranger may hold little and not for long.
    opening_deadline: float = 10.0
    """TCP accept to a valid handshake request; a phone on a bad network needs about 3."""
    request_size: int = 16 * KIB
    """The HTTP request; browsers send under 2 KiB, cookies of a shared domain may add 8."""
    handshakes_per_second: float = 20.0
    """Per address (IPv4 /32, IPv6 /64), before any key exchange is computed: about half a percent of a core."""
    handshakes_burst: int = 1000
    """A large office behind one address comes back at once after a restart."""
    claim_wait: float = 2.0
    """How long a proven holder of an id has to answer the ping that a newcomer causes."""
    claim_queue: int = 4
    """Newcomers that may wait for one id; the next is told `id in use`."""

    # Life.
    ping_after: float = 20.0
    """Silence in either direction after which a WebSocket ping and a SERVER_PING are sent."""
    silent_after: float = 60.0
    """Silence after which a socket is dropped: two pings unanswered, and time for the second answer."""
    awake_for: float = 25.0
    """A target that sent bytes within this time needs no message WAKE: one ping interval and a slow answer."""
    closing_deadline: float = 5.0
    """How long a closed WebSocket may take to take our last bytes and hang up."""
    shutdown_deadline: float = 4.0
    """How long the process waits for its sockets after SIGTERM; it exits within 5."""

    # What one session may send. Pausing reads loses nothing: TCP makes the sender wait.
    frames_per_second: float = 5000.0
    """A file in 32 KiB chunks at a gigabit is under 4,000."""
    frames_burst: int = 20000
    """At once; four seconds of that."""
    bytes_per_second: float = 64.0 * MIB
    """Half a gigabit: more than any uplink of a person."""
    bytes_burst: int = 128 * MIB
    """At once; two seconds of that."""
    commands_per_second: float = 50.0
    """Frames for the server cost a signature check and an AEAD (about 45 µs); an honest client sends a few a minute."""
    commands_burst: int = 400
    """At once; eight seconds of that."""
    refusals_per_second: float = 400.0
    """Each 0x03 costs a seal and a signature, five times a routed frame: this is one percent of a core."""
    refusals_burst: int = 2000
    """A client that comes back with a full outbox for somebody offline draws one for each message."""
    refusals_waiting: int = 256
    """0x03 answers that may wait for one session before its reads are paused."""
    malformed: int = 16
    """Malformed frames before the session is closed: a mistake is forgiven, a habit is not."""
    partial_free: int = 64 * KIB
    """Bytes of an unfinished message that need no reservation."""
    partial_total: int = 64 * MIB
    """Bytes that unfinished messages of all sessions may hold beyond that; past it, reads wait."""
    partial_grace: float = 10.0
    """How old an unfinished message must be to give way when that is used up: the oldest goes first."""
    partial_deadline: float = 120.0
    """How long a message may take to arrive, fragmented or not: 1 MiB at 9 KiB/s."""

    # What may wait for one recipient, and for all.
    flush_size: int = 256 * KIB
    """A queue is handed to the transport at this size at the latest, else once per event-loop turn."""
    queue_size: int = 4 * MIB
    """Bytes untaken per recipient, beyond which senders are answered 0x03: a file of four full frames."""
    queue_total: int = default_total_queue()
    """Bytes untaken for all recipients together."""
    queue_share: int = 256 * KIB
    """Bytes of that which each recipient has for itself, whatever others hold."""
    queue_age: float = 30.0
    """The age of the oldest untaken byte at which a session is closed: half the time a dead socket is given."""

    # Presence, introductions, wakes.
    subscriptions: int = 1024
    """Keys one session may watch: a contact list, not a directory."""
    presence_burst: int = 6
    """Changes of one key that are told at once; further ones wait, so that flapping costs its watchers little."""
    presence_per_second: float = 0.1
    """How often a key is told of after that."""
    introductions_per_second: float = 0.2
    """Per sender."""
    introductions_burst: int = 20
    """At once, per sender."""
    introductions_pair_per_second: float = 1 / 60
    """Per sender and target."""
    introductions_pair_burst: int = 3
    """At once, per sender and target."""
    wakes_per_second: float = 1.0
    """Per sender: a message to each of a group of friends at once, and a call that rings them again."""
    wakes_burst: int = 60
    """At once, per sender."""
    wakes_pair_per_second: float = 0.2
    """Per sender and target."""
    wakes_pair_burst: int = 10
    """At once, per sender and target."""

    # Memory of what was seen.
    replay_ring: int = 32
    """Handshake nonces remembered per key: half an hour of a client that reconnects every minute."""
    replay_ring_commands: int = 64
    """Nonces of frames for the server remembered per key."""
    replay_keys: int = 65536
    """Keys remembered in each; least recently used go first. About 70 MiB in both when full."""
    rate_keys: int = 65536
    """Buckets remembered for each rate by address, sender or pair."""

    # How long one turn of the event loop may be held by work that can wait.
    slice: float = 0.004
    """Seconds of seals for refusals and presence per turn: well under 10 ms with the rest of the turn."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            ValueError: names the limit.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not isfinite(value):
                raise ValueError(f"{field.name} is {value}: it has to be a finite number")
            if value < 0:
                raise ValueError(f"{field.name} is {value}: it cannot be negative")
            if value == 0 and not field.name.endswith("_per_second") and field.name != "subscriptions":
                raise ValueError(f"{field.name} is 0: only rates and subscriptions can be switched off")
        for less, more in (
            ("flush_size", "queue_size"),
            ("queue_share", "queue_size"),
            ("queue_size", "queue_total"),
            ("ping_after", "silent_after"),
        ):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(f"{less} is more than {more}: raise {more} or lower {less}")
