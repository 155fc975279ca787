"""Frames for the server: the only ones that the relay opens (PROTOCOL.md §7)."""

from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from keys.identity import ID_SIZE
from keys.primitives import NONCE_SIZE
from relay.guard import Allowance, Buckets
from relay.hub import Change
from relay.limits import Limits
from relay.reasons import Held, Refusal
from wire import commands as c
from wire.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.core import Core
    from relay.session import Session

_Pushed = TypeVar("_Pushed", c.Wake, c.PushForward)

_SHARES: Final = 256
"""A session may watch the 1/256 part of the subscriptions that are free, its own included."""


RATES: Final = (
    "introductions",
    "introductions_pair",
    "introductions_target",
    "wakes",
    "wakes_pair",
    "wakes_target",
    "registrations",
)
"""Rates as `Limits.rate` names them: per sender, per sender and target (`_pair`), per target."""


class Control:
    """Obeys the commands of clients."""

    def __init__(self, core: "Core") -> None:
        limits = core.limits
        self._core = core
        keys, random = limits.rate_keys, core.random
        self.rates = {name: Buckets(*limits.rate(name), keys, random) for name in RATES}

    def change(self, limits: Limits) -> None:
        """Go by other limits from now on."""
        for name, buckets in self.rates.items():
            buckets.change(*limits.rate(name), limits.rate_keys)

    def command_received(self, session: "Session", message: bytes) -> None:
        """Take one frame for the server."""
        core = self._core
        core.counters.commands += 1
        limits = core.limits
        if session.commands_left is None:
            session.commands_left = Allowance(limits.commands_per_second, limits.commands_burst, core.clock())
        session.spend(session.commands_left, Held.COMMANDS)
        packet = message[ID_SIZE:]
        wire = session.opened_wire
        try:
            body = wire.open_command(packet)
        except WireError:
            session.malformed_frame()
        else:
            # Remembered only now that the signature was checked: else anybody could fill a ring that is not theirs.
            if not core.commands_seen.first_time(session.public.x_pub, packet[:NONCE_SIZE]):
                self._refused(Refusal.REPLAYED)
            elif isinstance(body, c.Proof):
                wire.check_proof(body)
                # As after the handshake: nearly all go silent now.
                wire.mask_in.rest()
            else:
                # Never seen before: for a client that knows no CHALLENGE this is as fresh as it gets.
                wire.prove()
                self._obey(session, body)

    def expire(self, now: float) -> None:
        """Forget buckets that are full again."""
        for buckets in self.rates.values():
            buckets.forget_full(now)

    def _obey(self, session: "Session", body: c.ClientBody) -> None:
        if isinstance(body, c.Subscribe):
            self._subscribe(session, body)
        elif isinstance(body, c.Unsubscribe):
            self._unsubscribe(session, body)
        elif isinstance(body, c.Introduce):
            self._introduce(session, body)
        elif isinstance(body, c.Wake):
            self._wake(session, body)
        elif isinstance(body, c.PushRegister):
            self._push_register(session, body)
        else:
            self._refused(Refusal.UNKNOWN_COMMAND)

    def _subscribe(self, session: "Session", body: c.Subscribe) -> None:
        core = self._core
        if session.watching is None:
            session.watching = {}
        watching = session.watching
        asked = list(dict.fromkeys(body.x_pubs))
        before = len(watching)
        most = core.limits.subscriptions or before + len(asked)
        total, refusal = core.limits.subscriptions_total, Refusal.TOO_MANY_SUBSCRIPTIONS
        if total:
            # A share of what is free, not of the total: however many take theirs, something is left for the next.
            share = max(0, total - core.subscriptions + before) // _SHARES
            if share < most:
                most, refusal = share, Refusal.SUBSCRIPTIONS_FULL
        refused = 0
        for x_pub in asked:
            if x_pub in watching or len(watching) < most:
                watching[x_pub] = None
            else:
                refused += 1
        core.subscriptions += len(watching) - before
        kept = [x_pub for x_pub in asked if x_pub in watching]
        new = [] if core.cluster is None else [x_pub for x_pub in kept if core.cluster.presence.unknown(x_pub)]
        core.presence.watch(session, kept)
        if core.cluster is None or not new:
            self._tell_online(session, kept)
        else:
            # Told in one go, once all nodes have said whom they have.
            core.cluster.presence.ask(new, partial(self._tell_online, session, kept))
        if refused:
            self._refused(refusal, refused)
            session.send(c.Info(f"This relay tells you of {most} contacts at most; {refused} more are not watched."))

    def _tell_online(self, session: "Session", x_pubs: list[bytes]) -> None:
        watching = session.watching
        if watching is None:
            return
        for x_pub in x_pubs:
            if x_pub in watching and self._core.online(x_pub):
                session.note_presence(x_pub, Change.ONLINE)
        if not session.outbox.stalled:
            session.tell_presence()

    def _unsubscribe(self, session: "Session", body: c.Unsubscribe) -> None:
        watching = session.watching
        if watching is None:
            return
        before = len(watching)
        for x_pub in body.x_pubs:
            watching.pop(x_pub, None)
            if session.presence is not None:
                session.presence.pop(x_pub, None)
        self._core.subscriptions -= before - len(watching)
        self._core.unwatch(session, body.x_pubs)
        if not watching:
            session.watching = None

    def _introduce(self, session: "Session", body: c.Introduce) -> None:
        now = self._core.clock()
        pair = session.id + body.target_id
        if not (
            self.rates["introductions_pair"].allow(pair, now, session.id)
            and self.rates["introductions"].allow(session.id, now, session.id)
        ):
            self._refused(Refusal.RATE)
            return
        target = self._core.sessions.get(body.target_id)
        introduction = c.IntroFrom(session.public.x_pub, session.public.ed_pub, body.nickname)
        if target is not None:
            self.introduced(target, introduction)
        elif self._core.cluster is not None:
            self._core.cluster.parcels.introduce(body.target_id, session.id, introduction.encode())
        else:
            self._refused(Refusal.OFFLINE)

    def introduced(self, target: "Session", introduction: c.IntroFrom) -> None:
        """Pass an introduction to a session of ours, unless it has to bear too many."""
        if not self.rates["introductions_target"].allow(target.id, self._core.clock(), target.id):
            self._refused(Refusal.TARGET_RATE)
        elif not target.send(introduction):
            self._refused(Refusal.RECIPIENT_FULL)
        else:
            self._core.counters.introductions += 1

    def _wake(self, session: "Session", body: c.Wake) -> None:
        core, now = self._core, self._core.clock()
        if not self._may_push():
            return
        target = core.sessions.get(body.target_id)
        if target is not None and self._awake(target, body):
            return
        if not (
            self.rates["wakes_pair"].allow(session.id + body.target_id, now, session.id)
            and self.rates["wakes"].allow(session.id, now, session.id)
        ):
            self._refused(Refusal.RATE)
        elif target is not None or core.cluster is None:
            self.wake_absent(body, session.id)
        else:
            # Whether they are awake is known where they are.
            core.cluster.parcels.wake(body.target_id, session.id, body.encode())

    def _awake(self, target: "Session", body: c.Wake) -> bool:
        core = self._core
        if body.is_message and core.clock() - target.last_in < core.limits.awake_for:
            self._refused(Refusal.TARGET_AWAKE)
            return True
        return False

    def wake_here(self, target: "Session", body: c.Wake, sender_id: bytes) -> None:
        """Pass a WAKE from another node on, if the session of ours that it is for is not awake."""
        if not self._awake(target, body):
            self.wake_absent(body, sender_id)

    def wake_absent(self, body: c.Wake, sender_id: bytes) -> None:
        """Pass a WAKE on to the notifier, wherever that is."""
        self._to_notifier(body, sender_id, self.wake_notifier)

    def wake_notifier(self, notifier: "Session", body: c.Wake) -> None:
        """Give a WAKE to the notifier, who is with us, unless the target has to bear too many."""
        core = self._core
        if not self.rates["wakes_target"].allow(body.target_id + bytes((body.is_message,)), core.clock()):
            # Messages and calls apart: whoever crowds out the ones has not yet silenced the others.
            self._refused(Refusal.TARGET_RATE)
        elif notifier.send(body):
            core.counters.wakes += 1
        else:
            self._refused(Refusal.RECIPIENT_FULL)

    def _push_register(self, session: "Session", body: c.PushRegister) -> None:
        if not self._may_push():
            return
        if not self.rates["registrations"].allow(session.id, self._core.clock(), session.id):
            self._refused(Refusal.RATE)
        else:
            self._to_notifier(c.PushForward(session.id, body.kind, body.token), session.id, self.register_at)

    def register_at(self, notifier: "Session", body: c.PushForward) -> None:
        """Give a registration to the notifier, who is with us."""
        if notifier.send(body):
            self._core.counters.push_registrations += 1
        else:
            self._refused(Refusal.RECIPIENT_FULL)

    def _to_notifier(self, body: _Pushed, sender_id: bytes, here: "Callable[[Session, _Pushed], None]") -> None:
        core = self._core
        notifier = self._notifier()
        if notifier is not None:
            here(notifier, body)
        elif core.cluster is not None and core.notifier_id is not None:
            payload = bytes((body.command,)) + body.encode()
            core.cluster.parcels.notify(core.notifier_id, sender_id, payload)
        else:
            self._refused(Refusal.NO_NOTIFIER)

    def _may_push(self) -> bool:
        """Tell whether there is a notifier, or may be at another node; if not, that is a refusal."""
        core = self._core
        if self._notifier() is None and (core.cluster is None or core.notifier_id is None):
            self._refused(Refusal.NO_NOTIFIER)
            return False
        return True

    def _notifier(self) -> "Session | None":
        core = self._core
        return core.sessions.get(core.notifier_id) if core.notifier_id is not None else None

    def _refused(self, refusal: Refusal, count: int = 1) -> None:
        self._core.counters.refusals[refusal] += count
