"""The process: listening, signals, and the way down."""

import asyncio
import contextlib
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from keys.files import ServerKeys
from relay.access import AccessError
from relay.admission import Admission
from relay.backplane.options import ClusterOptions
from relay.callout_http import HttpCallout
from relay.cluster import Backplane, cluster_options, join
from relay.core import Core
from relay.drain import Drain
from relay.heap import quiet_collector
from relay.journal import Journal
from relay.listen import ALONE, CannotListenError, Listener, Place
from relay.log import log_loop_error
from relay.own_keys import FoundKeys
from relay.pulse import Pulse
from relay.ready import Condition
from relay.reload import KeepOld, Reload
from relay.settings import Settings, bracketed, parse_admin
from relay.terminal import Terminal
from relay.tls import BadCertificate
from relay.tokens import token_source
from relay.voice import Aloud, Voice
from relay.watch import Watch

if TYPE_CHECKING:
    from relay.admin import Admin


class Relay:
    """A relay that listens.

    Args:
        settings: where to listen, and the limits.
        keys: the relay's own keys and whom it lets push.
        admission: who may use it; everybody without it.
        cluster: how to join the relays that it is one with; without it there is none.
        place: where it listens, if not by itself at the address of the settings.

    Raises:
        BadCertificate: the files for TLS cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        keys: ServerKeys,
        admission: Admission | None = None,
        *,
        cluster: ClusterOptions | None = None,
        place: Place = ALONE,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._callout: HttpCallout | None = None
        self._keys = keys
        self._core: Core | None = None
        self._cluster = cluster
        self._backplane: Backplane | None = None
        self._place = place
        self.listener = Listener(settings, place)
        self._admin: Admin | None = None
        self.admin_at = ""
        """Host and port of the admin listener, once it listens; "" without one."""

    async def start(self) -> None:
        """Listen.

        Raises:
            CannotListenError: the address cannot be listened on, or that of the admin listener.
            ClusterError: the cluster cannot be joined.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_loop_error)
        settings = self._settings
        if settings.admission_url:
            self._callout = HttpCallout(settings.admission_url, settings.limits, loop, tell=settings.admission_address)
        core = Core(
            loop,
            self._keys.identity,
            settings.limits,
            self._keys.notifier_id,
            about=settings.about,
            journal=Journal(loop.time()) if settings.log_pseudonyms else None,
            admission=self._admission,
            callout=self._callout,
            front=settings.front,
        )
        if settings.decommission:
            core.entry.decommission(settings.decommission)
        if self._cluster is not None:
            # Before anybody is let in: who else has an id is asked there.
            self._backplane = await join(core, self._cluster)
        try:
            await self._start_admin(core)
            await self.listener.open(core)
        except CannotListenError:
            await self._leave()
            raise
        core.listens_at(settings.url_at(self.listener.port), is_set=bool(settings.url))
        self.drain = Drain(core, self._settings.drain)
        self._core = core
        self._pulse = Pulse(core)
        self._pulse.start()
        self._watch = Watch(loop, core.counters)
        self._watch.start()
        core.ready.met(Condition.STARTED)

    async def _leave(self) -> None:
        """Leave the cluster, if this relay is in one."""
        if self._backplane is not None:
            await self._backplane.close()

    @property
    def degraded(self) -> bool:
        """Whether it is in a cluster that it cannot reach: clients of this process reach each other and nobody else."""
        return self._backplane is not None and self._backplane.degraded

    async def _start_admin(self, core: Core) -> None:
        where = parse_admin(self._settings.admin)
        if where is None or self._place.parent:
            return
        # Only here: the metrics library takes some megabytes, and a relay without this listener needs none of it.
        from relay.admin import Admin

        host, port = where
        self._admin = Admin(core)
        try:
            port = await self._admin.start(host, port, reuse_port=self._settings.reuse_port)
        except OSError as error:
            raise CannotListenError.for_metrics(self._settings.admin, error) from error
        self.admin_at = f"{bracketed(host)}:{port}"

    @property
    def started(self) -> bool:
        """Whether it listens, or did."""
        return self._core is not None

    @property
    def core(self) -> Core:
        """The relay proper, once it listens."""
        if self._core is None:
            raise AssertionError("the relay was not started")
        return self._core

    def change_limits(self, settings: Settings) -> None:
        """Take the limits and the drain of other settings, without ending a session.

        Raises:
            KeepOld: this process may not open as many files as they need.
        """
        try:
            settings.limits.check_files()
        except ValueError as error:
            raise KeepOld(str(error)) from None
        self.drain.change(settings.drain)
        if not self.core.draining and settings.limits != self._settings.limits:
            self.core.change_limits(settings.limits)
            self._settings = self._settings.model_copy(update={"limits": settings.limits})

    def change_admission(self, settings: Settings) -> str:
        """Read tokens and lists anew, and close the relay down or take it up again; tell what was read.

        Raises:
            KeepOld: a file cannot be used; the old tokens and lists stay in force.
        """
        admission = self.core.admission
        before, admission.source = admission.source, token_source(settings)
        try:
            self.core.entry.reload()
        except AccessError as error:
            admission.source = before
            raise KeepOld("; ".join(str(error).splitlines())) from None
        self.core.entry.decommission(settings.decommission)
        return admission.summary

    def change_texts(self, settings: Settings) -> None:
        """Take what the operator says of the relay."""
        self.core.about = settings.about
        self.core.pages.draw()

    def change_certificate(self, _settings: Settings) -> str | None:
        """Read the certificate for TLS again; tell so if there is one.

        Raises:
            KeepOld: it cannot be used; the old one stays.
        """
        if self.listener.certificate is None:
            return None
        try:
            self.listener.certificate.reload()
        except BadCertificate as error:
            raise KeepOld(str(error)) from None
        return "certificate"

    def change_front(self, settings: Settings) -> None:
        """Believe other proxies from now on; addresses that are known already stay."""
        self.core.front = replace(self.core.front, trusted=settings.front.trusted)

    async def stop(self) -> None:
        """Drain, and stop; see :class:`relay.drain.Drain`.

        While sessions are closed one after another the port is still listened on, unless another relay may listen on it
        as well: pages tell that the relay is not ready, and openings are refused with 503.
        """
        self.core.ready.lost(Condition.NOT_DRAINING, "the relay was told to stop")
        if self._settings.reuse_port:
            # Whoever comes now comes to the relay that takes over.
            self.listener.close()
        await self.drain.spread()
        self.listener.close()
        await self.drain.finish()
        await self._leave()
        self._pulse.stop()
        self._watch.stop()
        if self._admin is not None:
            self._admin.close()
        if self._callout is not None:
            await self._callout.close()


