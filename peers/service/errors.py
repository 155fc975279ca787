"""The errors of a service.

ServiceError        the text says what is wrong and what to do; it never holds ids, keys, tokens or secrets
├── BadSettings     settings that cannot be used: a line for each problem
└── ServiceFailed   what may do better the next time

BadValues           a ValueError of those who check settings, before it is known where they were set
"""

from collections.abc import Iterable


class ServiceError(Exception):
    """The service cannot do what it was asked to do."""


class BadSettings(ServiceError):
    """Settings that cannot be used; the text names each problem on a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__("\n".join(problems))


class ServiceFailed(ServiceError):
    """It did not go now: the address is taken, another one runs."""


class BadValues(ValueError):
    """Values of one table of settings that cannot be, by themselves or together.

    Attributes:
        reason: what is wrong with them, without their names.
        keys: their names in the table; whoever read the settings tells where each was set.
    """

    def __init__(self, reason: str, *keys: str) -> None:
        super().__init__(f"{', '.join(keys)}: {reason}")
        self.reason = reason
        self.keys = keys
