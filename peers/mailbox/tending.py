"""What a mailbox does by itself: save its time, erase what has ended, and empty the store's log."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from peers.mailbox.clock import Moment
from peers.mailbox.core import Mailbox
from peers.mailbox.store import StoreError

EVERY: Final = 10.0
"""Seconds between looks: what has ended is handed out no more in any case."""
TIDY_EVERY: Final = 3600.0
"""Seconds between emptyings of the log; for so long it may keep what was deleted."""


def read_clocks(mailbox: Mailbox) -> Moment:
    """Return the moment by the machine's clocks."""
    return mailbox.moment(time.time() * 1000, time.monotonic())


async def tend(
    mailbox: Mailbox,
    failed: Callable[[StoreError], None],
    moment: Callable[[Mailbox], Moment] = read_clocks,
    every: float = EVERY,
    tended: Callable[[], None] = lambda: None,
) -> None:
    """Look after a mailbox until cancelled.

    Args:
        failed: is told what the store could not do. It is tried again at the next look.
        tended: is told of each look at which the store could do all.
    """
    tidied = moment(mailbox).tick
    while True:
        try:
            # A batch at a time, with others served in between.
            erased = 1
            while erased:
                begun = moment(mailbox).tick
                erased = await mailbox.tend(moment(mailbox))
                if erased:
                    # Half of the time is for the others: nothing is late by it, and the disk keeps up.
                    await asyncio.sleep(moment(mailbox).tick - begun)
            at = moment(mailbox)
            if at.tick - tidied >= TIDY_EVERY:
                tidied = at.tick
                await mailbox.store.tidy(at.tick)
            tended()
        except StoreError as error:
            failed(error)
        await asyncio.sleep(every)
