"""The process: opening all that a notifier needs, signals, and the way down."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from keys.identity import Identity
from keys.private_file import make_directories
from peers.client import ClientOptions, RelayClient
from peers.notifier.channels import Channels, open_channels
from peers.notifier.errors import BadNotifierSettings, NotifierError, NotifierFailed
from peers.notifier.keyfile import PushKeys, read_notifier_identity, read_push_keys
from peers.notifier.lane import Lane
from peers.notifier.legacy import read_registry
from peers.notifier.metrics import Metrics
from peers.notifier.registry import Registry
from peers.notifier.service import Service
from peers.notifier.settings import Settings
from peers.profile.errors import ProfileError
from peers.profile.lock import ProfileLock
from peers.service.listening import parse_listen
from peers.service.log import log_loop_error

if TYPE_CHECKING:
    from peers.notifier.admin import Admin

REGISTRY_FILE: Final = "notifier.db"
LOCK_FILE: Final = "notifier.lock"
_TOLD_MOST: Final = 20
"""Problems of an imported registry that are logged one by one."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def find_identity(settings: Settings) -> Identity:
    """Return the notifier's identity: from the environment, else from its key file.

    Raises:
        KeysError: it cannot be used.
        NotifierError: there is none.
    """
    return settings.identity or read_notifier_identity(settings.data_dir)


async def open_registry(settings: Settings, keys: PushKeys) -> Registry:
    """Open the registry of the data directory.

    Raises:
        DatabaseError, NotifierError: it cannot be opened.
    """
    try:
        make_directories(settings.data_dir)
    except OSError as error:
        raise NotifierError(f"cannot make {settings.data_dir}: {error.strerror}") from None
    limits = settings.limits
    path = settings.data_dir / REGISTRY_FILE
    return await Registry.open(path, keys.registry, devices=limits.devices, most=limits.registrations)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the lock of a data directory: two notifiers with one identity would push each other off the relay for ever.

    Raises:
        NotifierFailed: another one runs.
        NotifierError: the lock cannot be had.
    """
    lock = ProfileLock(directory / LOCK_FILE)
    try:
        held = lock.acquire()
    except ProfileError as error:
        raise NotifierError(str(error)) from None
    if not held:
        raise NotifierFailed(f"another notifier runs in {directory}: end it first")
    try:
        yield
    finally:
        lock.release()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        NotifierError, KeysError, DatabaseError: something that the settings name cannot be used.
        RelayRefused: the relay does not serve us.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_error)
    stop = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    card = settings.relay
    push_keys = read_push_keys(settings.data_dir)
    identity = find_identity(settings)
    if identity.public == card.public:
        raise BadNotifierSettings(["these are the relay's own keys: the notifier needs keys of its own"])
    options = ClientOptions(token=None if settings.token is None else settings.token.get_secret_value())
    channels = open_channels(settings, push_keys.vapid)
    try:
        async with await open_registry(settings, push_keys) as registry:
            with alone(settings.data_dir):
                if settings.registry is not None:
                    await import_registry(settings.registry, registry, channels)
                client = RelayClient(identity, card, options)
                await _serve(settings, registry, channels, client, stop)
    finally:
        await channels.close()
        for number in _SIGNALS:
            # All is done, and a second signal while Python shuts down must not change the exit status.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


async def import_registry(path: Path, registry: Registry, channels: Channels) -> None:
    """Import the registry of telefon's notifier, if that was not done before, and log what came of it.

    Raises:
        NotifierError: it cannot be read.
    """

    def check(kind: int, token: bytes) -> None:
        # Of a service that is not switched on yet the token is kept unseen: the file is not read again.
        if (channel := channels.by_kind.get(kind)) is not None:
            channel.check_token(token)

    read = await asyncio.to_thread(read_registry, path, check)
    entries = ((each.client_id, each.kind, each.token) for each in read.entries)
    imported = await registry.import_once(_name_of(path), entries)
    log = structlog.get_logger()
    if imported is None:
        log.info("import_skipped", reason="this file was imported before; remove the setting `registry`")
        return
    log.info("imported", tokens=imported, passed_over=len(read.problems), left_out=len(read.entries) - imported)
    for problem in read.problems[:_TOLD_MOST]:
        log.warning("import_problem", problem=problem)


def _name_of(path: Path) -> bytes:
    return os.fsencode(path.resolve())


async def _serve(
    settings: Settings, registry: Registry, channels: Channels, client: RelayClient, stop: asyncio.Event
) -> None:
    log = structlog.get_logger()
    loop = asyncio.get_running_loop()
    limits = settings.limits
    names = [channel.name for channel in channels.by_kind.values()]
    metrics = Metrics(names)
    service = Service(registry, metrics, limits.forget_after_days)
    workers = max(1, limits.concurrency // len(names))
    lanes = {kind: Lane(each, limits, workers, service, metrics) for kind, each in channels.by_kind.items()}
    admin = await _start_admin(settings, service, metrics, names)
    try:
        async with client:
            serving = asyncio.create_task(service.run(client, lanes))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            until = loop.time() + limits.stop
            log.info("stopping", queued=sum(lane.queued + lane.in_flight for lane in lanes.values()))
        # The events end now; those that came still count.
        await asyncio.wait((serving,), timeout=max(0.0, until - loop.time()))
        serving.cancel()
        given_up = await service.finish(until)
        await asyncio.wait((serving,))
        log.info("stopped", given_up=given_up)
        if not serving.cancelled():
            serving.result()
    finally:
        if admin is not None:
            await admin.close()


async def _start_admin(settings: Settings, service: Service, metrics: Metrics, names: list[str]) -> "Admin | None":
    place = parse_listen(settings.admin)
    at = "off"
    admin = None
    if place is not None:
        from peers.notifier.admin import Admin

        admin = Admin(service, metrics, names)
        try:
            port = await admin.start(*place)
        except OSError as error:
            raise NotifierFailed(
                f"cannot listen on {settings.admin} for /metrics: {error.strerror}; name another address by --admin, "
                "or switch it off by --admin off"
            ) from None
        at = f"{settings.admin.rpartition(':')[0]}:{port}"
    structlog.get_logger().info("started", channels=names, admin=at)
    return admin
