"""What holds for all bytes and all commands, not for chosen ones."""

from collections.abc import Callable
from typing import Final, TypeVar, get_args

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keys.errors import OpenError
from keys.identity import SERVER_ID
from keys.packet import open_packet, seal
from tests.property.wire_strategies import (
    FROM_CLIENT,
    FROM_SERVER,
    PATIENT,
    client_commands,
    coded_bodies,
    errors,
    handshake_oks,
    handshake_requests,
    packets,
    peer_ids,
    plaintexts,
    server_commands,
    some_bytes,
)
from tests.wire.pair import ALICE, BOB, REQUEST, SERVER, Counted, Pair, forged_hello, from_client, from_server
from wire import commands as c
from wire import frames, mask
from wire.errors import BadFrame, LocalError, NotNow, WireError
from wire.frames import Hello
from wire.inner import Inner, parse_inner
from wire.session import TALKING, TRANSITIONS, ClientSession, PeerFrame, Role, ServerSession, State

T = TypeVar("T")


SHARED: Final = ALICE.shared_with(SERVER.public.x_pub)
TO_SERVER: Final = mask.client_to_server(SHARED)
TO_CLIENT: Final = mask.server_to_client(SHARED)


def value_or_wire_error(parse: Callable[[], T]) -> T | None:
    """Return what `parse` gives, or None for a WireError; whatever else it raises fails the test."""
    try:
        value = parse()
    except WireError as error:
        event(type(error).__name__)
        # A traceback of ours would show the cause, and causes hold what was sent.
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__
        return None
    event(type(value).__name__)
    return value


