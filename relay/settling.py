"""How limits change while clients are connected: at once, but for what would end sessions. Pure: `now` is passed in.

Whoever was silent for 30 s when `silent_after` becomes 10 has had no ping by the new rule, and would be dropped for
what was allowed. So a deadline that becomes shorter counts from the change on: until its new length has passed since
then the old one stays in force, and after that nobody can tell the difference. A total that becomes smaller than what
is in use follows the use down: what waits is written or refused by the ordinary rules, and nobody gives way for the
change alone.
"""

from dataclasses import replace
from typing import Final

from relay.limits import Limits

SHORTER: Final = {
    "opening_deadline": "opening_deadline",
    "request_size": "opening_deadline",
    "silent_after": "silent_after",
    "closing_deadline": "closing_deadline",
    "partial_grace": "partial_grace",
    "partial_deadline": "partial_deadline",
    "queue_age": "queue_age",
}
"""What a session may end by when it becomes less, and the limit for whose length the old value stays."""


class Settling:
    """One change of limits, under way.

    Args:
        old: those in force.
        wanted: those to come.
        now: the time of the change.
    """

    def __init__(self, old: Limits, wanted: Limits, now: float) -> None:
        self._wanted = wanted
        self._since = now
        self._longer = {name: getattr(old, name) for name in SHORTER if getattr(old, name) > getattr(wanted, name)}
        self._queue_total = old.queue_total
        self._partial_total = old.partial_total
        self._in_force: Limits | None = None

    def in_force(self, now: float, queued: int, partial: int) -> Limits:
        """Return the limits of this moment.

        Args:
            now: the time.
            queued: bytes that are counted against `queue_total`.
            partial: bytes that are counted against `partial_total`.
        """
        wanted = self._wanted
        for name in list(self._longer):
            if now - self._since >= getattr(wanted, SHORTER[name]):
                del self._longer[name]
        self._queue_total = max(wanted.queue_total, min(self._queue_total, queued))
        self._partial_total = max(wanted.partial_total, min(self._partial_total, partial))
        self._in_force = replace(
            wanted, queue_total=self._queue_total, partial_total=self._partial_total, **self._longer
        )
        return self._in_force

    @property
    def settled(self) -> bool:
        """Whether the limits that were wanted are in force."""
        return self._in_force == self._wanted
