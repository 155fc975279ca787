"""The errors of the notifier.

NotifierError           the text says what is wrong and what to do; it never holds ids, tokens or secrets
├── BadNotifierSettings settings that cannot be used: a line for each problem
└── NotifierFailed      what may do better the next time
"""

from collections.abc import Iterable


class NotifierError(Exception):
    """The notifier cannot do what it was asked to do."""


class BadNotifierSettings(NotifierError):
    """Settings that cannot be used; the text names each problem on a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__("\n".join(problems))


class NotifierFailed(NotifierError):
    """It did not go now: the address is taken, another notifier runs."""
