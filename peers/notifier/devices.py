"""What is known of devices while there is something to push to them, and of each push. The rules of windows and calls.

A device is a token here. Nothing knows whose it is.
"""

from collections import OrderedDict, deque
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from peers.client.backoff import Backoff
from peers.notifier.channel import PushType
from peers.notifier.registry import Registered

if TYPE_CHECKING:
    import asyncio

MINUTE: Final = 60.0


class Errand:
    """One push: it waits, is under way, or is over.

    Args:
        device: whose.
        kind: what for.
        since: when it was asked for.
        expires: when it is too late; later if it is asked for again.
        backoff: the delays between attempts.
    """

    __slots__ = ("backoff", "began", "device", "expires", "since", "timer", "tried", "type")

    def __init__(self, device: "Device", kind: PushType, since: float, expires: float, backoff: Backoff) -> None:
        self.device = device
        self.type = kind
        self.since = since
        self.expires = expires
        self.backoff = backoff
        self.tried = False
        self.began = 0
        """How often the token had been registered again when the last attempt began."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def standing(self) -> "Standing":
        """What is known of the server to which it goes."""
        registered = self.device.registered
        if self.tried or registered.failures:
            return Standing.SUSPECT
        return Standing.FRESH if registered.last_ok is None else Standing.PROVEN

    def begin(self) -> None:
        """It is under way now. Of a call that means that the next one rings again."""
        self.began = self.device.renewals
        if self.type is PushType.CALL and self.device.joined.get(PushType.CALL) is self:
            del self.device.joined[PushType.CALL]

    def end(self) -> None:
        """It is over."""
        self.device.errands -= 1
        if self.device.joined.get(self.type) is self:
            del self.device.joined[self.type]


class Standing(IntEnum):
    """What pushes to a token came to. Whoever registers chooses the server, and ids cost nothing: what never worked
    must not be able to take all the workers from what does."""

    PROVEN = 0
    """The last one was taken."""
    FRESH = 1
    """There was none yet."""
    SUSPECT = 2
    """The last one failed."""


class Device:
    """What is known of a token."""

    __slots__ = ("calls", "covered_until", "errands", "held_until", "joined", "registered", "renewals")

    def __init__(self, registered: Registered) -> None:
        self.registered = registered
        self.renewals = 0
        """How often the token was registered again meanwhile."""
        self.errands = 0
        """Those that are not over."""
        self.joined: dict[PushType, Errand] = {}
        """What a further wake joins: of messages the one that is under way as well, of calls the one that waits."""
        self.covered_until = float("-inf")
        """Until then a wake needs no message push: one was just taken."""
        self.held_until = float("-inf")
        """Until then the next message push is held back."""
        self.calls: deque[float] = deque()
        """When the calls of the last minute came."""

    def may_ring(self, now: float, most: int) -> bool:
        """Tell whether a call may be pushed, with so many in a minute at most, and count it if so."""
        while self.calls and self.calls[0] <= now - MINUTE:
            self.calls.popleft()
        if len(self.calls) >= most:
            return False
        self.calls.append(now)
        return True

    def matters(self, now: float) -> bool:
        """Tell whether anything is remembered of it that still counts, but for its errands."""
        return self.held_until > now or bool(self.calls and self.calls[-1] + MINUTE > now)


class Devices:
    """The devices of a channel, by the digests of their tokens, in the order of their last wakes."""

    def __init__(self) -> None:
        self._devices: OrderedDict[bytes, Device] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def woken(self, registered: Registered) -> Device:
        """Return the device of a token, now the one that was woken last."""
        device = self._devices.get(registered.token_hash)
        if device is None:
            device = self._devices[registered.token_hash] = Device(registered)
        else:
            self._devices.move_to_end(registered.token_hash)
            device.registered = registered
        return device

    def renewed(self, token_hash: bytes) -> None:
        """Note that a token was registered again: what is under way for it is about the token as it was."""
        device = self._devices.get(token_hash)
        if device is not None:
            device.renewals += 1

    def pop(self, token_hash: bytes) -> Device | None:
        """Forget a device, and return it."""
        return self._devices.pop(token_hash, None)

    def knows(self, device: Device) -> bool:
        """Tell whether this device is remembered, and not forgotten or replaced meanwhile."""
        return self._devices.get(device.registered.token_hash) is device

    def sweep(self, now: float) -> None:
        """Forget those of which nothing matters any more."""
        old = []
        for token_hash, device in self._devices.items():
            if device.matters(now):
                break  # most of those behind it were woken later, and the next sweep comes soon
            if not device.errands:
                old.append(token_hash)
        for token_hash in old:
            del self._devices[token_hash]
