"""`/sessions`: how many connections are in which state, and nothing about any of them.

A hundred thousand are looked at a few at a time, between other work: whoever asks waits, and nobody else.
"""

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from relay.websocket import Phase

if TYPE_CHECKING:
    from relay.core import Core
    from relay.session import Session

Report = dict[str, Any]

_STEP: Final = 64
_KEEP: Final = 1.0
"""Seconds for which a report is given again."""

_AGES: Final = ((60, "under_1_min"), (600, "under_10_min"), (3600, "under_1_h"), (86400, "under_1_d"))
_OLDEST: Final = "1_d_or_more"
_QUEUES: Final = ((0, "empty"), (64 * 1024, "up_to_64_kib"), (1024 * 1024, "up_to_1_mib"))
_LONGEST: Final = "over_1_mib"
_WATCHED: Final = ((0, "none"), (16, "up_to_16"), (256, "up_to_256"))
_MOST_WATCHED: Final = "over_256"
_STATES: Final = ("opening", "claiming", "unproven", "proven", "closing")


class Census:
    """Counts sessions by classes.

    Args:
        core: the relay.
    """

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._waiting: list[Callable[[Report], None]] = []
        self._latest: tuple[float, Report] | None = None

    def take(self, then: Callable[[Report], None]) -> None:
        """Call `then` with a report: at once if there is a fresh one, else when it is made."""
        if self._latest is not None and self._core.clock() - self._latest[0] < _KEEP:
            then(self._latest[1])
            return
        self._waiting.append(then)
        if len(self._waiting) == 1:
            self._core.turns.task(self._steps())

    def _steps(self) -> Iterator[None]:
        try:
            report = yield from self._count()
            self._latest = (self._core.clock(), report)
        finally:
            # Also after an error: whoever asks next begins anew.
            waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(report)

    def _count(self) -> Generator[None, None, Report]:
        core = self._core
        states = dict.fromkeys(_STATES, 0)
        ages = dict.fromkeys([*(name for _, name in _AGES), _OLDEST], 0)
        queues = dict.fromkeys([*(name for _, name in _QUEUES), _LONGEST], 0)
        watched = dict.fromkeys([*(name for _, name in _WATCHED), _MOST_WATCHED], 0)
        held = 0
        for count, session in enumerate(list(core.connections)):
            if count % _STEP == _STEP - 1:
                yield
            accepted = core.connections.get(session)
            if accepted is None:
                continue  # gone since
            states[_state(session)] += 1
            if session.phase is not Phase.OPEN or session.unmask is None:
                continue
            age = core.clock() - accepted
            ages[next((name for bound, name in _AGES if age < bound), _OLDEST)] += 1
            queues[_class(session.outbox.untaken, _QUEUES, _LONGEST)] += 1
            watched[_class(len(session.watching or ()), _WATCHED, _MOST_WATCHED)] += 1
            held += bool(session.held)
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "connections": sum(states.values()),
            "sessions": sum(ages.values()),
            "connections_by_state": states,
            "sessions_by_age": ages,
            "sessions_by_queued_bytes": queues,
            "sessions_by_watched_keys": watched,
            "sessions_not_read_from": held,
        }


def _state(session: "Session") -> str:
    if session.phase is Phase.CLOSING:
        return "closing"
    if session.wire is None:
        return "opening"
    if session.unmask is None:
        return "claiming"
    return "proven" if session.wire.proven else "unproven"


def _class(value: int, classes: tuple[tuple[int, str], ...], largest: str) -> str:
    return next((name for bound, name in classes if value <= bound), largest)
