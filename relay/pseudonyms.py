"""Names by which an operator can tell two clients apart for a day, and nobody can later. Pure: `now` is passed in.

The name is keyed BLAKE3 of the client id under the day's key. Without that key it leads back to no id, and with it
only by trying ids: the key is random, in memory alone, and dropped when the UTC day is over. The same client has
another name on the next day, and after a restart.
"""

import base64
from collections.abc import Callable
from typing import Final

from keys.primitives import KEY_SIZE, keyed_digest, random_bytes

_DAY: Final = 86400
_SIZE: Final = 5
"""Bytes, which are 8 letters: two of a thousand clients share a name once in two million days."""


class Pseudonyms:
    """Gives names.

    Args:
        random: gives the keys.
    """

    def __init__(self, random: Callable[[int], bytes] = random_bytes) -> None:
        self._random = random
        self._day: int | None = None
        self._key = b""

    def name(self, client_id: bytes, now: float) -> str:
        """Return the name of a client on the day of `now` (seconds since 1970, UTC): 8 letters and digits, base32."""
        day = int(now // _DAY)
        if day != self._day:
            # UTC days and not 24 hours since the start: a name then holds for the dates that the log shows.
            self._day, self._key = day, self._random(KEY_SIZE)
        return base64.b32encode(keyed_digest(self._key, client_id, _SIZE)).decode().lower()
