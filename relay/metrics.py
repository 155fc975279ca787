"""`/metrics`: the relay's plain integers in Prometheus' words, read when somebody asks.

Nothing is counted here and nothing of this is on the path of a frame. No label ever names a client: labels are reasons,
outcomes and conditions, all known and all there from the start, so that a rate begins at 0 and not at the first event.
"""

import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from relay import __version__, process
from relay.ready import Condition
from relay.reasons import HANDSHAKE_ENDINGS, Ending, Held, Refusal
from wire.limits import PROTOCOL_VERSION

if TYPE_CHECKING:
    from relay.core import Core
    from relay.histogram import Histogram

COUNTERS: Final[dict[str, tuple[str, str]]] = {
    # The field of Counters, the metric without `_total`, what it says.
    "frames_in": ("frames_received", "WebSocket frames read, of every kind."),
    "frames_out": ("frames_sent", "Binary frames handed to the sockets of recipients."),
    "bytes_in": ("received_bytes", "Bytes read from sockets, handshakes included."),
    "bytes_out": ("sent_bytes", "Bytes of binary frames handed to sockets."),
    "commands": ("commands", "Frames for the server that were looked at."),
    "introductions": ("introductions", "Introductions passed on."),
    "wakes": ("wakes", "Wakes passed to the notifier."),
    "push_registrations": ("push_registrations", "Push registrations passed to the notifier."),
    "presence_told": ("presence_told", "Changes of presence told, one for each watcher and key."),
    "shed": ("queues_shed", "Queues that gave way because the total was used up."),
    "out_of_files": ("out_of_files", "Seconds in which no more files could be opened; connections were closed."),
}
"""Fields of `relay.counters.Counters` that are plain numbers. A test holds the two together."""

_PREFIX: Final = "blindrelay_"
_KEEP: Final = 1.0
"""Seconds for which a text is given again: however often somebody asks, it is made once in that time."""
_KINDS: Final = 4


