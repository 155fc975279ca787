"""Whether one address has most of the sessions. Pure; time is an argument.

A proxy that is not trusted makes all clients one: limits by address then meet everybody at once. Only the operator can
tell such a proxy from a large office, so the relay says what it sees, without the address.
"""

from typing import Final

from relay.guard import Place, Seldom

LEAST: Final = 50
"""Sessions of one address below which nothing is said: a family, a small office, a trial."""
EVERY: Final = 3600.0
"""Seconds between two warnings."""


class Crowding:
    """Counts sessions at the places that their addresses have."""

    def __init__(self) -> None:
        self._tell = Seldom(EVERY)

    def joined(self, place: Place, total: int, now: float) -> int:
        """Count a session; return how many its address has if that is to be warned about, else 0.

        Args:
            place: of the session's address; that of nobody in particular (key b"") is no address.
            total: all sessions, this one included.
            now: seconds on a clock that only goes forward.
        """
        place.sessions += 1
        count = place.sessions
        if count < LEAST or count * 2 <= total or not place.key or not self._tell.due(now):
            return 0
        return count

    @staticmethod
    def left(place: Place) -> None:
        """Count a session no longer."""
        place.sessions -= 1
