"""The parent of `--workers`: it starts the processes, watches over them, and speaks for all of them.

It takes no client and routes nothing. Without `--nats` it keeps a private NATS server for its workers. What it says on
standard output, in the log and to systemd is what one process would say; workers tell it, and log under their number.
"""

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from keys.primitives import random_bytes
from relay.app import ignore_signals
from relay.backoff import Backoff
from relay.backplane.options import SECRET_SIZE, ClusterOptions
from relay.channel import Orders
from relay.cluster import cluster_options, find_nats_server
from relay.doors import Doors
from relay.heap import quiet_collector
from relay.listen import CannotListenError
from relay.log import log_loop_error
from relay.nats_server import NatsServer, NatsServerError
from relay.notify import notify
from relay.reload import refused
from relay.settings import BadSettings, Settings, bracketed, parse_admin
from relay.terminal import Terminal
from relay.voice import say_what_is_on, say_where, what_is_on
from relay.worker_process import Failure, WorkerProcess

if TYPE_CHECKING:
    from relay.admission import Admission
    from relay.own_keys import FoundKeys
    from relay.together import Answers, TogetherDesk

command: tuple[str, ...] = (sys.executable, "-P", "-m", "relay.worker")
"""Starts a worker; replaced by tests."""
_WORKERS_PER_NATS_CORE: Final = 4
"""A frame that crosses costs the private NATS server less than a third of what it costs two workers."""
_COUNT: Final = 1.0
"""Seconds between two counts of everybody's sessions, for `/status`."""
late = 10.0
"""Seconds beyond drain and shutdown deadline after which a worker that does not stop is killed; less in tests."""


