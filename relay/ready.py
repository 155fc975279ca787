"""Whether clients should be sent to this relay: one object with named conditions. Pure."""

from enum import StrEnum


class Condition(StrEnum):
    """What has to hold; the value is a metric label too. What is added shows in `/readyz` and metrics by itself."""

    STARTED = "started"  # it listens
    NOT_DRAINING = "not_draining"  # it was not told to stop


class Ready:
    """The conditions that do not hold now, each with the reason as a text for people.

    A new one waits for :attr:`Condition.STARTED`.
    """

    def __init__(self) -> None:
        self._missing: dict[Condition, str] = {Condition.STARTED: "the relay is starting"}
        self._degraded: dict[str, str] = {}

    def lost(self, condition: Condition, reason: str) -> None:
        """A condition holds no longer, for this reason: one line, and nothing about clients in it."""
        self._missing[condition] = reason

    def met(self, condition: Condition) -> None:
        """A condition holds."""
        self._missing.pop(condition, None)

    def degraded(self, part: str, reason: str) -> None:
        """A part does not work, and clients are better off here all the same: one line, and nothing about clients."""
        self._degraded[part] = reason

    def recovered(self, part: str) -> None:
        """A part works again."""
        self._degraded.pop(part, None)

    @property
    def losses(self) -> list[str]:
        """What does not work although the relay is ready, a line each."""
        return [f"degraded: {part}: {reason}" for part, reason in self._degraded.items()]

    def holds(self, condition: Condition) -> bool:
        """Whether a condition holds."""
        return condition not in self._missing

    @property
    def reasons(self) -> list[str]:
        """Why the relay is not ready, a line each; empty when it is."""
        return [f"{condition}: {reason}" for condition, reason in self._missing.items()]

    def __bool__(self) -> bool:
        return not self._missing