def flipped(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit turned over."""
    at, mask_ = divmod(bit % (len(data) * 8), 8)
    return data[:at] + bytes((data[at] ^ 1 << mask_,)) + data[at + 1 :]


def client_in(state: State) -> ClientSession:
    session = ClientSession(ALICE, SERVER.public)
    session.state = state
    return session


def server_in(state: State) -> ServerSession:
    session = Pair.opened().server
    session.state = state
    return session


CLIENTS: Final = {state: client_in(state) for state in TRANSITIONS[Role.CLIENT]}
SERVERS: Final = {state: server_in(state) for state in TRANSITIONS[Role.SERVER]}


# --- Any bytes give a value or a WireError --------------------------------------------------------------------------


@PATIENT
@given(some_bytes | some_bytes.map(lambda tail: ALICE.public.x_pub + tail))
def test_any_bytes_as_a_handshake(data: bytes) -> None:
    assert value_or_wire_error(lambda: frames.parse_handshake(data, SERVER)) is None


@PATIENT
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=50))
def test_any_key_before_a_handshake(x_pub: bytes, tail: bytes) -> None:
    value_or_wire_error(lambda: ServerSession(SERVER).receive_hello(x_pub + bytes(136) + tail))


request_like: Final = st.builds(
    lambda message_id, code, ed_pub, tail: message_id + bytes((code,)) + ed_pub + tail,
    st.binary(min_size=2, max_size=2),
    st.sampled_from([1, 1, 1, 2, 0x40]),
    st.sampled_from([ALICE.public.ed_pub, ALICE.public.ed_pub, ALICE.public.ed_pub[:-1], BOB.public.ed_pub]),
    st.binary(max_size=4),
)


@settings(PATIENT, max_examples=300)
@given(st.booleans().flatmap(lambda near: request_like if near else plaintexts))
@example(b"\0\0\1" + ALICE.public.ed_pub)
@example(b"\0\0\1" + REQUEST)
@example(b"\0\0\1" + REQUEST + b"more")
def test_any_bytes_sealed_as_a_handshake(plaintext: bytes) -> None:
    hello = value_or_wire_error(lambda: ServerSession(SERVER).receive_hello(forged_hello(plaintext)))
    if hello is not None:
        assert hello.public == ALICE.public
        # What opened says nothing but what the request says, up to what a later version may append.
        assert plaintext[2:36] == b"\x01" + c.HandshakeRequest(ALICE.public.ed_pub, hello.version).encode()


@PATIENT
@given(some_bytes)
def test_any_bytes_as_a_frame(data: bytes) -> None:
    parsed = value_or_wire_error(lambda: frames.parse_frame(TO_SERVER, data))
    assert (parsed is not None) == (len(data) >= 112)
    if parsed is not None:
        assert frames.build_frame(TO_SERVER, *parsed) == data


@PATIENT
@given(st.binary(max_size=100))
def test_any_bytes_as_an_inner(data: bytes) -> None:
    inner = value_or_wire_error(lambda: parse_inner(data))
    assert (inner is not None) == (len(data) >= 3)
    if inner is not None:
        assert inner.encode() == data


# How many bytes of each body are looked at, where more may follow. Every other body that parses is its own encoding.
LENIENT: Final[dict[type[c.Body], int]] = {
    c.HandshakeRequest: 33,  # a later version may append
    c.HandshakeOk: 1,
    c.Wake: 9,  # forwarded cut
    c.ServerPing: 0,
    c.Restarting: 4,
    c.IdInUse: 1,
    c.BadVersion: 2,
    c.RecipientOffline: 33,
}


def assert_not_malleable(body: c.Body, data: bytes) -> None:
    """A body that parsed is encoded as it came, except that bytes beyond the layout of a lenient one are dropped."""
    looked_at = LENIENT.get(type(body))
    assert body.encode() == (data if looked_at is None else data[:looked_at])


@settings(PATIENT, max_examples=1000)
@given(coded_bodies)
def test_any_bytes_as_a_body_from_a_client(coded_body: tuple[int, bytes]) -> None:
    code, data = coded_body
    body = value_or_wire_error(lambda: c.parse_from_client(code, data))
    if body is not None:
        assert isinstance(body, get_args(c.ClientBody))
        assert isinstance(body, c.Unknown) == (code not in FROM_CLIENT)
        assert body.command == code
        assert_not_malleable(body, data)


@settings(PATIENT, max_examples=1000)
@given(coded_bodies)
def test_any_bytes_as_a_body_from_the_server(coded_body: tuple[int, bytes]) -> None:
    code, data = coded_body
    body = value_or_wire_error(lambda: c.parse_from_server(code, data))
    if body is not None:
        assert isinstance(body, get_args(c.ServerBody))
        assert isinstance(body, c.Unknown) == (code not in FROM_SERVER)
        assert body.command == code
        assert_not_malleable(body, data)


@pytest.mark.parametrize("state", TRANSITIONS[Role.SERVER], ids=lambda state: state.value)
@settings(PATIENT, max_examples=300)
@given(data=some_bytes, plaintext=plaintexts)
def test_any_bytes_for_a_server_session(state: State, data: bytes, plaintext: bytes) -> None:
    session = SERVERS[state]
    assert value_or_wire_error(lambda: session.open_command(data)) is None
    body = value_or_wire_error(lambda: session.open_command(from_client(plaintext)))
    if body is not None:
        assert state in TALKING
        assert not isinstance(body, c.HandshakeRequest)
        assert_not_malleable(body, plaintext[3:])
    assert session.state is state, "no command moves a session by itself"
    if state is not State.AWAITING:
        assert value_or_wire_error(lambda: session.receive_hello(forged_hello(b"\0\0\1" + REQUEST))) is None
        assert session.state is state


@pytest.mark.parametrize("state", TRANSITIONS[Role.CLIENT], ids=lambda state: state.value)
@settings(PATIENT, max_examples=300)
@given(data=some_bytes, plaintext=plaintexts, answer=st.none() | handshake_oks | errors)
def test_any_bytes_for_a_client_session(
    state: State, data: bytes, plaintext: bytes, answer: c.HandshakeOk | c.ErrorBody | None
) -> None:
    session = CLIENTS[state]
    session.state = state  # one that an example moved on is put back
    received = value_or_wire_error(lambda: session.receive(data))
    assert session.state is state
    if received is not None:
        assert state in TALKING
        assert received == PeerFrame(frames.parse_frame(TO_CLIENT, data)[0], data[8:])
    if answer is not None:
        plaintext = Inner(0, answer.command, answer.encode()).encode()
    body = value_or_wire_error(lambda: session.receive(from_server(plaintext)))
    after = session.state
    if body is None:
        assert after is state, "a frame that is refused moves nothing"
    elif state is State.AWAITING:
        assert isinstance(body, c.HandshakeOk | c.ErrorBody)
        assert after is (State.OPEN if isinstance(body, c.HandshakeOk) else State.REFUSED)
    else:
        assert state in TALKING
        assert after is state
        assert not isinstance(body, c.HandshakeOk)
        assert not isinstance(body, PeerFrame)
        assert_not_malleable(body, plaintext[3:])


# --- What is said is what is heard ----------------------------------------------------------------------------------


@PATIENT
@given(st.lists(client_commands, min_size=1, max_size=5))
def test_everything_a_client_says_is_heard(bodies: list[c.ClientBody]) -> None:
    pair = Pair.opened()
    assert [pair.say(body) for body in bodies] == bodies


@PATIENT
@given(st.lists(server_commands, min_size=1, max_size=5))
def test_everything_the_server_says_is_heard(bodies: list[c.ServerBody]) -> None:
    pair = Pair.opened()
    assert [pair.tell(body) for body in bodies] == bodies


@PATIENT
@given(errors)
def test_every_refusal_is_heard(error: c.ErrorBody) -> None:
    pair = Pair()
    pair.server.receive_hello(pair.client.hello())
    assert pair.client.receive(pair.server.refuse(error)) == error


@PATIENT
@given(handshake_requests, handshake_oks)
def test_handshakes_of_any_version_parse(request: c.HandshakeRequest, answer: c.HandshakeOk) -> None:
    assert c.parse_from_client(request.command, request.encode()) == request
    assert c.parse_from_server(answer.command, answer.encode()) == answer
    frame = frames.build_handshake(ALICE, SHARED, version=request.version)
    assert frames.parse_handshake(frame, SERVER) == Hello(ALICE.public, SHARED, frame[32:56], request.version)


@PATIENT
@given(peer_ids, packets)
def test_every_packet_passes_untouched(party_id: bytes, packet: bytes) -> None:
    pair = Pair.opened()
    assert pair.at_relay(pair.client.send(party_id, packet)) == (party_id, packet)
    assert pair.client.receive(frames.build_frame(pair.server.mask_out, party_id, packet)) == PeerFrame(
        party_id, packet
    )


# --- One bit -----------------------------------------------------------------------------------------------------

HEADER_BITS: Final = (8 + 12) * 8
"""Bits that decide the id: those of the masked header, and of the nonce under which it is masked."""
bits: Final = st.integers(0, 2**16)


@PATIENT
@given(client_commands, bits)
def test_one_bit_of_a_command(body: c.ClientBody, bit: int) -> None:
    pair = Pair.opened()
    frame = pair.client.command(body)
    bit %= len(frame) * 8
    party_id, packet = pair.at_relay(flipped(frame, bit))
    assert (party_id != SERVER_ID) == (bit < HEADER_BITS)
    if bit >= 8 * 8:
        with pytest.raises(BadFrame):
            pair.server.open_command(packet)


@PATIENT
@given(server_commands, bits)
def test_one_bit_of_what_the_server_says(body: c.ServerBody, bit: int) -> None:
    pair = Pair.opened()
    frame = pair.server.seal(body)
    bit %= len(frame) * 8
    if bit < HEADER_BITS:
        received = pair.client.receive(flipped(frame, bit))
        assert isinstance(received, PeerFrame)
        assert received.sender_id != SERVER_ID
        assert received.packet == flipped(frame, bit)[8:]
    else:
        with pytest.raises(BadFrame):
            pair.client.receive(flipped(frame, bit))


def test_every_bit_of_a_handshake() -> None:
    hello = ClientSession(ALICE, SERVER.public, random=Counted("bits")).hello()
    for bit in range(len(hello) * 8):
        session = ServerSession(SERVER)
        with pytest.raises(BadFrame):
            session.receive_hello(flipped(hello, bit))
        assert session.state is State.AWAITING


def test_every_bit_of_an_acceptance() -> None:
    pair = Pair()
    pair.server.receive_hello(pair.client.hello())
    answer = pair.server.accept()
    for bit in range(len(answer) * 8):
        with pytest.raises(NotNow if bit < HEADER_BITS else BadFrame):
            pair.client.receive(flipped(answer, bit))
    assert pair.client.state is State.AWAITING


@PATIENT
@given(st.binary(max_size=40), bits)
def test_one_bit_of_a_peers_frame(plaintext: bytes, bit: int) -> None:
    alice = Pair.opened()
    shared = ALICE.shared_with(BOB.public.x_pub)
    frame = alice.client.send(BOB.id, seal(plaintext, ALICE, shared, Counted("peer")))
    bit %= len(frame) * 8
    party_id, packet = alice.at_relay(flipped(frame, bit))
    assert (party_id != BOB.id) == (bit < HEADER_BITS)
    if bit < 8 * 8:
        assert packet == frame[8:]
    else:
        with pytest.raises(OpenError):
            open_packet(packet, ALICE.public.ed_pub, shared)


# --- Both ends against a model --------------------------------------------------------------------------------------


rarely: Final = st.integers(0, 19).map(lambda n: n == 19)


class Conversation(RuleBasedStateMachine):
    """Both ends say what they may, in any order, over lines that keep the order; a model says what each must hear."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.client, self.server = State.IDLE, State.AWAITING
        self.up: list[tuple[bytes, object]] = []  # frames under way to the relay, and what is to be heard
        self.down: list[tuple[bytes, object]] = []
        self.asked: bytes | None = None  # the challenge that counts
        self.challenges: list[bytes] = []  # those the client has heard

    @initialize(early=st.booleans(), opened=st.integers(0, 3))
    def begin(self, early: bool, opened: int) -> None:
        if early:
            with pytest.raises(LocalError):
                self.pair.client.command(c.Subscribe(()))
        self.up.append((self.pair.client.hello(), "hello"))
        self.client = State.AWAITING
        if opened:  # most conversations shall get far
            self.relay_hears()
            self.accept()
            self.client_hears()

    # What the relay does

    @precondition(lambda self: self.server is State.DECIDING)
    @rule()
    def accept(self) -> None:
        self.down.append((self.pair.server.accept(), c.HandshakeOk()))
        self.server = State.UNPROVEN

    @precondition(lambda self: self.server is State.DECIDING)
    @rule(error=errors, really=rarely)
    def refuse(self, error: c.ErrorBody, really: bool) -> None:
        if not really:
            return
        self.down.append((self.pair.server.refuse(error), error))
        self.server = State.REFUSED

    @precondition(lambda self: self.server in TALKING)
    @rule(body=server_commands)
    def tell(self, body: c.ServerBody) -> None:
        self.down.append((self.pair.server.seal(body), body))

    @precondition(lambda self: self.server in TALKING)
    @rule(sender_id=peer_ids, packet=packets)
    def deliver(self, sender_id: bytes, packet: bytes) -> None:
        frame = frames.build_frame(self.pair.server.mask_out, sender_id, packet)
        self.down.append((frame, PeerFrame(sender_id, packet)))

    @precondition(lambda self: self.server in TALKING)
    @rule()
    def challenge(self) -> None:
        frame = self.pair.server.challenge()
        self.asked = frames.open_server_packet(
            frames.parse_frame(TO_CLIENT, frame)[1], SERVER.public.ed_pub, SHARED
        ).body
        self.down.append((frame, c.Challenge(self.asked)))

    @precondition(lambda self: self.server not in TALKING)
    @rule(body=server_commands)
    def tell_too_early_or_late(self, body: c.ServerBody) -> None:
        with pytest.raises(LocalError):
            self.pair.server.seal(body)

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 8))
    def relay_hears_some(self, count: int) -> None:
        for _ in self.up[:count]:
            self.relay_hears()

    def relay_hears(self) -> None:
        frame, expected = self.up.pop(0)
        server = self.pair.server
        if expected == "hello":
            if self.server is State.CLOSED:
                with pytest.raises(NotNow):
                    server.receive_hello(frame)
                return
            hello = server.receive_hello(frame)
            assert (hello.public, hello.version) == (ALICE.public, 2)
            self.server = State.DECIDING
            return
        party_id, packet = self.pair.at_relay(frame)
        if party_id != SERVER_ID:
            assert (party_id, packet) == expected
            return
        if self.server not in TALKING:
            with pytest.raises(NotNow):
                server.open_command(packet)
            return
        body = server.open_command(packet)
        assert body == expected
        if isinstance(body, c.Proof):
            right = self.asked == body.random
            self.asked = None
            assert server.check_proof(body) == right
            if right:
                self.server = State.PROVEN

    # What the client does

    @precondition(lambda self: self.client is State.OPEN)
    @rule(body=client_commands)
    def say(self, body: c.ClientBody) -> None:
        self.up.append((self.pair.client.command(body), body))

    @precondition(lambda self: self.client is State.OPEN and self.challenges)
    @rule(which=st.integers(0, 2))
    def prove(self, which: int) -> None:
        body = c.Proof(self.challenges[-1 - which % len(self.challenges)])
        self.up.append((self.pair.client.command(body), body))

    @precondition(lambda self: self.client is State.OPEN)
    @rule(recipient_id=peer_ids, packet=packets)
    def send(self, recipient_id: bytes, packet: bytes) -> None:
        self.up.append((self.pair.client.send(recipient_id, packet), (recipient_id, packet)))

    @precondition(lambda self: self.client is not State.OPEN)
    @rule(body=client_commands, recipient_id=peer_ids, packet=packets)
    def say_too_early_or_late(self, body: c.ClientBody, recipient_id: bytes, packet: bytes) -> None:
        with pytest.raises(LocalError):
            self.pair.client.command(body)
        with pytest.raises(LocalError):
            self.pair.client.send(recipient_id, packet)

    @precondition(lambda self: self.down)
    @rule(count=st.integers(1, 8))
    def client_hears_some(self, count: int) -> None:
        for _ in self.down[:count]:
            self.client_hears()

    def client_hears(self) -> None:
        frame, expected = self.down.pop(0)
        client = self.pair.client
        if self.client is State.CLOSED:
            with pytest.raises(NotNow):
                client.receive(frame)
            return
        assert client.receive(frame) == expected
        if self.client is State.AWAITING:
            self.client = State.OPEN if isinstance(expected, c.HandshakeOk) else State.REFUSED
        if isinstance(expected, c.Challenge):
            self.challenges.append(expected.random)

    @precondition(lambda self: self.client is State.OPEN and self.server in TALKING)
    @rule(which=st.integers(0, 2), heard_between=st.booleans(), times=st.integers(1, 2))
    def challenge_and_prove(self, which: int, heard_between: bool, times: int) -> None:
        """The one exchange of several steps in a row, which single steps would seldom make."""
        self.challenge()
        self.client_hears_some(len(self.down))
        for _ in range(times):
            self.prove(which)
            if heard_between:
                self.relay_hears_some(len(self.up))
        self.relay_hears_some(len(self.up))

    # What the network does

    @precondition(lambda self: self.down)
    @rule(bit=bits)
    def client_hears_it_wrong(self, bit: int) -> None:
        frame, expected = self.down[0]
        if isinstance(expected, PeerFrame):
            return  # only the peer's keys can tell
        bit = max(bit % (len(frame) * 8), HEADER_BITS)
        with pytest.raises(WireError):
            self.pair.client.receive(flipped(frame, bit))

    @precondition(lambda self: len(self.down) > 1 and self.client is State.AWAITING)
    @rule()
    def client_hears_the_second_first(self) -> None:
        frame, expected = self.down[1]
        if not isinstance(expected, c.ErrorBody):
            with pytest.raises(NotNow):
                self.pair.client.receive(frame)

    @precondition(lambda self: self.up)
    @rule(bit=bits)
    def relay_hears_it_wrong(self, bit: int) -> None:
        frame, expected = self.up[0]
        bit %= len(frame) * 8
        if expected == "hello":
            with pytest.raises(WireError):
                self.pair.server.receive_hello(flipped(frame, bit))
        else:
            _, packet = self.pair.at_relay(flipped(frame, max(bit, 8 * 8)))
            with pytest.raises(WireError):
                self.pair.server.open_command(packet)

    # Ends

    @rule(really=rarely)
    def client_closes(self, really: bool) -> None:
        if not really:
            return
        self.pair.client.close()
        self.client = State.CLOSED

    @rule(really=rarely)
    def relay_closes(self, really: bool) -> None:
        if not really:
            return
        self.pair.server.close()
        self.server = State.CLOSED

    @invariant()
    def both_stand_where_the_model_says(self) -> None:
        assert self.pair.client.state is self.client
        assert self.pair.server.state is self.server
        assert self.pair.server.proven == (self.server is State.PROVEN)
        assert repr(self.pair.client) == f"ClientSession({self.client.value})"

    def teardown(self) -> None:
        event(f"the client ended {self.client.value}, the relay {self.server.value}")


Conversation.TestCase.settings = settings(PATIENT, max_examples=100, stateful_step_count=50)
TestConversation = Conversation.TestCase
