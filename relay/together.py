"""Several workers' figures as those of one relay: `/metrics`, `/sessions`, `/readyz` and `/healthz` of the parent.

A metric of a worker gets the label `worker`, and is not added up: a worker that starts again begins at 0, which a sum
would show as a fall of all of them, and Prometheus would take for that many new events.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from relay import process
from relay.admin import METRICS_PATH, MISSING, SESSIONS_PATH, Desk
from relay.pages import HEALTH_PATH, READY_PATH
from relay.replies import NO_STORE, Reply, json_reply
from relay.requests import Request, answer, not_allowed

if TYPE_CHECKING:
    from relay.limits import Limits

LABEL: Final = "worker"
_KEEP: Final = 1.0
_ALIVE: Final = Reply(HTTPStatus.OK, "ok\n", headers=NO_STORE)
_PATHS: Final = (METRICS_PATH, SESSIONS_PATH, HEALTH_PATH, READY_PATH)

Answers = Sequence[Any]
"""One for each worker, in order; None of a worker that gave none."""


def merged_metrics(answers: Answers) -> Iterator[Metric]:
    """Yield the metrics of all workers, each sample with the worker's number as a label."""
    families: dict[str, Metric] = {}
    for index, families_of_one in enumerate(answers, 1):
        for name, kind, text, samples in families_of_one or ():
            family = families.setdefault(name, Metric(name, text, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, LABEL: str(index)}, value)
    yield from families.values()


def merged_sessions(answers: Answers) -> dict[str, Any]:
    """Return the counts of all workers added up, and how many workers were counted."""
    given = [each for each in answers if each is not None]
    return {**(_added(given) if given else {}), "workers": len(given)}


def _added(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    added: dict[str, Any] = {}
    for key, value in reports[0].items():
        values = [report[key] for report in reports]
        if isinstance(value, dict):
            added[key] = _added(values)
        else:
            added[key] = sum(values) if isinstance(value, int) else max(values)
    return added


def merged_readiness(answers: Answers, *, draining: bool) -> Reply:
    """Return the page: ready while one worker is, for connections go to those that listen; what is wrong is said."""
    lines = []
    ready = False
    for index, each in enumerate(answers, 1):
        if each is None:
            lines.append(f"worker {index}: it does not run, or does not answer\n")
            continue
        ready = ready or not each["reasons"]
        lines += [f"worker {index}: {reason}\n" for reason in each["reasons"]]
        if each["degraded"]:
            lines.append(f"worker {index}: degraded: it does not reach the others through NATS\n")
    if draining:
        return Reply(HTTPStatus.SERVICE_UNAVAILABLE, "the relay was told to stop\n", headers=NO_STORE)
    if ready:
        return Reply(HTTPStatus.OK, "".join(("ready\n", *lines)), headers=NO_STORE)
    return Reply(HTTPStatus.SERVICE_UNAVAILABLE, "".join(lines), headers=NO_STORE)


class Crowd:
    """What the parent knows of its workers; it is asked for when somebody wants to see it."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Answers]],
        limits: Callable[[], "Limits"],
        state: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.ask = ask
        """Puts a question to every worker."""
        self.limits = limits
        self.state = state
        """`draining`, `restarts` of each worker, `running`, and `nats_restarts` where there is a server of ours."""


class TogetherDesk(Desk):
    """The parent's admin listener.

    Args:
        crowd: the workers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, crowd: Crowd) -> None:
        super().__init__(loop)
        self._crowd = crowd
        self._kept: dict[str, tuple[float, asyncio.Future[Answers]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def limits(self) -> "Limits":
        """The relay's."""
        return self._crowd.limits()

    def ask(self, request: Request, then: Callable[[Reply], None]) -> None:
        """Ask the workers, and answer."""
        if request.path == HEALTH_PATH or request.path not in _PATHS:
            then(answer(request, {HEALTH_PATH: lambda _: _ALIVE}, MISSING))
        elif request.method not in ("GET", "HEAD"):
            then(not_allowed("GET, HEAD"))
        else:
            task = self.loop.create_task(self._ask(request, then))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, request: Request, then: Callable[[Reply], None]) -> None:
        state = self._crowd.state()
        if request.path == SESSIONS_PATH:
            then(json_reply(merged_sessions(await self._fresh("sessions")), NO_STORE))
        elif request.path == READY_PATH:
            then(merged_readiness(await self._fresh("ready"), draining=state["draining"]))
        else:
            then(_exposition(request, [*merged_metrics(await self._fresh("metrics")), *_own(state)]))

    async def _fresh(self, what: str) -> Answers:
        """Return answers that are a second old at most: however often somebody asks, the workers are asked once."""
        now = self.loop.time()
        kept = self._kept.get(what)
        if kept is None or now - kept[0] >= _KEEP:
            kept = self._kept[what] = (now, asyncio.ensure_future(self._crowd.ask(what)))
        return await asyncio.shield(kept[1])


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _exposition(request: Request, metrics: list[Metric]) -> Reply:
    try:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):
        encode, content_type = choose_encoder("")  # as relay.metrics does
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(metrics))
    return Reply(HTTPStatus.OK, encode(registry), content_type, NO_STORE)


def _own(state: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield what the parent itself has to tell."""
    restarts: Sequence[int] = state["restarts"]
    yield GaugeMetricFamily("blindrelay_workers", "Processes that this relay is to have.", value=len(restarts))
    yield GaugeMetricFamily("blindrelay_workers_listening", "Of these, how many take clients.", value=state["running"])
    family = CounterMetricFamily("blindrelay_worker_restarts", "Times that a worker was started again.", labels=[LABEL])
    for index, count in enumerate(restarts, 1):
        family.add_metric([str(index)], count)
    yield family
    if state["nats_restarts"] is not None:
        yield CounterMetricFamily(
            "blindrelay_nats_server_restarts",
            "Times that the private NATS server was started again.",
            value=state["nats_restarts"],
        )
    now = process.look()
    yield CounterMetricFamily(
        "blindrelay_parent_cpu_seconds", "Processor time of the parent, in seconds.", value=now.cpu_seconds
    )
    if now.resident_bytes is not None:
        yield GaugeMetricFamily(
            "blindrelay_parent_resident_memory_bytes", "Memory of the parent, in bytes.", value=now.resident_bytes
        )
