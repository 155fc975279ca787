"""Waiting until there may be something to do."""

import asyncio
import math
from contextlib import suppress


async def stirred_until(stirred: asyncio.Event, at: float) -> None:
    """Return once the event is set, or at a time of the event loop if that comes first; ``math.inf`` never comes."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(None if at == math.inf else at):
            await stirred.wait()
