"""Why there is no session now: between the modules of this package only, for it never leaves the client."""

from dataclasses import dataclass

from peers.client.events import Reason


@dataclass(eq=False)
class Lost(Exception):
    """A session that ended or did not come about, so that another attempt is due.

    Args:
        reason: why.
        text: for people; fit to be shown.
        asked: seconds after which the other side asked us to come back.
        unanswered: it was closed with 1008 instead of an answer to the handshake.
    """

    reason: Reason
    text: str
    asked: float | None = None
    unanswered: bool = False

    def __str__(self) -> str:
        return self.text
