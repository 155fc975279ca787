"""Two sessions of one id: the rules as a table, and who waits for whom (PROTOCOL.md §8.3). Pure: no I/O, no clock.

| holder   | newcomer's full keys | what happens |
|----------|----------------------|--------------|
| none     | any                  | admitted |
| any      | other                | refused: id in use |
| unproven | the same             | the holder is put out, the newcomer admitted |
| proven   | the same             | the holder is pinged; it answers: refused; it does not: put out, newcomer admitted |

A newcomer always comes with a handshake nonce never seen before: the replay memory refuses all others first.
Of two newcomers that wait, the later waits until the earlier is decided, and then meets the table itself; also if they
are at different nodes of a cluster (`relay.contest`).
"""

from collections import deque
from enum import Enum
from typing import Final, Generic, Protocol, TypeVar

from keys.identity import PublicIdentity

Newcomer = TypeVar("Newcomer")


class Elsewhere(Protocol):
    """A newcomer at another node of the cluster: it stands in line like one of ours."""

    @property
    def id(self) -> bytes:
        """The id that it wants."""

    @property
    def public(self) -> PublicIdentity:
        """The keys that its handshake proved, as its node says."""

    @property
    def node(self) -> bytes:
        """The number of its node."""

    def decided(self, *, free: bool) -> None:
        """Tell its node whether the id is to be had. If so its node says later what came of it."""


class Holder(Enum):
    """How the session that has the id stands."""

    NONE = "none"
    UNPROVEN = "unproven"
    PROVEN = "proven"


class Verdict(Enum):
    """What happens to a newcomer."""

    ADMIT = "admitted"
    REFUSE = "refused"
    REPLACE = "the holder is put out"
    PROBE = "the holder is pinged"


TABLE: Final[dict[tuple[Holder, bool], Verdict]] = {
    (Holder.NONE, False): Verdict.ADMIT,
    (Holder.NONE, True): Verdict.ADMIT,
    (Holder.UNPROVEN, False): Verdict.REFUSE,
    (Holder.PROVEN, False): Verdict.REFUSE,
    (Holder.UNPROVEN, True): Verdict.REPLACE,
    (Holder.PROVEN, True): Verdict.PROBE,
}
"""By the holder's standing and whether the newcomer's full keys are the same."""


def decide(holder: PublicIdentity | None, proven: bool, newcomer: PublicIdentity) -> Verdict:
    """Judge a newcomer by the table."""
    if holder is None:
        return TABLE[Holder.NONE, True]
    return TABLE[Holder.PROVEN if proven else Holder.UNPROVEN, holder == newcomer]


class Queue(Generic[Newcomer]):
    """Newcomers that wait, by id; the first of each line is the one whose probe is under way."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: dict[bytes, deque[Newcomer]] = {}

    def change(self, most: int) -> None:
        """Let so many wait for one id from now on; whoever waits already goes on waiting."""
        self._most = most

    def __len__(self) -> int:
        return len(self._lines)

    def join(self, client_id: bytes, newcomer: Newcomer) -> bool:
        """Stand in line; False when the line is full."""
        line = self._lines.setdefault(client_id, deque())
        if len(line) >= self._most:
            return False
        line.append(newcomer)
        return True

    def waiting(self, client_id: bytes) -> bool:
        """Whether anybody waits for this id."""
        return client_id in self._lines

    def first(self, client_id: bytes) -> Newcomer | None:
        """Return the one whose turn it is."""
        line = self._lines.get(client_id)
        return line[0] if line else None

    def line(self, client_id: bytes) -> tuple[Newcomer, ...]:
        """Return all who wait for this id, the first one first."""
        return tuple(self._lines.get(client_id, ()))

    def leave(self, client_id: bytes, newcomer: Newcomer) -> bool:
        """Step out of the line; tell whether it was the first's place."""
        line = self._lines.get(client_id)
        if line is None or newcomer not in line:
            return False
        was_first = line[0] is newcomer
        line.remove(newcomer)
        if not line:
            del self._lines[client_id]
        return was_first
