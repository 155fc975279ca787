"""Signals that end a program, awaited."""

import asyncio
import signal
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Takes SIGINT, SIGTERM and SIGHUP while it is open; from the main thread.

    What was ignored before stays ignored: so do nohup(1) and shells that start a command by ``&`` want it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Future[signal.Signals] = self._loop.create_future()
        self._numbers = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self._numbers:
            self._loop.add_signal_handler(number, self._take, number)

    async def wait(self) -> signal.Signals:
        """Return the first that comes."""
        return await asyncio.shield(self._came)

    def close(self) -> None:
        """Give them back."""
        for number in self._numbers:
            self._loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals) -> None:
        if not self._came.done():
            self._came.set_result(number)
