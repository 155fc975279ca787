"""What the notifier counts. Labels are channels, kinds of wakes and outcomes; never an id, a token or a host."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from peers.client import Reason
from peers.notifier.channel import PushType, Result, kind_name
from wire.commands import PushKind

if TYPE_CHECKING:
    from peers.notifier.lane import Lane

_PREFIX: Final = "blindrelay_notifier_"
_LATENCY: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
SKIPPED: Final = ("coalesced", "capped", "dropped", "expired", "abandoned")
"""Why a wake had no push of its own on a device: there is one already; too many calls; the queue was full; no success
within the time; the notifier ended."""
WAKES: Final = ("registered", "unknown", "failed")
REGISTRATIONS: Final = ("added", "refreshed", "removed", "full", "unusable", "not_offered", "failed")


_KINDS: Final = tuple(kind for kind in PushKind if kind is not PushKind.NONE)


class Metrics:
    """All metrics, in a registry of their own. Every label is there from the start.

    Args:
        channels: the names of the channels.
    """

    def __init__(self, channels: Iterable[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        names = tuple(channels)
        types = tuple(each.value for each in PushType)
        self._pushes = self._counter("pushes", "Attempts to push, by outcome.", "channel", "type", "outcome")
        self._skipped = self._counter(
            "skipped", "Wakes of a device without a push of their own.", "channel", "type", "reason"
        )
        self._wakes = self._counter("wakes", "Wakes from the relay: whether anybody registered.", "type", "outcome")
        self._registered = self._counter(
            "registration_events", "Registrations and removals, by what became of them.", "outcome"
        )
        self._sessions = self._counter("relay_sessions", "Sessions with the relay.")
        self._losses = self._counter("relay_disconnects", "Sessions that ended, and attempts that failed.", "reason")
        self._latency = Histogram(
            f"{_PREFIX}latency_seconds",
            "From the wake to the push service's yes.",
            ["channel", "type"],
            buckets=_LATENCY,
            registry=self.registry,
        )
        self._queue = self._gauge("queue", "Pushes that wait.", "channel", "type")
        self._in_flight = self._gauge("in_flight", "Pushes under way.", "channel")
        self._paused = self._gauge("paused", "1 while the push service asked us to wait.", "channel")
        self._tokens = self._gauge("registrations", "Tokens in the registry.", "channel")
        self._connected = self._gauge("relay_connected", "1 while there is a session with the relay.")
        self.tokens({})
        for name in names:
            for each in types:
                self._latency.labels(name, each)
                for result in Result:
                    self._pushes.labels(name, each, result.value)
                for reason in SKIPPED:
                    self._skipped.labels(name, each, reason)
        for each in types:
            for outcome in WAKES:
                self._wakes.labels(each, outcome)
        for outcome in REGISTRATIONS:
            self._registered.labels(outcome)
        for lost in Reason:
            self._losses.labels(lost.value)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self.registry)

    def watch(self, lane: "Lane") -> None:
        """Show the figures of a lane."""
        for each in PushType:
            self._queue.labels(lane.name, each.value).set_function(partial(lane.waiting, each))
        self._in_flight.labels(lane.name).set_function(lambda: lane.in_flight)
        self._paused.labels(lane.name).set_function(lambda: float(lane.paused))

    def pushed(self, channel: str, kind: PushType, result: Result) -> None:
        """Count an attempt."""
        self._pushes.labels(channel, kind.value, result.value).inc()

    def sent(self, channel: str, kind: PushType, seconds: float) -> None:
        """Count how long a push took that was taken, from its wake on."""
        self._latency.labels(channel, kind.value).observe(seconds)

    def skipped(self, channel: str, kind: PushType, reason: str) -> None:
        """Count a wake of a device that has no push of its own; `reason` is one of SKIPPED."""
        self._skipped.labels(channel, kind.value, reason).inc()

    def woken(self, kind: PushType, outcome: str) -> None:
        """Count a wake; `outcome` is one of WAKES."""
        self._wakes.labels(kind.value, outcome).inc()

    def registered(self, outcome: str) -> None:
        """Count a registration or removal; `outcome` is one of REGISTRATIONS."""
        self._registered.labels(outcome).inc()

    def connected(self) -> None:
        """Count a session with the relay."""
        self._sessions.inc()
        self._connected.set(1)

    def disconnected(self, reason: Reason) -> None:
        """Count the end of one, or an attempt that failed."""
        self._losses.labels(reason.value).inc()
        self._connected.set(0)

    def tokens(self, totals: Mapping[int, int]) -> None:
        """Show how many tokens there are, by kind; of kinds that are left out there is none."""
        for kind in {*_KINDS, *totals}:
            self._tokens.labels(kind_name(kind)).set(totals.get(kind, 0))

    def text(self) -> bytes:
        """Return the text of all metrics, in Prometheus' plain form."""
        return generate_latest(self.registry)
