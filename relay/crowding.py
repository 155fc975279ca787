"""How many sessions each address has, and whether one has most of them. Pure; time is an argument.

A proxy that is not trusted makes all clients one: limits by address then meet everybody at once. Only the operator can
tell such a proxy from a large office, so the relay says what it sees, without the address.
"""

from typing import Final

LEAST: Final = 50
"""Sessions of one address below which nothing is said: a family, a small office, a trial."""
EVERY: Final = 3600.0
"""Seconds between two warnings."""


class Crowding:
    """Counts sessions by address (b"", nobody in particular, is not counted among addresses)."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, int] = {}
        self._quiet_until = float("-inf")

    def joined(self, address: bytes, total: int, now: float) -> int:
        """Count a session; return how many its address has if that is to be warned about, else 0.

        Args:
            address: what the session is counted under.
            total: all sessions, this one included.
            now: seconds on a clock that only goes forward.
        """
        if not address:
            return 0
        count = self._sessions.get(address, 0) + 1
        self._sessions[address] = count
        if count < LEAST or count * 2 <= total or now < self._quiet_until:
            return 0
        self._quiet_until = now + EVERY
        return count

    def left(self, address: bytes) -> None:
        """Count a session no longer."""
        if not address:
            return
        count = self._sessions[address] - 1
        if count:
            self._sessions[address] = count
        else:
            del self._sessions[address]

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._sessions)
