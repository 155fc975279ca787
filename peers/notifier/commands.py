"""What the commands do. Each takes the arguments and the environment, and returns the exit status."""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Final

import tomli_w
import uvloop

from keys.errors import BadInvite
from keys.identity import ID_SIZE
from keys.invite import Invite
from peers.notifier.arguments import PROGRAM, settings_table
from peers.notifier.channel import Push, PushType, Result, kind_name
from peers.notifier.channels import open_channels
from peers.notifier.errors import BadNotifierSettings, NotifierError
from peers.notifier.keyfile import NICKNAME, mint, mint_push_keys, read_push_keys
from peers.notifier.process import REGISTRY_FILE, find_identity, open_registry, run
from peers.notifier.registry import Registry
from peers.notifier.settings import Settings, load
from peers.service import log
from peers.service.listening import ask_health, parse_listen

_ID: Final = re.compile(rf"[0-9a-fA-F]{{{2 * ID_SIZE}}}")

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]


def _keygen(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load(arguments.settings, environ)
    identity = settings.identity
    made = mint(settings.data_dir) if identity is None else mint_push_keys(settings.data_dir)
    for path in made:
        print(f"{PROGRAM}: wrote {path}; keep a copy of it in a safe place", file=sys.stderr)
    identity = identity or find_identity(settings)
    public = identity.public
    vapid = read_push_keys(settings.data_dir).vapid.application_server_key
    print(f"# For the relay: --notifier-id {public.id.hex()} --push-vapid-key {vapid}")
    sys.stdout.write(
        tomli_w.dumps(
            {
                "client_id": public.id.hex(),
                "x25519_public": public.x_pub.hex(),
                "ed25519_public": public.ed_pub.hex(),
                "invite": Invite(public, NICKNAME).text,
                "vapid_public_key": vapid,
            }
        )
    )
    return 0


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load(arguments.settings, environ)
    log.configure(settings.log_level)
    # A terminal that is closed is no reason to lose what is under way.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))
    return 0


def _check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load(arguments.settings, environ)
    log.configure("error")
    keys = read_push_keys(settings.data_dir)
    find_identity(settings)
    _ = settings.relay

    async def names() -> list[str]:
        channels = open_channels(settings, keys.vapid)
        try:
            return [each.name for each in channels.by_kind.values()]
        finally:
            await channels.close()

    print(f"channels: {', '.join(asyncio.run(names()))}\nok")
    return 0


def _health(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    place = parse_listen(load(arguments.settings, environ).admin)
    if place is None:
        raise BadNotifierSettings(["admin is off, so nobody can be asked"])
    return ask_health(place, "the notifier")


def _settings(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    sys.stdout.write(settings_table())
    return 0


# --- The registry ----------------------------------------------------------------------------------------------------


async def _open(settings: Settings) -> Registry:
    keys = read_push_keys(settings.data_dir)
    if not (settings.data_dir / REGISTRY_FILE).exists():
        raise NotifierError(f"there is no registry in {settings.data_dir} yet: the notifier makes it when it runs")
    return await open_registry(settings, keys)


def _count(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load(arguments.settings, environ)

    async def count() -> None:
        async with await _open(settings) as registry:
            counts = await registry.count()
        for kind, number in sorted(counts.tokens.items()):
            print(f"{kind_name(kind)}: {number}")
        print(f"tokens: {sum(counts.tokens.values())}\nids: {counts.ids}")

    asyncio.run(count())
    return 0


def _prune(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load(arguments.settings, environ)
    days = settings.limits.forget_after_days if arguments.days is None else arguments.days
    if days < 1:
        raise BadNotifierSettings(["--days is 1 or more"])

    async def prune() -> None:
        async with await _open(settings) as registry:
            print(f"forgotten: {await registry.prune(days)}")

    asyncio.run(prune())
    return 0


def _forget(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load(arguments.settings, environ)
    client_id = _read_id(arguments.id)

    async def forget() -> int:
        async with await _open(settings) as registry:
            removed = await registry.remove(client_id)
        print(f"forgotten: {removed.tokens}")
        return 0 if removed.tokens else 1

    return asyncio.run(forget())


def _test(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load(arguments.settings, environ)
    log.configure("error")
    client_id = _read_id(arguments.id)
    kind = PushType.CALL if arguments.call else PushType.MESSAGE
    limits = settings.limits
    # By the operator's word these are push servers: all devices are pushed to at once.
    push = Push(kind, limits.call_ttl if arguments.call else limits.message_ttl, known=True)

    async def test() -> int:
        async with await _open(settings) as registry:
            found = (await registry.find([client_id])).get(client_id, [])
        if not found:
            print("nothing is registered for this id")
            return 1
        channels = open_channels(settings, read_push_keys(settings.data_dir).vapid)
        sent = True
        try:
            for each in found:
                channel = channels.by_kind.get(each.kind)
                if channel is None:
                    print(f"{kind_name(each.kind)}: this service is not switched on")
                    sent = False
                    continue
                outcome = await channel.push(each.token, push)
                detail = f" ({outcome.detail})" if outcome.detail else ""
                print(f"{channel.name}: {outcome.result.value}{detail}")
                sent &= outcome.result is Result.SENT
        finally:
            await channels.close()
        return 0 if sent else 1

    return asyncio.run(test())


def _read_id(text: str) -> bytes:
    """Read an id, which may come from standard input: arguments can be seen by everybody on the machine."""
    text = (sys.stdin.read(8192) if text == "-" else text).strip()
    if _ID.fullmatch(text):
        return bytes.fromhex(text)
    try:
        return Invite.parse(text).public.id
    except BadInvite:
        raise NotifierError(f"an id is {2 * ID_SIZE} hex digits, or an invite K0…") from None


COMMANDS: Final[Mapping[str, Command]] = {
    "keygen": _keygen,
    "run": _run,
    "check": _check,
    "health": _health,
    "settings": _settings,
    "registry count": _count,
    "registry prune": _prune,
    "registry forget": _forget,
    "registry test": _test,
}