class WorkersFailed(Exception):
    """The workers cannot start; the text says why.

    Args:
        failure: what the first of them said.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.status = failure.status


class Workers:
    """A relay of several processes.

    Args:
        settings: of the whole relay.
        found: its keys, which all workers have.
        admission: who may use it, as the settings say it at the start.
        arguments: the flags, for workers to read the settings again.
        read: reads them again.
    """

    def __init__(
        self,
        settings: Settings,
        found: "FoundKeys",
        admission: "Admission",
        arguments: tuple[str, ...],
        read: Callable[[], Settings],
    ) -> None:
        self._settings = settings
        self._found = found
        self._admission = admission
        self._arguments = arguments
        self._read = read
        self._doors = Doors(settings)
        self._nats: NatsServer | None = None
        self._desk: TogetherDesk | None = None
        self._cluster: ClusterOptions | None = None
        self._workers: list[WorkerProcess | None] = [None] * settings.workers
        self._restarts = [0] * settings.workers
        self._totals: Counter[str] = Counter()
        self._by_reason: dict[str, Counter[str]] = {"refusals": Counter(), "endings": Counter()}
        self._sessions = 0
        self._ending = asyncio.Event()
        self._killed = False

    # --- Up ----------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Be the parent until SIGTERM or SIGINT; returns the exit status: 0, or 1 when a worker had to be killed.

        Raises:
            CannotListenError: an address cannot be listened on.
            NatsServerError: the private NATS server does not start.
            WorkersFailed: a worker does not start.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_loop_error)
        stop = asyncio.Event()
        terminal = Terminal()

        def told() -> None:
            terminal.gone()  # which may be why
            if stop.is_set():
                self._signal(signal.SIGTERM)
            stop.set()

        def hung_up() -> None:
            if terminal.gone():
                told()
            else:
                self._reload()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        loop.add_signal_handler(signal.SIGHUP, hung_up)
        tending: list[asyncio.Task[None]] = []
        try:
            admin_at = await self._open()
            began = [asyncio.Event() for _ in self._workers]
            tending = [asyncio.create_task(self._tend(index, each)) for index, each in enumerate(began)]
            await self._until_all(began, tending, stop)
            if not stop.is_set():
                self._say(admin_at)
                await self._serve(stop, tending)
        finally:
            await self._down(tending)
            ignore_signals(loop)
        structlog.get_logger().info(
            "stopped",
            frames=self._totals["frames"],
            bytes_in=self._totals["bytes_in"],
            **{name: dict(counts) for name, counts in self._by_reason.items()},
        )
        return 1 if self._killed else 0

    async def _open(self) -> str:
        """Take the addresses, and start what the workers need; returns where the admin listener is."""
        settings = self._settings
        admin_at = await self._start_desk()
        await self._doors.open()
        # Once for all of the time: a file that is gone later is no reason why a worker cannot come back.
        self._cluster = cluster_options(settings) or await self._start_nats()
        return admin_at

    async def _start_nats(self) -> ClusterOptions:
        program = find_nats_server()
        if program is None:
            raise NatsServerError("the program nats-server is gone since the settings were checked")
        cores = -(-self._settings.workers // _WORKERS_PER_NATS_CORE)
        nats = self._nats = NatsServer(program, self._nats_died, cores)
        await nats.start()
        return ClusterOptions((nats.url,), random_bytes(SECRET_SIZE), user=nats.user, password=nats.password)

    async def _start_desk(self) -> str:
        where = parse_admin(self._settings.admin)
        if where is None:
            return ""
        # Only here: the metrics library takes some megabytes.
        from relay.together import Crowd, TogetherDesk

        host, port = where
        self._desk = TogetherDesk(
            asyncio.get_running_loop(), Crowd(self._ask, lambda: self._settings.limits, self._state)
        )
        try:
            port = await self._desk.start(host, port, reuse_port=self._settings.reuse_port)
        except OSError as error:
            raise CannotListenError.for_metrics(self._settings.admin, error) from error
        return f"{bracketed(host)}:{port}"

    async def _until_all(
        self, began: list[asyncio.Event], tending: list[asyncio.Task[None]], stop: asyncio.Event
    ) -> None:
        """Wait until all workers listen, one failed, or somebody wants us to stop."""

        async def all_of_them() -> None:
            for each in began:
                await each.wait()

        all_began = asyncio.create_task(all_of_them())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((all_began, stopped, *tending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            all_began.cancel()
        for each in tending:
            if each.done():
                each.result()  # which raises why

    def _say(self, admin_at: str) -> None:
        say_where(self._settings, self._found, self._doors.port)
        push = (self._settings.notifier_id or self._found.keys.notifier_id) is not None
        on = what_is_on(self._settings, self._admission, push=push, admin_at=admin_at)
        nats = len(self._settings.nats) or "private"
        say_what_is_on({**on, "workers": self._settings.workers, "nats": nats}, self._settings)
        quiet_collector()
        notify("READY=1")

    async def _serve(self, stop: asyncio.Event, tending: list[asyncio.Task[None]]) -> None:
        counting = asyncio.create_task(self._count())
        stopped = asyncio.create_task(stop.wait())
        try:
            # A worker that ends is started again by its task, which itself ends by a fault of ours alone.
            done, _ = await asyncio.wait((stopped, counting, *tending), return_when=asyncio.FIRST_COMPLETED)
            for each in done - {stopped}:
                each.result()
        finally:
            stopped.cancel()
            counting.cancel()

    # --- A worker ----------------------------------------------------------------------------------------------------

    def _orders(self, index: int) -> Orders:
        settings = self._settings.model_copy(update={"port": self._doors.port})
        if self._cluster is None:
            raise AssertionError("workers are started once it is known what they join")
        return Orders(
            index=index + 1,
            settings=settings,
            arguments=self._arguments,
            seeds=self._found.keys.identity.seeds,
            notifier_id=self._found.keys.notifier_id,
            cluster=replace(self._cluster, node=f"worker-{index + 1}"),
            channel=-1,
            sockets=self._doors.sockets,
        )

    async def _tend(self, index: int, began: asyncio.Event) -> None:
        """Keep one worker running.

        Raises:
            WorkersFailed: the first run of it ended before it listened.
        """
        log = structlog.get_logger()
        backoff = Backoff()
        while True:
            worker = WorkerProcess(self._orders(index), command)
            self._workers[index] = worker
            try:
                failure = await self._run_once(index, worker, began)
            except OSError as error:
                failure = Failure(1, f"worker {index + 1} cannot be started: {error.strerror}")
            if self._ending.is_set():
                return
            if not began.is_set():
                raise WorkersFailed(failure)
            wait = backoff.next()
            log.error("worker_died", worker=index + 1, reason=failure.text, again_in=wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._ending.wait()
                    return

    async def _run_once(self, index: int, worker: WorkerProcess, began: asyncio.Event) -> Failure:
        """Run a worker to its end, and return why that was."""
        await worker.start()
        if self._ending.is_set():
            worker.signal(signal.SIGTERM)
        listening = asyncio.create_task(worker.listens.wait())
        ending = asyncio.create_task(worker.ended())
        await asyncio.wait((listening, ending), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            if began.is_set():
                self._restarts[index] += 1
                structlog.get_logger().info("worker_back", worker=index + 1)
            began.set()
        listening.cancel()
        status = await ending
        self._add_up(worker.totals)
        return worker.failure or Failure(1, f"worker {index + 1} {_how(status)}")

    def _nats_died(self, status: int) -> None:
        structlog.get_logger().error("nats_server_died", reason=_how(status))

    def _add_up(self, totals: Mapping[str, Any] | None) -> None:
        for name, value in (totals or {}).items():
            if name in self._by_reason:
                self._by_reason[name].update(value)
            else:
                self._totals[name] += value

    def _reload(self) -> None:
        """Pass SIGHUP on, unless the settings cannot be used: that is said once and not by each worker."""
        try:
            settings = self._read()
        except BadSettings as error:
            refused(list(error.problems), [])
            return
        # For workers that are started from now on. How many, and where they listen, is as it was at the start.
        kept = {name: getattr(self._settings, name) for name in ("workers", "host", "port", "unix_socket", "nats")}
        self._settings = settings.model_copy(update=kept)
        self._signal(signal.SIGHUP)

    # --- All of them -------------------------------------------------------------------------------------------------

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            # One that is being started has no handler yet, and reads what is there now.
            if worker is not None and (number != signal.SIGHUP or worker.listens.is_set()):
                worker.signal(number)

    async def _ask(self, what: str) -> "Answers":
        async def ask(worker: WorkerProcess | None) -> Any:
            return None if worker is None else await worker.ask(what)

        return await asyncio.gather(*(ask(worker) for worker in self._workers))

    async def _count(self) -> None:
        """Tell each worker how many sessions the others have: whichever is asked for `/status` says the sum."""
        while True:
            counts = [count or 0 for count in await self._ask("count")]
            self._sessions = sum(counts)
            for worker, count in zip(self._workers, counts, strict=True):
                if worker is not None:
                    worker.tell(elsewhere=self._sessions - count)
            await asyncio.sleep(_COUNT)

    def _state(self) -> dict[str, Any]:
        return {
            "draining": self._ending.is_set(),
            "restarts": self._restarts,
            "running": sum(worker is not None and worker.listens.is_set() for worker in self._workers),
            "nats_restarts": None if self._nats is None else self._nats.restarts,
        }

    # --- Down --------------------------------------------------------------------------------------------------------

    async def _down(self, tending: list[asyncio.Task[None]]) -> None:
        """End the workers, then what they need: while they drain they still reach each other."""
        notify("STOPPING=1")
        settings = self._settings
        if any(worker is not None and worker.listens.is_set() for worker in self._workers):
            # As of the last second: one that is stuck must not hold up the others.
            structlog.get_logger().info("stopping", sessions=self._sessions, drain=settings.drain)
        self._ending.set()
        self._signal(signal.SIGTERM)
        if tending:
            _, left = await asyncio.wait(tending, timeout=settings.drain + settings.limits.shutdown_deadline + late)
            if left:
                self._killed = True
                structlog.get_logger().error("workers_killed", workers=len(left))
                self._signal(signal.SIGKILL)
                await asyncio.wait(left)
        if self._nats is not None:
            await self._nats.stop()
        self._doors.close()
        if self._desk is not None:
            self._desk.close()


def _how(status: int) -> str:
    """Return in words how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


async def supervise(
    settings: Settings,
    found: "FoundKeys",
    admission: "Admission",
    arguments: tuple[str, ...],
    read: Callable[[], Settings],
) -> int:
    """Be a relay of several processes, and say why if it cannot be; returns the exit status.

    Raises:
        CannotListenError: an address cannot be listened on.
    """
    try:
        return await Workers(settings, found, admission, arguments, read).run()
    except WorkersFailed as error:
        return _failed(error, error.status)
    except NatsServerError as error:
        return _failed(error, 1)


def _failed(error: Exception, status: int) -> int:
    for line in str(error).splitlines():
        print(f"blindrelay: {line}", file=sys.stderr)
    return status
