"""What the faces of a mailbox count. Labels are ways in, commands and outcomes; never an id, a key or an address."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from peers.client import Reason as Lost
from wire.mailbox_codes import MailboxCommand, Reason

if TYPE_CHECKING:
    from peers.mailbox.core import Mailbox

_PREFIX: Final = "blindrelay_mailbox_"
_LATENCY: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
FACES: Final = ("relay", "http")
OTHER: Final = "other"
_ASKED: Final = {
    code: code.name.lower()
    for code in MailboxCommand
    if code <= MailboxCommand.DELETE or MailboxCommand.DEPOSIT <= code < MailboxCommand.KEPT
}
UNREADABLE: Final = ("unknown_sender", "unopened", "malformed", "not_asked")
"""Why a packet had no answer: its sender's keys are not known; it does not open under them; it is no request."""
TURNED_AWAY: Final = ("connections", "address_connections", "in_progress", "too_large", "too_slow", "malformed")
"""Why HTTP was refused before it was looked at."""


class Metrics:
    """All metrics, in a registry of their own. Every label is there from the start."""

    def __init__(self, mailbox: "Mailbox") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(_Tallies(mailbox))
        self._took = Histogram(
            f"{_PREFIX}request_seconds",
            "From a request to its answer; for what is deposited, its sync to the disk.",
            ["face", "command"],
            buckets=_LATENCY,
            registry=self.registry,
        )
        self._children = {
            (face, code): self._took.labels(face, name) for face in FACES for code, name in _ASKED.items()
        }
        self._unreadable = self._counter("unreadable", "Packets at the relay that had no answer.", "reason")
        self._turned_away = self._counter("http_turned_away", "HTTP that was not let as far as the mailbox.", "reason")
        self._unsent = self._counter("unsent", "Answers at the relay that did not reach their client.")
        self._failures = self._counter("failures", "Errors of the store, and faults of the program.", "kind")
        self._sessions = self._counter("relay_sessions", "Sessions with the relay.")
        self._losses = self._counter("relay_disconnects", "Sessions that ended, and attempts that failed.", "reason")
        self._connected = self._gauge("relay_connected", "1 while there is a session with the relay.")
        self._items = self._gauge("items", "Items that are held.")
        self._bytes = self._gauge("bytes", "Their bytes.")
        self._price = self._gauge("price_bits", "Price of a deposit, in bits of a stamp.")
        self._under_way = self._gauge("in_progress", "Requests under way.", "face")
        self._items.set_function(lambda: mailbox.totals.items)
        self._bytes.set_function(lambda: mailbox.totals.size)
        for reason in UNREADABLE:
            self._unreadable.labels(reason)
        for reason in TURNED_AWAY:
            self._turned_away.labels(reason)
        for kind in ("store", "internal"):
            self._failures.labels(kind)
        for lost in Lost:
            self._losses.labels(lost.value)
        for face in FACES:
            self._under_way.labels(face)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self.registry)

    def watch(self, face: str, under_way: Callable[[], int]) -> None:
        """Show how many requests are under way by a face."""
        self._under_way.labels(face).set_function(under_way)

    def watch_price(self, bits: Callable[[], int]) -> None:
        """Show the price."""
        self._price.set_function(bits)

    def served(self, face: str, command: int, seconds: float) -> None:
        """Count a request and how long it took."""
        child = self._children.get((face, MailboxCommand(command)))
        if child is not None:
            child.observe(seconds)

    def unreadable(self, reason: str) -> None:
        """Count a packet without an answer; `reason` is one of UNREADABLE."""
        self._unreadable.labels(reason).inc()

    def turned_away(self, reason: str) -> None:
        """Count HTTP that was refused; `reason` is one of TURNED_AWAY."""
        self._turned_away.labels(reason).inc()

    def unsent(self) -> None:
        """Count an answer that did not reach its client."""
        self._unsent.inc()

    def failed(self, kind: str) -> None:
        """Count an error: `store` or `internal`."""
        self._failures.labels(kind).inc()

    def connected(self) -> None:
        """Count a session with the relay."""
        self._sessions.inc()
        self._connected.set(1)

    def disconnected(self, reason: Lost) -> None:
        """Count the end of one, or an attempt that failed."""
        self._losses.labels(reason.value).inc()
        self._connected.set(0)

    def text(self) -> bytes:
        """Return the text of all metrics, in Prometheus' plain form."""
        return generate_latest(self.registry)


class _Tallies(Collector):
    """What the core counts, read when somebody asks."""

    def __init__(self, mailbox: "Mailbox") -> None:
        self._mailbox = mailbox

    def collect(self) -> Iterable[Metric]:
        tallies = self._mailbox.tallies
        for name, text, value in (
            ("deposits", "Deposits that were taken.", tallies.deposits),
            ("handed_out", "Items that were handed out.", tallies.handed),
            ("acknowledged", "Items that were acknowledged.", tallies.acknowledged),
            ("dropped", "Items that their depositors deleted.", tallies.dropped),
            ("expired", "Items that ended.", tallies.expired),
        ):
            yield CounterMetricFamily(_PREFIX + name, text, value=value)
        refused = CounterMetricFamily(_PREFIX + "refused", "Requests that were refused.", labels=["reason"])
        for reason in Reason:
            refused.add_metric([reason.name.lower()], tallies.refused[reason])
        yield refused
