"""What the nodes need of whatever carries their messages: publish, ask, subscribe. Nothing here is reliable.

A message may be lost, and of what is published while the bus is not connected nothing arrives. Messages of one node on
one subject keep their order.
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

Received = Callable[[bytes, str, str], None]
"""Takes a message, the subject to answer on ("" where no answer is wanted), and the subject that it came on."""


class Outcome(Enum):
    """What became of a request."""

    ANSWER = "answer"
    NO_RESPONDERS = "nobody subscribed to the subject"
    TIMEOUT = "somebody did, and said nothing in time"
    LOST = "the bus was lost meanwhile, or is"


Answered = Callable[[Outcome, bytes], bool]
"""Takes an answer, or what came in its place; returns whether it waits for more answers."""


class Bus(Protocol):
    """One node's connection. All calls return at once; callbacks come from the event loop."""

    changed: Callable[[bool], None]
    """Called when the connection is lost (False) and when it is back (True), with all subscriptions."""

    @property
    def connected(self) -> bool:
        """Whether messages can leave now."""

    @property
    def max_payload(self) -> int:
        """Bytes that one message may have."""

    @property
    def backlog(self) -> int:
        """Bytes that were published and have not left yet."""

    def publish(self, subject: str, *parts: bytes) -> None:
        """Send a message, the parts one after another, to whoever subscribed to the subject, ourselves never."""

    def request(self, subject: str, data: bytes, timeout: float, answered: Answered) -> None:
        """As publish; `answered` is called with each answer until it has enough, or time is up."""

    def subscribe(self, subject: str, received: Received) -> None:
        """Receive what is published on a subject, once for each node."""

    def unsubscribe(self, subject: str) -> None:
        """Receive it no longer."""

    async def close(self) -> None:
        """Send what is left, and hang up."""