class RelayCollector(Collector):
    """Reads a relay.

    Args:
        core: the relay.
    """

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._started = process.started_at()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, with the figures of now."""
        yield InfoMetricFamily(
            f"{_PREFIX}build",
            "The version that runs.",
            value={
                "version": __version__,
                "protocol": str(PROTOCOL_VERSION),
                "python": platform.python_version(),
            },
        )
        yield from self._counters()
        yield from self._state()
        yield from self._cluster()
        yield from self._process()

    def _counters(self) -> Iterator[Metric]:
        counters = self._core.counters
        for field, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=getattr(counters, field))
        endings, refusals = counters.endings, counters.refusals
        yield _labelled("refusals", "Frames refused, by reason.", "reason", refusals)
        yield _labelled("endings", "Connections that ended, by reason.", "reason", endings)
        yield _labelled("reads_held", "Times that a session spent too fast and was not read.", "reason", counters.held)
        outcomes = {"admitted": counters.admitted} | {
            str(each): endings[each] for each in Ending if each in HANDSHAKE_ENDINGS
        }
        yield _labelled("handshakes", "Handshakes by outcome: let in, or why not.", "outcome", outcomes)
        yield _labelled(
            "replays_refused",
            "What came a second time: handshakes, and frames for the server.",
            "kind",
            {"handshake": endings[Ending.REPLAYED_HANDSHAKE], "command": refusals[Refusal.REPLAYED]},
        )
        yield _labelled(
            "ghosts_evicted",
            "Sessions put out because their client was gone: it came back, or was silent for too long.",
            "cause",
            {"replaced": endings[Ending.REPLACED], "silent": endings[Ending.SILENT]},
        )
        yield _histogram(
            "loop_lag_seconds",
            "How late the event loop was, looked at four times a second.",
            counters.loop_lag,
        )
        yield _histogram(
            "queue_depth_bytes",
            "Bytes waiting in each queue whose reader does not keep up, looked at once a second.",
            counters.queue_depth,
        )

    def _state(self) -> Iterator[Metric]:
        core = self._core
        ready = core.ready
        yield _gauge("ready", "1 when clients should be sent here, as /readyz says.", int(bool(ready)))
        conditions = GaugeMetricFamily(
            f"{_PREFIX}condition", "1 for each condition of readiness that holds.", labels=["condition"]
        )
        for condition in Condition:
            conditions.add_metric([str(condition)], int(ready.holds(condition)))
        yield conditions
        yield _gauge("connections", "Sockets open, whatever they are.", len(core.connections))
        yield _gauge("sessions", "Clients let in.", len(core.sessions))
        yield _gauge("stalled_sessions", "Sessions whose reader does not keep up.", len(core.budget.stalled))
        yield _gauge("queued_bytes", "Room given to queues whose reader does not keep up.", core.budget.used)
        yield _gauge("queued_bytes_limit", "What they may have together (queue_total).", core.limits.queue_total)
        yield _gauge("partial_bytes", "Room given to unfinished messages.", core.partial_used)
        yield _gauge("partial_bytes_limit", "What they may have together (partial_total).", core.limits.partial_total)
        yield _gauge("watched_keys", "Keys of whose presence somebody wants to know.", core.presence.watched)
        yield _gauge("subscriptions", "Pairs of a session and a key that it watches.", core.presence.subscriptions)
        yield _gauge("remembered_keys", "Keys whose handshakes are remembered.", len(core.handshakes_seen))

    def _cluster(self) -> Iterator[Metric]:
        node = self._core.cluster
        if node is None:
            return
        peers = list(node.peers)
        yield _gauge("cluster_connected", "1 while NATS can be reached.", int(not node.degraded))
        yield _gauge("cluster_nodes", "Relays of the cluster that are heard, this one included.", len(peers) + 1)
        yield _gauge(
            "cluster_links", "Other relays with which there is a working link.", sum(peer.up for peer in peers)
        )
        yield _gauge(
            "cluster_queued_bytes",
            "Bytes for other relays that wait, or were not acknowledged, together.",
            sum(peer.waiting for peer in peers) + node.router.bytes,
        )
        yield _gauge("cluster_bus_bytes", "Bytes handed to the NATS client that have not left.", node.bus.backlog)
        yield _gauge("cluster_known_ids", "Ids of which it is remembered at which relay they are.", len(node.router))
        yield _gauge("cluster_claims", "Newcomers that wait for the other relays' word.", node.claims.asking)
        for name, text, value in (
            ("cluster_lookups", "Ids that were asked for.", node.router.lookups),
            ("cluster_records_sent", "Frames, commands and news sent to other relays.", node.records_out),
            ("cluster_records_received", "Frames, commands and news taken from other relays.", node.records_in),
            ("cluster_messages_sent", "Sealed messages that carried them.", node.messages_out),
            ("cluster_messages_received", "Sealed messages that carried them here.", node.messages_in),
            ("cluster_sent_bytes", "Bytes of the messages sent.", node.bytes_out),
            ("cluster_received_bytes", "Bytes of the messages received.", node.bytes_in),
            ("cluster_nodes_lost", "Relays that were not heard any more, and given up.", node.nodes_lost),
            (
                "cluster_second_sessions",
                "Sessions ended because another relay had one of the same id.",
                node.two_sessions,
            ),
        ):
            yield CounterMetricFamily(_PREFIX + name, text, value=value)
        yield _labelled(
            "cluster_messages_refused",
            "Messages between relays that were not taken, by reason.",
            "reason",
            node.refused,
        )

    def _process(self) -> Iterator[Metric]:
        now = process.look()
        yield CounterMetricFamily("process_cpu_seconds", "Processor time used, in seconds.", value=now.cpu_seconds)
        yield GaugeMetricFamily("process_max_fds", "Files that the process may open.", value=now.max_files)
        for name, text, value in (
            ("process_resident_memory_bytes", "Memory in use, in bytes.", now.resident_bytes),
            ("process_open_fds", "Files that are open (Linux 6.2 or later).", now.open_files),
            ("process_start_time_seconds", "When the process began, in seconds since 1970.", self._started),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)


class Exposition:
    """Gives the text of all metrics, in the form that was asked for.

    Args:
        core: the relay.
    """

    def __init__(self, core: "Core") -> None:
        self._clock = core.clock
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(RelayCollector(core))
        self._kept: dict[str, tuple[float, bytes]] = {}

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its content type, by the Accept header of the request."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # A header that the library cannot read: a version that is no number, an escaping that nobody knows.
            encode, content_type = choose_encoder("")
        now = self._clock()
        kept = self._kept.get(content_type)
        if kept is not None and now - kept[0] < _KEEP:
            return kept[1], content_type
        if len(self._kept) >= _KINDS:
            # A client may ask for ever new ones.
            self._kept.clear()
        text = encode(self._registry)
        self._kept[content_type] = (now, text)
        return text, content_type

    def plain(self) -> str:
        """Return the text as of now in the plain form, for tests and tools."""
        return generate_latest(self._registry).decode()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)


def _labelled(
    name: str,
    text: str,
    label: str,
    values: "dict[Ending, int] | dict[Refusal, int] | dict[Held, int] | dict[str, int]",
) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=[label])
    for key, count in values.items():
        family.add_metric([str(key)], count)
    return family


def _histogram(name: str, text: str, histogram: "Histogram") -> Metric:
    buckets = [
        ("+Inf" if bound == float("inf") else str(float(bound)), float(count))
        for bound, count in histogram.cumulative()
    ]
    return HistogramMetricFamily(_PREFIX + name, text, buckets=buckets, sum_value=histogram.total)