def raise_file_limit() -> None:
    """Allow as many sockets as the system lets us have: the soft limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(
    relay: Relay, settings: Settings, read: Callable[[], Settings], voice: Voice, stop: asyncio.Event
) -> None:
    """Start a relay and serve until SIGTERM or SIGINT; SIGHUP reads the settings and the files that they name again.

    Args:
        relay: that has not been started.
        settings: its own.
        read: reads the settings again, at SIGHUP.
        voice: is told what becomes of it.
        stop: ends it, as those signals do.

    Raises:
        CannotListenError: the address cannot be listened on.
        ClusterError: the cluster cannot be joined.
    """
    loop = asyncio.get_running_loop()
    await relay.start()
    quiet_collector()
    terminal = Terminal()

    def told() -> None:
        terminal.gone()  # which may be why
        stop.set()

    def hung_up() -> None:
        if terminal.gone():
            stop.set()
        else:
            reload()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    reload = Reload(settings, read)
    reload.register("limits", relay.change_limits)
    reload.register("admission", relay.change_admission)
    reload.register("texts", relay.change_texts)
    reload.register("certificate", relay.change_certificate)
    reload.register("proxies", relay.change_front)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    voice.listens(relay)
    await stop.wait()
    voice.stopping(relay)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Once more means: now.
        loop.add_signal_handler(number, relay.drain.hurry)
    await relay.stop()
    counters = relay.core.counters
    voice.stopped(
        {
            "frames": counters.frames_in,
            "bytes_in": counters.bytes_in,
            "refusals": {str(reason): count for reason, count in counters.refusals.items() if count},
            "endings": {str(reason): count for reason, count in counters.endings.items() if count},
        }
    )
    ignore_signals(loop)


def ignore_signals(loop: asyncio.AbstractEventLoop) -> None:
    """All is done, and a second signal while Python shuts down must not change the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


async def run(settings: Settings, found: FoundKeys, admission: Admission, read: Callable[[], Settings]) -> None:
    """Be a relay of one process; see :func:`serve`.

    Args:
        settings: where to listen, and the limits.
        found: the relay's keys.
        admission: who may use it.
        read: reads the settings again, at SIGHUP.

    Raises:
        BadCertificate: the files for TLS cannot be used.
        CannotListenError: the address cannot be listened on.
        ClusterError: the cluster cannot be joined.
        KeyFileError: the cluster secret cannot be used.
    """
    relay = Relay(settings, found.keys, admission, cluster=cluster_options(settings))
    await serve(relay, settings, read, Aloud(settings, found), asyncio.Event())
