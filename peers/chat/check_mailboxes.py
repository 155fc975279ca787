"""Checks of one's own mailboxes: whether each answers, what it takes, and whether its clock is right."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from keys.invite import RelayCard
from peers.chat.exits import Exit
from peers.chat.findings import Finding, fail, ok, warn
from peers.chat.text import clean_line
from peers.chat.views import unwelcome
from peers.client import ClientOptions
from peers.dropping import Depositor, DroppingOptions, MailboxError, NotAMailbox
from peers.store.mailboxes import OwnMailbox, Unwelcome
from wire.mailbox_answers import About
from wire.mailbox_codes import Access

_FIX: Final = "mailbox token {}"
_SKEW: Final = 10 * 60 * 1000
"""Milliseconds: a stamp's time may differ by so much, and deposits end by the mailbox's clock."""


async def check_mailboxes(
    ours: Sequence[OwnMailbox], relay: RelayCard, client: ClientOptions, options: DroppingOptions
) -> list[Finding]:
    """Ask each mailbox, as somebody who has no name, what it takes. Nothing is picked up."""
    return list(await asyncio.gather(*(_check(own, relay, client, options) for own in ours)))


async def admissions(
    ours: Sequence[OwnMailbox], relay: RelayCard, client: ClientOptions, options: DroppingOptions
) -> dict[int, str]:
    """Try, as somebody who has no name, whether each takes the token that contacts are told.

    Returns:
        by its number, what is wrong; empty if nothing is. Without those that did not answer.
    """

    async def one(own: OwnMailbox) -> str | None:
        depositor = _depositor(own, relay, client, options)
        try:
            return await _admission(own, depositor, await depositor.info())
        except MailboxError:
            return None
        finally:
            await depositor.rest()

    found = await asyncio.gather(*map(one, ours))
    return {own.id: words for own, words in zip(ours, found, strict=True) if words is not None}


def check_unwelcome(found: Sequence[Unwelcome]) -> list[Finding]:
    """Tell of the mailboxes of contacts that refuse what we leave."""
    fix = "tell them by another way; their program tells yours when that is done"
    return [warn("deposits", unwelcome(each), fix, waiting=each.waiting) for each in found]


async def _admission(own: OwnMailbox, depositor: Depositor, about: About) -> str:
    if about.access != Access.TOKEN:
        return ""
    if not own.token:
        return f"it asks depositors for a token, and contacts are told none: {_FIX.format(own.id)}"
    if await depositor.takes(own.token):
        return ""
    return f"it does not take the token that contacts are told: ask its operator for one, then {_FIX.format(own.id)}"


async def _check(own: OwnMailbox, relay: RelayCard, client: ClientOptions, options: DroppingOptions) -> Finding:
    where = clean_line(urlsplit(own.card.url).netloc)
    data = {"mailbox": own.id, "url": own.card.url}
    depositor = _depositor(own, relay, client, options)
    try:
        about = await depositor.info()
        wrong = await _admission(own, depositor, about)
    except NotAMailbox as error:
        fix = "ask its operator for the present card, or remove it: mailbox remove"
        return fail("mailbox", f"{where}: {error}", fix, Exit.REFUSED, **data)
    except MailboxError as error:
        fix = "others are used meanwhile, if you have any; if it stays away, remove it: mailbox remove"
        return warn("mailbox", f"{where}: {error}", fix, **data)
    finally:
        await depositor.rest()
    if wrong:
        return warn("mailbox", f"{where}: {wrong}", "until then nobody can leave anything for you there", **data)
    return _found(own, where, about, options, data)


def _found(own: OwnMailbox, where: str, about: About, options: DroppingOptions, data: dict[str, object]) -> Finding:
    data = {**data, "bits": about.bits, "ttl": about.ttl, "items": about.items}
    off = about.now - time.time_ns() // 1_000_000
    days = about.ttl // 86400
    text = f"{where} answers, and keeps things for {days} days" + (f", for {about.bits} bits" if about.bits else "")
    if about.access == Access.RECIPIENTS:
        text += "; it serves a list of people, on which its operator has to have you"
    if about.bits > options.stamp_bits:
        fix = "others who allow no more than you do cannot leave anything there now: another mailbox may be cheaper"
        return warn("mailbox", f"{text}, of which you allow {options.stamp_bits}", fix, **data)
    if abs(off) > _SKEW:
        fix = "look at the clock of this machine; if that is right, tell the mailbox's operator"
        return warn("mailbox", f"{text}; its clock differs by {abs(off) // 60000} minutes", fix, **data)
    if own.refused:
        fix = "look into it more often, or use another beside it"
        return warn("mailbox", f"{text}; it has refused {own.refused} deposits for want of room so far", fix, **data)
    return ok("mailbox", text, **data)


def _depositor(own: OwnMailbox, relay: RelayCard, client: ClientOptions, options: DroppingOptions) -> Depositor:
    if not own.card.by_relay:
        from peers.dropping.by_http import HttpWay

        return Depositor(own.card, HttpWay(own.card, options), options)
    from peers.dropping.by_relay import RelayWay

    known = relay if own.card.url == relay.url else None
    return Depositor(own.card, RelayWay(own.card, options, relay=known, client=client if known else None), options)
