"""What one connection may spend: bytes, frames, commands, refusals, and room for messages that are not complete.

Nothing here refuses or drops anything. Whoever spends too fast is not read from for a while, and TCP makes it wait.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from relay.guard import Allowance, carried
from relay.reasons import Ending, Held
from relay.websocket import Phase, WebSocket
from wire.limits import MAX_HANDSHAKE

if TYPE_CHECKING:
    from websockets.frames import CloseCode

    from relay.core import Core

HOLD_RATE: Final = 1
"""Reads are held until an overdrawn allowance is paid back."""
HOLD_REFUSALS: Final = 2
"""Reads are held until the 0x03 answers that wait are sealed."""
HOLD_PARTIAL: Final = 4
"""Reads are held until there is room for a large unfinished frame."""
HOLD_CLAIM: Final = 8
"""Reads are held while the session waits for its id."""
HOLD_SHUTDOWN: Final = 16
"""Reads are held for good: the relay stops."""
HOLD_TURN: Final = 32
"""Reads are held until a later turn of the loop: this one has had its time."""
HOLD_CALLOUT: Final = 64
"""Reads are held while the operator's service is asked about the client."""
HOLD_WAY: Final = 128
"""Reads are held until another node of the cluster took what waits for it."""


class MeteredSocket(WebSocket):
    """A connection whose spending is measured, and when it was last heard."""

    __slots__ = (
        "bytes_left",
        "commands_left",
        "core",
        "frames_left",
        "last_in",
        "paid_at",
        "partial_since",
        "partial_size",
        "previous_in",
        "refusals_left",
        "stray_pongs",
    )

    def __init__(self, core: "Core") -> None:
        super().__init__(MAX_HANDSHAKE)
        limits = core.limits
        self.core = core
        self.last_in = self.previous_in = self.paid_at = core.clock()
        self.bytes_left: float = limits.bytes_burst if limits.bytes_per_second > 0 else float("inf")
        self.frames_left: float = limits.frames_burst if limits.frames_per_second > 0 else float("inf")
        # Made when first spent from: most connections never do.
        self.commands_left: Allowance | None = None
        self.refusals_left: Allowance | None = None
        self.stray_pongs = 0
        self.partial_size = 0
        self.partial_since = 0.0

    @abstractmethod
    def end(self, ending: Ending, code: "CloseCode", reason: str = "") -> None:
        """End the connection."""

    def chunk_received(self, size: int) -> None:
        core = self.core
        self.previous_in = self.last_in
        self.last_in = core.clock()
        core.counters.bytes_in += size
        self.bytes_left -= size
        if self.bytes_left < 0:
            self._pay_back()

    def frames_received(self, count: int) -> None:
        self.core.counters.frames_in += count
        self.frames_left -= count
        if self.frames_left < 0:
            self._pay_back()
        if self.stray_pongs:
            if self.stray_pongs >= count:
                # Unasked pongs alone do not show that anybody reads what we write.
                self.last_in = self.previous_in
            self.stray_pongs = 0

    def _pay_back(self) -> None:
        """Add what time has earned to both allowances; hold reads for as long as one is still overdrawn."""
        limits, now = self.core.limits, self.core.clock()
        elapsed, self.paid_at = now - self.paid_at, now
        wait, spent = 0.0, Held.BYTES
        if limits.bytes_per_second > 0:
            self.bytes_left = min(limits.bytes_burst, self.bytes_left + elapsed * limits.bytes_per_second)
            wait = -self.bytes_left / limits.bytes_per_second
        if limits.frames_per_second > 0:
            self.frames_left = min(limits.frames_burst, self.frames_left + elapsed * limits.frames_per_second)
            for_frames = -self.frames_left / limits.frames_per_second
            if for_frames > wait:
                wait, spent = for_frames, Held.FRAMES
        if wait > 0:
            self.core.hold_for(self, HOLD_RATE, wait, spent)

    def limits_changed(self) -> None:
        """Go by the limits of now. Whoever is held for a debt is held no longer than these ask for."""
        limits, now = self.core.limits, self.core.clock()
        self.bytes_left = carried(self.bytes_left, limits.bytes_per_second, limits.bytes_burst)
        self.frames_left = carried(self.frames_left, limits.frames_per_second, limits.frames_burst)
        waits = [0.01]
        if self.bytes_left < 0:
            waits.append(-self.bytes_left / limits.bytes_per_second)
        if self.frames_left < 0:
            waits.append(-self.frames_left / limits.frames_per_second)
        for allowance, rate, burst in (
            (self.commands_left, limits.commands_per_second, limits.commands_burst),
            (self.refusals_left, limits.refusals_per_second, limits.refusals_burst),
        ):
            if allowance is not None:
                allowance.change(rate, burst, now)
                waits.append(allowance.debt(now))
        if self.held & HOLD_RATE:
            # Beside the timer that runs, whichever comes first: what comes next renews a hold that ended too early.
            self.core.later(max(waits), self.release, HOLD_RATE)

    def spend(self, allowance: Allowance, what: Held) -> None:
        """Spend one; hold reads for as long as the allowance is overdrawn."""
        allowance.left -= 1
        if allowance.left < 0:
            wait = allowance.debt(self.core.clock())
            if wait > 0:
                self.core.hold_for(self, HOLD_RATE, wait, what)

    def partial_frame(self, size: int) -> None:
        if size == 0:
            self.partial_since = 0.0
        elif self.partial_since == 0.0:
            self.partial_since = self.core.clock()
        # Twice what is there, and not what the frame's head promises: a stranger's promise must not use up the room.
        wanted = min(size, 2 * self.unparsed)
        if wanted <= self.core.limits.partial_free:
            wanted = 0
        if wanted != self.partial_size and not self.core.reserve_partial(self, wanted):
            self.hold(HOLD_PARTIAL)
            self.core.later(0.25, self._retry_partial, wanted)

    def _retry_partial(self, wanted: int) -> None:
        if self.phase is not Phase.OPEN:
            return
        if self.core.reserve_partial(self, wanted):
            self.release(HOLD_PARTIAL)
        elif self.phase is Phase.OPEN:
            self.core.later(0.25, self._retry_partial, wanted)
