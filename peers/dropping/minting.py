"""Stamps, minted beside the event loop."""

import asyncio
import threading
from contextlib import suppress

from keys.stamp import mint_stamp


async def mint(mailbox_x_pub: bytes, recipient_x_pub: bytes, deposit: bytes, now: int, bits: int) -> bytes:
    """Return a stamp as :func:`keys.stamp.mint_stamp` does.

    In a thread of its own, and one that ends with the process: an executor's would be waited for at the end of the
    program, and a dear stamp takes minutes.
    """
    loop = asyncio.get_running_loop()
    minted: asyncio.Future[bytes] = loop.create_future()

    def deliver(stamp: bytes | None, error: Exception | None) -> None:
        if minted.done():
            return
        if error is not None:
            minted.set_exception(error)
        elif stamp is not None:
            minted.set_result(stamp)

    def work() -> None:
        stamp, fault = None, None
        try:
            stamp = mint_stamp(mailbox_x_pub, recipient_x_pub, deposit, now, bits)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            fault = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, stamp, fault)

    threading.Thread(target=work, name="stamp", daemon=True).start()
    return await minted
