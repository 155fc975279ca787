"""Whether NATS lets a relay do what it must. NATS drops what it forbids, and says so beside: who does not listen waits.

A relay without a right would look healthy, and be alone, or not be found for its clients. So it tries each kind of
subject at its start; what is taken from it later is logged.
"""

import asyncio
import re
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from relay.backplane.bus import Outcome
from relay.backplane.options import ClusterError

if TYPE_CHECKING:
    from collections.abc import Collection

    from relay.backplane.nats_bus import NatsBus

_WITHIN: Final = 2.0
"""Seconds for an answer that comes within a millisecond, if it may come at all."""
_VIOLATION: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)


def forbidden(error: str, prefix: str) -> str | None:
    """Return what NATS says that it forbids, or None if it says something else.

    The subject of an id follows a client for as long as the secret lasts: of those the kind alone is told.
    """
    found = _VIOLATION.search(error)
    if found is None:
        return None
    what = "publish" if found[1].lower() == "publish" else "subscribe"
    kind, dot, _ = found[2].removeprefix(f"{prefix}.").partition(".")
    return f"{what} to {prefix}.{kind}{dot}{'*' if dot else ''}"


async def try_all(bus: "NatsBus", prefix: str) -> None:
    """Subscribe and publish to each kind of subject that is of no use to anybody else.

    What goes to all nodes is tried by the announcement.

    Raises:
        ClusterError: NATS forbids some of it.
    """
    for subject in (f"{prefix}.{kind}.{token_hex(13)}" for kind in ("id", "node", "answer")):
        bus.subscribe(subject, _ignored)
        bus.unsubscribe(subject)
        bus.publish(subject, b"")
    answered = asyncio.get_running_loop().create_future()

    def last(outcome: Outcome, _data: bytes) -> bool:
        if not answered.done():
            answered.set_result(outcome)
        return False

    # NATS takes one thing after another: with this answer all is said that there is to say of what was before.
    bus.request(f"{prefix}.id.{token_hex(13)}", b"", _WITHIN, last)
    if await answered is Outcome.TIMEOUT and not bus.forbidden:
        bus.forbidden.add(f"have answers to its requests below {prefix}.answer")
    check(bus.forbidden, prefix)


def check(what: "Collection[str]", prefix: str) -> None:
    """Raise if anything is forbidden.

    Raises:
        ClusterError: it is; with what an operator can do.
    """
    if what:
        raise ClusterError(
            f"NATS does not let this relay {', nor '.join(sorted(what))}: let its user publish and subscribe to "
            f"{prefix}.> as deploy/nats.conf does"
        )


def _ignored(_data: bytes, _reply: str, _subject: str) -> None:
    """Nobody publishes there."""
