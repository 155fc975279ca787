"""The screen of a profile, ``blindrelay-chat open [PEER]``: contacts, conversations, files, search.

It stands on the store alone. Whether its messages are carried by this process or by another one of the profile makes
no difference to what is shown (see :mod:`peers.carrier.keeper`).
"""

import asyncio
import signal
import sys
from contextlib import ExitStack
from functools import partial

from peers.chat.exits import Exit
from peers.chat.session import Session
from peers.chat.tui.app import ChatApp

__all__ = ["ChatApp", "run"]


async def run(session: Session, contact: str | None = None) -> int:
    """Show the screen until the user leaves it; returns an exit status (:class:`peers.chat.exits.Exit`).

    Args:
        session: the profile, entered.
        contact: whose conversation to show at first, as people say it: see :meth:`Session.contact`.

    Raises:
        NoSuchContact, Ambiguous: there is no such contact, or several.
        ProfileError: the admission token cannot be read.
        DatabaseError: the store cannot be used (any more). The terminal is as it was.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("blindrelay-chat: open needs a terminal; use send, listen and history in scripts", file=sys.stderr)
        return Exit.USAGE
    row = None if contact is None else await session.contact(contact)
    await session.carry()
    app = ChatApp(session, None if row is None else row.id)
    with ExitStack() as stack:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Without this the terminal would stay in the state of the screen.
            loop.add_signal_handler(number, partial(app.exit, return_code=Exit.INTERRUPTED))
            stack.callback(loop.remove_signal_handler, number)
        await app.run_async()
    if app.error is not None:
        raise app.error
    return app.return_code or Exit.DONE
