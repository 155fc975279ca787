"""What is handed out and not acknowledged yet. Pure: `tick` is passed in.

In memory: a lease that a restart forgets is one that ended early, and whoever fetches must bear that anyway. So handing
out writes nothing, and the disk does not tell who came when.
"""


class Leases:
    """Numbers of items that are handed out, by recipient, each with the time at which its lease ends.

    It is as large as what recipients hold unacknowledged, which is bounded for each.
    """

    def __init__(self) -> None:
        self._out: dict[bytes, dict[int, float]] = {}

    def out(self, recipient: bytes, tick: float) -> dict[int, float]:
        """Return what is handed out to a recipient now, with the ends; not to be changed."""
        leased = self._out.get(recipient)
        if leased is None:
            return {}
        for number in [number for number, end in leased.items() if end <= tick]:
            del leased[number]
        if not leased:
            del self._out[recipient]
        return leased

    def take(self, recipient: bytes, number: int, end: float) -> None:
        """Hand an item out until `end`."""
        self._out.setdefault(recipient, {})[number] = end

    def end(self, recipient: bytes, number: int) -> None:
        """End a lease, if there is one."""
        leased = self._out.get(recipient)
        if leased is not None and leased.pop(number, None) is not None and not leased:
            del self._out[recipient]

    def sweep(self, tick: float) -> None:
        """Forget the leases that have ended."""
        for recipient in list(self._out):
            self.out(recipient, tick)

    def __len__(self) -> int:
        return sum(map(len, self._out.values()))
