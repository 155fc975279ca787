"""The errors of this floor.

WireError       what the other side sent is wrong; carries the WebSocket close code that says so
├── BadFrame        a frame that cannot be taken apart, or that does not open
├── BadBody         a command whose body does not fit its layout
└── NotNow          a frame that is well formed but out of place in this state
LocalError      we misuse our own API
"""

from typing import ClassVar, Final

POLICY_VIOLATION: Final = 1008
"""RFC 6455 §7.4.1: a message that violates the endpoint's policy, when no other code fits."""


class WireError(Exception):
    """What the other side sent is wrong. The text never holds what they sent."""

    close_code: ClassVar[int] = POLICY_VIOLATION


class BadFrame(WireError):
    """A frame that cannot be taken apart or does not open."""


class BadBody(WireError):
    """A command whose body does not fit its layout."""


class NotNow(WireError):
    """A frame that is well formed but out of place in this state of the session."""


class LocalError(Exception):
    """We asked for something that our own state or arguments do not allow: a bug of ours."""
