"""The relay's limits: one frozen dataclass, each with the reason for its default (PROTOCOL.md §9).

Sizes of the protocol itself stand in `wire.limits`. A rate of 0 switches that limit off; what else may be 0 is in
`_CAN_BE_OFF`.
"""

import os
import resource
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Final

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

KIB: Final = 1024
MIB: Final = 1024 * 1024
FILES_KEPT: Final = 64
"""Open files that are not for clients: the loop's own, listening sockets, logs, lists read anew, callouts."""
_SPARE: Final = 128
_MOST_FILES: Final = 1_000_000
_SUBSCRIPTION: Final = 400
_CAN_BE_OFF: Final = frozenset(
    ("connections", "connections_per_address", "subscriptions", "subscriptions_total", "callout_cache")
)


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


def open_files() -> int:
    """Return how many files this process may open once its soft limit is raised (a million where nothing bounds it)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)


def default_connections() -> int:
    """Return what the open files leave for clients, beyond `FILES_KEPT` and `connections_spare`."""
    return max(16, open_files() - FILES_KEPT - _SPARE)


def default_connections_per_address() -> int:
    """Return 4,096, or a quarter of all connections where that is less: one address is never everybody."""
    return max(4, min(4096, default_connections() // 4))


def default_total_subscriptions() -> int:
    """Return how many subscriptions fit into a quarter of the memory, at some 400 bytes each, and 131,072 at least."""
    return max(128 * KIB, available_memory() // 4 // _SUBSCRIPTION)


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
    opening_grace: float = 1.0
    """How old an unfinished opening must be to give way to a newcomer when there is no room: three round trips."""
    connections: int = default_connections()
    """WebSockets at once, beyond which an opening is answered 503; 0: as many as open files allow."""
    connections_spare: int = _SPARE
    """TCP connections beyond that, so that there is room to say 503 and to answer health checks."""
    connections_per_address: int = default_connections_per_address()
    """WebSockets of one address (IPv4 /32, IPv6 /64): a university or a carrier's NAT shows thousands as one."""
    handshakes_per_second: float = 20.0
    """Per address (IPv4 /32, IPv6 /64), before any key exchange is computed: about half a percent of a core."""
    handshakes_burst: int = 1000
    """A large office behind one address comes back at once after a restart."""
    token_failures_per_second: float = 0.2
    """Wrong admission tokens per address, beyond which none is looked at: guessing is hopeless, and stays cheap."""
    token_failures_burst: int = 60
    """An office whose token was changed tries the old one for a while."""
    callout_timeout: float = 5.0
    """How long the operator's admission service may take, waiting in line included; then the client is sent away."""
    callout_cache: float = 60.0
    """How long a yes of that service holds for the same keys; a no holds a twelfth of it."""
    callout_parallel: int = 32
    """Requests to that service at once."""
    callout_waiting: int = 4096
    """Clients that may wait for its answer; the next is sent away at once."""
    tls_handshakes_per_second: float = 20.0
    """Per address, where the relay itself speaks TLS, before any is computed: each costs a signature of its key."""
    tls_handshakes_burst: int = 1000
    """As many as handshakes: each client needs one of both."""
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
    """How long the process waits for its sockets once the drain is over, by default up to about 9 s after SIGTERM."""

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
    subscriptions_total: int = default_total_subscriptions()
    """Subscriptions of all sessions; each may hold 1/256 of what is still free at most, so that some always is."""
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
    introductions_target_per_second: float = 0.5
    """Per target, whoever sends: many ids are cheap, and each introduction asks a person something."""
    introductions_target_burst: int = 200
    """A lecture hall that reads one invite from the wall."""
    wakes_per_second: float = 1.0
    """Per sender: a message to each of a group of friends at once, and a call that rings them again."""
    wakes_burst: int = 60
    """At once, per sender."""
    wakes_pair_per_second: float = 0.2
    """Per sender and target."""
    wakes_pair_burst: int = 10
    """At once, per sender and target."""
    wakes_target_per_second: float = 0.1
    """Per target, messages and calls apart: one push wakes a phone, and many ids must not ring it without end."""
    wakes_target_burst: int = 30
    """A group of thirty that writes at once."""
    registrations_per_second: float = 0.2
    """PUSH_REGISTER per sender: once in each session, and a phone between two networks has many."""
    registrations_burst: int = 20
    """At once, per sender."""

    # Memory of what was seen.
    replay_ring: int = 32
    """Handshake nonces remembered per key: half an hour of a client that reconnects every minute."""
    replay_ring_commands: int = 64
    """Nonces of frames for the server remembered per key."""
    replay_keys: int = 65536
    """Keys remembered in each; least recently used go first. About 70 MiB in both when full."""
    rate_keys: int = 65536
    """Buckets remembered for each rate by address, sender, target or pair."""

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
            if value == 0 and not field.name.endswith("_per_second") and field.name not in _CAN_BE_OFF:
                raise ValueError(f"{field.name} is 0: it cannot be switched off")
        for less, more in (
            ("flush_size", "queue_size"),
            ("queue_share", "queue_size"),
            ("queue_size", "queue_total"),
            ("ping_after", "silent_after"),
        ):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(f"{less} is more than {more}: raise {more} or lower {less}")

    @property
    def most_accepted(self) -> int:
        """TCP connections at once, WebSockets or not."""
        return (self.connections or default_connections()) + self.connections_spare

    def rate(self, name: str) -> tuple[float, int]:
        """Return the rate and burst of one kind: `name_per_second` and `name_burst`."""
        return getattr(self, f"{name}_per_second"), getattr(self, f"{name}_burst")

    def check_files(self) -> None:
        """Refuse limits for which this process may not open enough files.

        Raises:
            ValueError: tells how many it may open.
        """
        if self.most_accepted + FILES_KEPT > open_files():
            raise ValueError(
                f"connections {self.connections} and connections_spare {self.connections_spare} are too many: this "
                f"process may open {open_files()} files and needs {FILES_KEPT} itself; raise that (ulimit -Hn, "
                "LimitNOFILE=, --ulimit nofile) or lower --limits.connections"
            )
