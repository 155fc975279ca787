"""Makes the channels that the settings ask for. Each is imported only where it is used."""

import time
from dataclasses import dataclass

from keys.errors import KeysError
from peers.notifier.addresses import parse_nat64
from peers.notifier.channel import Channel
from peers.notifier.endpoints import AllowedHost
from peers.notifier.errors import BadNotifierSettings
from peers.notifier.outbound import Outbound
from peers.notifier.settings import Settings
from peers.notifier.vapid import VapidKey


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels by their kinds, and what they share."""

    by_kind: dict[int, Channel]
    outbound: Outbound

    async def close(self) -> None:
        """Let all connections go."""
        for channel in self.by_kind.values():
            await channel.close()
        await self.outbound.close()


def open_channels(settings: Settings, vapid: VapidKey) -> Channels:
    """Make all channels that are switched on. Opens no connection.

    Raises:
        BadNotifierSettings: one cannot be made, or none is switched on; a line for each problem.
    """
    problems: list[str] = []
    try:
        allowed = [AllowedHost.parse(each) for each in settings.allow_host]
    except ValueError as error:
        raise BadNotifierSettings([f"allow_host: {error}"]) from None
    try:
        nat64 = [parse_nat64(each) for each in settings.nat64]
    except ValueError as error:
        raise BadNotifierSettings([f"nat64: {error}"]) from None
    outbound = Outbound(allowed, nat64=nat64)
    channels: list[Channel] = []
    for name, make in (("contact", _by_contact), ("fcm_account", _fcm), ("apns_key", _apns)):
        try:
            channels += make(settings, vapid, outbound)
        except (ValueError, KeysError, ImportError) as error:
            problems.append(f"{name}: {error}")
    if not channels and not problems:
        problems.append(
            "no push service is switched on: set contact for Web Push and UnifiedPush, fcm_account for FCM, or apns_key"
        )
    if problems:
        raise BadNotifierSettings(problems)
    return Channels({channel.kind: channel for channel in channels}, outbound)


def _by_contact(settings: Settings, vapid: VapidKey, outbound: Outbound) -> list[Channel]:
    if not settings.contact:
        return []
    from peers.notifier.breaker import Breaker, Rates
    from peers.notifier.unifiedpush import UnifiedPush
    from peers.notifier.vapid import VapidTokens
    from peers.notifier.webpush import WebPush

    rates = Rates(settings.limits.server_rate, settings.limits.new_server_rate)
    breaker = Breaker(time.monotonic, rates)
    webpush = WebPush(outbound, VapidTokens(vapid, settings.contact), breaker)
    found: list[Channel] = [webpush] if settings.webpush else []
    return [*found, UnifiedPush(outbound, webpush, breaker)] if settings.unifiedpush else found


def _fcm(settings: Settings, _vapid: VapidKey, outbound: Outbound) -> list[Channel]:
    if settings.fcm_account is None:
        return []
    from peers.notifier.fcm import Fcm
    from peers.notifier.google import ServiceAccount

    return [Fcm(outbound, ServiceAccount.read(settings.fcm_account), project=settings.fcm_project or None)]


def _apns(settings: Settings, _vapid: VapidKey, _outbound: Outbound) -> list[Channel]:
    if settings.apns_key is None:
        return []
    from peers.notifier.apns import SANDBOX, Apns, ApnsKey, ApnsServer

    key = ApnsKey.read(settings.apns_key, settings.apns_key_id, settings.apns_team_id)
    return [Apns(key, settings.apns_topic, server=SANDBOX if settings.apns_sandbox else ApnsServer())]
