"""Checks of a session with a relay: the handshake with its pinned keys, and how fast it answers."""

import asyncio
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Final

from keys.errors import BadKey
from keys.identity import Identity
from peers.chat.check_route import Route
from peers.chat.exits import Exit
from peers.chat.findings import Finding, fail, ok, warn
from peers.chat.report import counted
from peers.client import (
    ClientOptions,
    Connected,
    Disconnected,
    IdInUse,
    NotAdmitted,
    NotConnected,
    Notice,
    Reason,
    RelayClient,
    RelayRefused,
    WrongRelayKeys,
)

_ROUNDS: Final = 5
_SLOW: Final = 1000.0
"""Milliseconds from which a conversation feels slow."""
_IN_USE: Final = 2
"""Refusals for an id in use that count: the first may be for a session of ours that just died."""


async def check_session(route: Route, identity: Identity, token: str | None, *, ours: bool) -> AsyncIterator[Finding]:
    """Connect once, and measure.

    Args:
        route: the relay.
        identity: whom to connect as.
        token: the relay's admission token, if there is one.
        ours: the identity is the profile's, and not one that was made for this.
    """
    options = ClientOptions(token=token, open_timeout=route.timeout, backoff_min=0.2, backoff_max=1.0, ssl=route.trust)
    before = time.perf_counter()
    try:
        async with RelayClient(identity, route.card, options) as relay:
            trouble = await _connect(relay)
            if trouble is not None:
                yield trouble
                return
            took = (time.perf_counter() - before) * 1000
            who = "as you" if ours else "as a stranger, with keys made for this"
            yield ok("session", f"open after {took:.0f} ms, {who}; the keys are those of the card", as_profile=ours)
            yield await _latency(relay)
    except WrongRelayKeys as error:
        fix = "ask its operator for the present card by a way that you trust"
        yield fail("session", str(error), fix, Exit.REFUSED)
    except NotAdmitted as error:
        if ours:
            yield fail("session", str(error), "ask its operator", Exit.REFUSED)
        else:
            yield warn("session", f"a stranger is not let in, which says nothing about you: {error}")
    except RelayRefused as error:
        yield fail("session", str(error), "see the text", Exit.REFUSED)
    except BadKey:
        yield fail("session", "the relay's card has the keys of this profile", "set the right card", Exit.USAGE)


async def _connect(relay: RelayClient) -> Finding | None:
    """Wait for a session, or for what keeps it from coming about.

    Raises:
        RelayRefused: the relay does not serve us.
    """
    in_use = 0
    async for event in relay:
        match event:
            case Connected():
                return None
            case IdInUse():
                in_use += 1
                if in_use >= _IN_USE:
                    fix = "let one of the two rest: what one of them receives the other never gets"
                    text = "another program uses this identity at the relay: on another machine, or as another profile"
                    return fail("session", text, fix, Exit.REFUSED, id_in_use=True)
            case Disconnected(Reason.ID_IN_USE | Reason.UNANSWERED):
                pass  # the next attempt tells what it means
            case Disconnected(reason, text):
                fix = "try again later" if reason is Reason.BUSY else "see the text"
                return fail("session", text, fix, Exit.NOT_IN_TIME, reason=reason.value)
    return fail("session", "it ended before it began", "try again", Exit.NOT_IN_TIME)


async def _latency(relay: RelayClient) -> Finding:
    taking = asyncio.create_task(_take(relay))
    took = []
    try:
        for _ in range(_ROUNDS):
            before = time.perf_counter()
            await relay.barrier()
            took.append((time.perf_counter() - before) * 1000)
    except (TimeoutError, NotConnected) as error:
        return warn("latency", f"the relay stopped answering: {error}", "try again; a proxy between may be the cause")
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    middle = median(took)
    text, data = f"{middle:.1f} ms there and back, the median of {_ROUNDS}", {"milliseconds": round(middle, 2)}
    if middle > _SLOW:
        return warn("latency", text, "a slow network, or a relay with too much to do", **data)
    return ok("latency", text, **data)


async def _take(relay: RelayClient) -> None:
    """Let events go. Packets among them are not acknowledged, so their senders send them again."""
    async for event in relay:
        if isinstance(event, Notice):
            continue


def check_subscriptions(route: Route, contacts: int) -> Finding | None:
    """Compare how many contacts there are with how many a relay tells the presence of."""
    most = (route.limits or {}).get("subscriptions")
    if not isinstance(most, int) or isinstance(most, bool):
        return None
    data = {"contacts": contacts, "most": most}
    if contacts > most:
        fix = "messages arrive all the same, later; ask its operator for a higher limit (subscriptions)"
        text = f"{counted(contacts, 'contact')}, and the relay tells of the presence of {most}"
        return warn("subscriptions", text, fix, **data)
    return ok("subscriptions", f"{contacts} of {most} that the relay allows", **data)
