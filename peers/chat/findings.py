"""What a check found: that all is well, or what is not and what to do about it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from peers.chat.exits import Exit


class Status(StrEnum):
    """How it stands."""

    OK = "ok"
    WARN = "warn"
    """Something works less well than it could, or could not be looked at."""
    FAIL = "fail"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        check: what was looked at, one word.
        status: how it stands.
        text: the same in a sentence, fit to be shown.
        fix: what to do.
        exit_status: of a failure, the status to exit with.
        data: more for programs.
    """

    check: str
    status: Status
    text: str
    fix: str = ""
    exit_status: Exit = Exit.DONE
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """The finding for programs."""
        fix = {"fix": self.fix} if self.fix else {}
        return {"check": self.check, "status": str(self.status), "text": self.text, **fix, **self.data}


def ok(check: str, text: str, **data: Any) -> Finding:
    """All is well."""
    return Finding(check, Status.OK, text, data=data)


def warn(check: str, text: str, fix: str = "", **data: Any) -> Finding:
    """Something is not as it should be."""
    return Finding(check, Status.WARN, text, fix, data=data)


def fail(check: str, text: str, fix: str, exit_status: Exit, **data: Any) -> Finding:
    """It does not work."""
    return Finding(check, Status.FAIL, text, fix, exit_status, data)
