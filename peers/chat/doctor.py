"""``doctor``: looks at a profile and at its relay, and says of each thing how it stands and what to do."""

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from keys.identity import Identity
from keys.invite import RelayCard
from peers.chat.check_mailboxes import check_mailboxes, check_unwelcome
from peers.chat.check_profile import (
    Local,
    check_disk,
    check_environment,
    check_other_carrier,
    check_profile,
    check_versions,
)
from peers.chat.check_route import Route, check_pages, check_route
from peers.chat.check_session import check_session, check_subscriptions
from peers.chat.exits import Exit
from peers.chat.findings import Finding, Status, ok
from peers.chat.output import Output
from peers.chat.report import counted, failed
from peers.client import ClientOptions
from peers.dropping import DroppingOptions
from peers.profile import Profile, ProfileError, ProfileSettings

_SHOWN: Final = {Status.OK: "ok  ", Status.WARN: "warn", Status.FAIL: "FAIL"}


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What ``doctor`` is asked for.

    Attributes:
        profile: the name of the profile; None for the one of the environment, or ``default``.
        json: print one object per finding.
        environ: the environment.
        timeout: seconds for each step over the network.
        trust: certificates that are trusted, in place of the system's trust.
    """

    profile: str | None = None
    json: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    timeout: float = 10.0
    trust: ssl.SSLContext | None = None


def run(options: DoctorOptions) -> int:
    """Print findings as they come; returns the exit status: 0 if nothing failed, else that of the first failure (2 or 3
    for what is on this machine, 4 if the relay cannot be reached, 5 if it refuses us or has other keys).

    Nothing is changed. If no other program of the profile connects, this one does for a moment, and holds the lock of
    the profile meanwhile: packets that come in that moment are not acknowledged, and so come again later.
    """
    out = Output(json=options.json)
    try:
        profile = Profile.locate(options.profile, options.environ)
        ward = _Ward(out)
        _examine(profile, options, ward)
    except ProfileError as error:
        return failed(str(error), Exit.USAGE, json=options.json)
    except KeyboardInterrupt:
        return failed("interrupted", Exit.INTERRUPTED, json=options.json)
    if not options.json:
        fails, warns = ward.counts[Status.FAIL], ward.counts[Status.WARN]
        out.show({}, f"\n{fails} failed, {counted(warns, 'warning')}." if fails or warns else "\nAll is well.")
    return ward.status


class _Ward:
    """Prints findings and keeps the sum of them."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.counts = dict.fromkeys(Status, 0)
        self.status = Exit.DONE

    def take(self, finding: Finding) -> None:
        self.counts[finding.status] += 1
        self.status = self.status or finding.exit_status
        fix = f"\n{'':21}→ {finding.fix}" if finding.fix else ""
        self._out.show(finding.record, f"{_SHOWN[finding.status]}  {finding.check:15}{finding.text}{fix}")


def _examine(profile: Profile, options: DoctorOptions, ward: _Ward) -> None:
    local = Local()
    ward.take(check_versions())
    for finding in check_environment(options.environ):
        ward.take(finding)
    for finding in check_profile(profile, options.environ, local):
        ward.take(finding)
    if local.settings is None:
        return
    ward.take(check_disk(profile))
    lock = profile.lock()
    alone = lock.acquire()
    try:
        if alone:
            ward.take(ok("carrier", "no other program of this profile connects", other=False))
        else:
            ward.take(check_other_carrier(profile))
        asyncio.run(_relay(local, local.settings.relay, options, ward, alone=alone))
        if local.mailboxes:
            asyncio.run(_mailboxes(local, local.settings, options, ward))
        for finding in check_unwelcome(local.unwelcome):
            ward.take(finding)
    finally:
        lock.release()


async def _mailboxes(local: Local, settings: ProfileSettings, options: DoctorOptions, ward: _Ward) -> None:
    dropping = DroppingOptions(timeout=options.timeout, stamp_bits=settings.stamp_bits, ssl=options.trust)
    client = ClientOptions(token=local.token, open_timeout=options.timeout, ssl=options.trust)
    for finding in await check_mailboxes(local.mailboxes, settings.relay, client, dropping):
        ward.take(finding)


async def _relay(local: Local, card: RelayCard, options: DoctorOptions, ward: _Ward, *, alone: bool) -> None:
    route = Route(card, options.timeout, options.trust)
    async for finding in check_route(route):
        ward.take(finding)
        if finding.status is Status.FAIL:
            return  # the rest would say the same at length
    async for finding in check_pages(route):
        ward.take(finding)
    # As ourselves only if no program of ours is connected: it would be pushed out, or we would be refused.
    ours = local.keys if alone else None
    identity = Identity.generate() if ours is None else ours.identity
    async for finding in check_session(route, identity, local.token, ours=ours is not None):
        ward.take(finding)
    subscriptions = check_subscriptions(route, local.contacts)
    if subscriptions is not None:
        ward.take(subscriptions)
