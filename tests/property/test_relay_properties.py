"""The relay as a whole, in memory: whatever stalls, ends or comes back, no frame is lost or sent twice."""

from collections import Counter
from typing import Final

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keys.identity import PublicIdentity
from relay.limits import KIB, Limits
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, hang_up_all, identity
from wire import commands as c
from wire.session import TALKING

LIMITS: Final = Limits(
    flush_size=2 * KIB,
    queue_size=8 * KIB,
    queue_share=1 * KIB,
    queue_total=10 * KIB,
    refusals_waiting=4,
    presence_burst=2,
    handshakes_per_second=0,
)
"""Bounds that a few frames reach."""

PEOPLE: Final = 3
SIZES: Final = (112, 133, 134, 700, 1500, 9000)

people: Final = st.integers(0, PEOPLE - 1)
bursts: Final = st.tuples(st.sampled_from(SIZES), st.sampled_from((1, 1, 2, 5, 30)))


class Sent:
    """What a client sent to whom, and how much it had heard by then."""

    def __init__(self, recipient: PublicIdentity, heard: int, *, watched: bool) -> None:
        self.recipient = recipient
        self.heard = heard
        self.watched = watched


class NothingVanishes(RuleBasedStateMachine):
    """Three people, each of whom connects, sends, stalls, resumes, vanishes and comes back at any time."""

    def __init__(self) -> None:
        super().__init__()
        # Each look at the clock of the slices costs a quarter of one: work is cut up as it is under load.
        self.lab = Lab(LIMITS, unit=0.001)
        self.peers: list[Peer] = []
        self.now: dict[int, Peer] = {}
        self.sent: dict[Peer, dict[bytes, Sent]] = {}
        self.watching: dict[Peer, set[bytes]] = {}

    @initialize(watching=st.booleans(), stalled=st.sets(people))
    def begin(self, *, watching: bool, stalled: set[int]) -> None:
        """Let everybody be there from the start, so that little of what follows comes to nothing."""
        for who in range(PEOPLE):
            self.connect(who, answers=True, at_once=False)
        for who in range(PEOPLE):
            if watching:
                self.subscribe(who, set(range(PEOPLE)))
            if who in stalled:
                self.lab.run()
                self.stall(who, 0)
        self.lab.run()

    # --- What people do ----------------------------------------------------------------------------------------------

    @rule(who=people, answers=st.booleans(), at_once=st.booleans())
    def connect(self, who: int, *, answers: bool, at_once: bool) -> None:
        """Connect, perhaps while an older connection of the same keys is there."""
        peer = self.lab.peer(identity(who)).open()
        peer.answers_pings = answers
        self.peers.append(peer)
        self.now[who] = peer
        self.sent[peer] = {}
        self.watching[peer] = set()
        if not at_once:
            self.lab.run()

    @rule(who=people, to=people, burst=bursts, one_chunk=st.booleans())
    def send(self, who: int, to: int, burst: tuple[int, int], *, one_chunk: bool) -> None:
        """Send frames, perhaps to oneself, perhaps to somebody who is not there."""
        peer = self.now.get(who)
        if peer is None or not self.open(peer):
            return
        size, count = burst
        recipient = identity(to)
        heard = len(peer.presence)
        if one_chunk and size * count < 64 * KIB:
            nonces = peer.send_many(recipient.id, count, size)
        else:
            nonces = [peer.send(recipient.id, size) for _ in range(count)]
        watched = recipient.public.x_pub in self.watching[peer]
        self.sent[peer] |= {nonce: Sent(recipient.public, heard, watched=watched) for nonce in nonces}

    @rule(who=people, to=people, burst=bursts, window=st.sampled_from((0, 1, 1500)))
    def flood(self, who: int, to: int, burst: tuple[int, int], window: int) -> None:
        """Send to somebody who takes little."""
        self.stall(to, window)
        self.send(who, to, burst, one_chunk=False)
        self.lab.run()

    @rule(who=people, whom=st.sets(people, min_size=1))
    def subscribe(self, who: int, whom: set[int]) -> None:
        peer = self.now.get(who)
        if peer is not None and self.open(peer):
            x_pubs = [identity(each).public.x_pub for each in sorted(whom)]
            peer.say(c.Subscribe.of(x_pubs))
            self.watching[peer] |= set(x_pubs)

    @rule(who=people, window=st.sampled_from((0, 1, 50, 1000, 3000)))
    def stall(self, who: int, window: int) -> None:
        """Take so many bytes more and then none."""
        if who in self.now:
            self.now[who].stall(window)

    @rule(who=people, size=st.sampled_from((1, 200, 2500)))
    def take(self, who: int, size: int) -> None:
        """Take some bytes more."""
        if who in self.now and self.now[who].transport.window == 0:
            self.now[who].transport.take(size)

    @rule(who=people)
    def resume(self, who: int) -> None:
        if who in self.now:
            self.now[who].resume()

    @rule(who=people, how=st.sampled_from(("die", "die at write", "close", "hang up")))
    def leave(self, who: int, how: str) -> None:
        peer = self.now.get(who)
        if peer is None or peer.over:
            return
        event(f"left: {how}")
        if how == "die":
            peer.transport.die(OSError("gone"))
        elif how == "die at write":
            peer.transport.dies_at_write = True
        elif how == "close":
            peer.close()
        else:
            peer.transport.hang_up()

    # --- Time --------------------------------------------------------------------------------------------------------

    @rule(turns=st.integers(1, 3))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.lab.loop.turn()

    @rule()
    def run_loop(self) -> None:
        self.lab.run()

    @rule(seconds=st.sampled_from((1, 3, 31)))
    def tick(self, seconds: int) -> None:
        self.lab.tick(seconds)

    # --- What holds --------------------------------------------------------------------------------------------------

    @invariant()
    def the_budget_adds_up(self) -> None:
        budget = self.lab.core.budget
        assert budget.used == sum(outbox.granted for outbox in budget.stalled)
        for outbox in budget.stalled:
            assert outbox.granted >= outbox.untaken

    @rule()
    def settle(self) -> None:
        """Let everybody read again and time pass: now every frame has come to its end, and who is there is known."""
        for peer in self.peers:
            if not peer.transport.dies_at_write:
                peer.resume()
        for _ in range(4):
            self.lab.tick(15)
        budget = self.lab.core.budget
        assert budget.used <= LIMITS.queue_total
        given = Counter(nonce for peer in self.peers for nonce in peer.written)
        assert max(given.values(), default=1) == 1
        for peer in self.peers:
            self.check_frames(peer, given)
            if self.open(peer):
                self.check_presence(peer)

    def check_frames(self, peer: Peer, given: Counter[bytes]) -> None:
        sent = self.sent[peer]
        refused = Counter(peer.nacked)
        assert max(refused.values(), default=1) == 1
        assert not any(nonce in given for nonce in refused)
        assert refused.keys() <= sent.keys()
        if self.open(peer):
            assert sum(given[nonce] + refused[nonce] for nonce in sent) == len(sent)
        for other in self.peers:
            came = [nonce for nonce in other.written if nonce in sent]
            assert all(sent[nonce].recipient == other.public for nonce in came)
            # The nonces are numbers that count up.
            assert came == sorted(came)

    def check_presence(self, peer: Peer) -> None:
        told = peer.presence
        last = {x_pub: online for online, x_pub in told}
        for x_pub in self.watching[peer]:
            online = self.lab.core.hub.online(x_pub) is not None
            assert last.get(x_pub, False) == online
        for nonce in peer.nacked:
            sent = self.sent[peer][nonce]
            x_pub = sent.recipient.x_pub
            if sent.watched and self.lab.core.hub.online(x_pub) is not None:
                # Only this makes a client send it again.
                assert (True, x_pub) in told[sent.heard :]

    @staticmethod
    def open(peer: Peer) -> bool:
        """Whether the client has a session that goes on."""
        _ = peer.said
        return peer.session.phase is Phase.OPEN and peer.wire.state in TALKING and not peer.transport.is_closing()

    def teardown(self) -> None:
        if not self.peers:
            return
        self.settle()
        counters = self.lab.core.counters
        for reasons in (+Counter(counters.refusals), +Counter(counters.endings)):
            for reason in reasons:
                event(str(reason))
        hang_up_all(self.peers)
        self.lab.run()
        for _ in range(3):
            self.lab.tick(10)
        self.lab.check_empty()


TestNothingVanishes = NothingVanishes.TestCase
TestNothingVanishes.settings = settings(
    deadline=None, max_examples=150, stateful_step_count=30, suppress_health_check=list(HealthCheck)
)
