"""One order of what several mailboxes hold. Pure."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def merged(sequences: Sequence[Sequence[T]]) -> list[T]:
    """Return each element once, in an order that agrees with all sequences as far as they agree with each other.

    Each mailbox has some copies of what one sender left, the oldest first. One that was down when the first message was
    left has only the second; the other mailbox, which has both, tells which is older.
    """
    queues = [list(dict.fromkeys(sequence)) for sequence in sequences]
    at = [0] * len(queues)
    later = Counter(each for queue in queues for each in queue[1:])
    order: list[T] = []
    taken: set[T] = set()

    def step(index: int) -> None:
        """Go on to the next of a queue that was not taken yet."""
        while True:
            at[index] += 1
            if at[index] >= len(queues[index]):
                return
            later[queues[index][at[index]]] -= 1
            if queues[index][at[index]] not in taken:
                return

    while True:
        heads = [(index, queues[index][at[index]]) for index in range(len(queues)) if at[index] < len(queues[index])]
        if not heads:
            return order
        # One that stands before others everywhere; where they contradict each other, that of the first mailbox.
        element = next((each for _, each in heads if later[each] <= 0), heads[0][1])
        order.append(element)
        taken.add(element)
        for index, each in heads:
            if each == element:
                step(index)
