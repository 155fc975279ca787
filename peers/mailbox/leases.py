"""What is handed out and not acknowledged yet. Pure: `tick` is passed in.

In memory: a lease that a restart forgets is one that ended early, and whoever fetches must bear that anyway. So handing
out writes nothing, and the disk does not tell who came when.
"""


class Leases:
    """Numbers of items that are handed out, by the store's number of the recipient, each with when that ends.

    Whoever deletes an item ends its lease. Their number is bounded for each recipient.
    """

    def __init__(self) -> None:
        self._out: dict[int, dict[int, float]] = {}

    def out(self, recipient: int, tick: float) -> dict[int, float]:
        """Return what is handed out to a recipient now, with the ends; not to be changed."""
        leased = self._out.get(recipient)
        if leased is None:
            return {}
        for number in [number for number, end in leased.items() if end <= tick]:
            del leased[number]
        if not leased:
            del self._out[recipient]
        return leased

    def take(self, recipient: int, number: int, end: float) -> None:
        """Hand an item out until `end`."""
        self._out.setdefault(recipient, {})[number] = end

    def end(self, recipient: int, number: int, when: float | None = None) -> None:
        """End a lease, if there is one; with `when`, only if it is the one that would end then."""
        leased = self._out.get(recipient)
        if leased is None or number not in leased or when not in (None, leased[number]):
            return
        del leased[number]
        if not leased:
            del self._out[recipient]

    def sweep(self, tick: float) -> None:
        """Forget the leases that have ended."""
        for recipient in list(self._out):
            self.out(recipient, tick)

    def __len__(self) -> int:
        return sum(map(len, self._out.values()))
