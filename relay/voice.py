"""What a relay says of itself when it listens, drains and stops: to its log, to scripts, to systemd, or to a parent."""

import resource
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from keys.invite import RelayCard
from relay import __version__
from relay.listen import address_of
from relay.notify import notify
from relay.settings_checks import is_loopback, warn_of_nats

if TYPE_CHECKING:
    from relay.admission import Admission
    from relay.app import Relay
    from relay.own_keys import FoundKeys
    from relay.settings import Settings


def what_is_on(settings: "Settings", admission: "Admission", *, push: bool, admin_at: str) -> dict[str, object]:
    """Return what an operator would want to find again beside later events."""
    limits, defaults = settings.limits, type(settings.limits)()
    return {
        "version": __version__,
        "admin": admin_at or "off",
        "push": push,
        "notice": bool(settings.notice),
        "pseudonyms": settings.log_pseudonyms,
        "admission": admission.summary,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "limits": {
            field.name: getattr(limits, field.name)
            for field in fields(limits)
            if getattr(limits, field.name) != getattr(defaults, field.name)
        },
    }


def say_what_is_on(on: dict[str, object], settings: "Settings") -> None:
    """Log one line with it, and warn of what others can see."""
    log = structlog.get_logger()
    log.info("started", **on)
    admin_at = str(on["admin"])
    if admin_at != "off" and not is_loopback(admin_at.rpartition(":")[0].strip("[]")):
        log.warning("admin_exposed", admin=admin_at)
    for text in warn_of_nats(settings):
        log.warning("nats_password_in_clear", advice=text)


def say_where(settings: "Settings", found: "FoundKeys", port: int) -> None:
    """Print where the relay listens, for people and scripts, and the keys if they are new."""
    public = found.keys.identity.public
    if found.minted is not None:
        card = RelayCard(public, settings.url_at(port))
        print(f"blindrelay: minted keys into {found.minted}; keep a copy, for clients pin them")
        print(f'relay_card = "{card.text}"')
    print(
        f"blindrelay {__version__} listens on {address_of(settings, port)}"
        f' x25519_public="{public.x_pub.hex()}" ed25519_public="{public.ed_pub.hex()}"',
        flush=True,
    )


class Voice(Protocol):
    """Who is told what becomes of a relay."""

    def listens(self, relay: "Relay") -> None:
        """It takes clients."""

    def stopping(self, relay: "Relay") -> None:
        """It was told to stop, and drains."""

    def stopped(self, totals: dict[str, Any]) -> None:
        """It stopped; sums since the start, as the log has them."""


class Aloud:
    """Tells it on standard output and in the log: a relay that is one process.

    Args:
        settings: those of the start.
        found: the relay's keys.
    """

    def __init__(self, settings: "Settings", found: "FoundKeys") -> None:
        self._settings = settings
        self._found = found

    def listens(self, relay: "Relay") -> None:
        """Print where, and log what is on."""
        say_where(self._settings, self._found, relay.listener.port)
        core = relay.core
        push = core.notifier_id is not None
        on = what_is_on(self._settings, core.admission, push=push, admin_at=relay.admin_at)
        if self._settings.nats:
            on["nats"] = len(self._settings.nats)
        say_what_is_on(on, self._settings)
        notify("READY=1")

    def stopping(self, relay: "Relay") -> None:
        """Log it."""
        notify("STOPPING=1")
        structlog.get_logger().info("stopping", sessions=len(relay.core.sessions), drain=relay.drain.seconds)

    def stopped(self, totals: dict[str, Any]) -> None:
        """Log the sums."""
        structlog.get_logger().info("stopped", **totals)
