"""The errors of a service.

ServiceError        the text says what is wrong and what to do; it never holds ids, keys, tokens or secrets
├── BadSettings     settings that cannot be used: a line for each problem
└── ServiceFailed   what may do better the next time
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
