"""Sessions: every cell of the table, and conversations of both ends in memory."""

from collections import deque
from collections.abc import Callable
from typing import Final

import pytest

from keys.errors import BadKey
from keys.identity import SERVER_ID, PublicIdentity
from keys.packet import seal
from tests.wire.pair import ALICE, BOB, SERVER, Counted, Pair, Set, drawn, from_client, from_server, relayed
from wire import commands as c
from wire import frames
from wire.errors import BadBody, BadFrame, LocalError, NotNow
from wire.inner import Inner
from wire.session import (
    INITIAL,
    TALKING,
    TRANSITIONS,
    ClientSession,
    PeerFrame,
    Role,
    ServerSession,
    State,
    Step,
)

# --- Every cell of the table ----------------------------------------------------------------------------------------

Session = ClientSession | ServerSession

HELLO: Final = ClientSession(ALICE, SERVER.public, random=Counted("hello")).hello()
OK: Final = from_server(b"\x00\x00\x02\x02")
ID_IN_USE: Final = from_server(b"\x00\x00\xff\x01")


def client(step: Callable[[ClientSession], object]) -> Callable[[Session], object]:
    def take(session: Session) -> object:
        assert isinstance(session, ClientSession)
        return step(session)

    return take


def server(step: Callable[[ServerSession], object]) -> Callable[[Session], object]:
    def take(session: Session) -> object:
        assert isinstance(session, ServerSession)
        return step(session)

    return take


STEPS: Final[dict[Role, dict[Step, Callable[[Session], object]]]] = {
    Role.CLIENT: {
        Step.HELLO: client(ClientSession.hello),
        Step.ACCEPT: client(lambda session: session.receive(OK)),
        Step.REFUSE: client(lambda session: session.receive(ID_IN_USE)),
        Step.CLOSE: client(ClientSession.close),
    },
    Role.SERVER: {
        Step.HELLO: server(lambda session: session.receive_hello(HELLO)),
        Step.ACCEPT: server(ServerSession.accept),
        Step.REFUSE: server(lambda session: session.refuse(c.IdInUse())),
        Step.FRESH: server(ServerSession.prove),
        Step.CLOSE: server(ServerSession.close),
    },
}
"""How each step is taken through the API. No client has a FRESH step: it does not judge freshness."""


def new(role: Role) -> Session:
    return ClientSession(ALICE, SERVER.public) if role is Role.CLIENT else ServerSession(SERVER)


def paths(role: Role) -> dict[State, list[Step]]:
    """Return the shortest way from the initial state to each that can be reached."""
    found: dict[State, list[Step]] = {INITIAL[role]: []}
    queue = deque(found)
    while queue:
        state = queue.popleft()
        for step, after in TRANSITIONS[role][state].items():
            if after not in found:
                found[after] = [*found[state], step]
                queue.append(after)
    return found


def session_in(role: Role, state: State) -> Session:
    session = new(role)
    for step in paths(role)[state]:
        STEPS[role][step](session)
    assert session.state is state
    return session


CELLS: Final = [(role, state, step) for role in Role for state in TRANSITIONS[role] for step in STEPS[role]]


@pytest.mark.parametrize(("role", "state", "step"), CELLS, ids=lambda value: value.value)
def test_cell(role: Role, state: State, step: Step) -> None:
    session = session_in(role, state)
    after = TRANSITIONS[role][state].get(step)
    if after is not None:
        STEPS[role][step](session)
        assert session.state is after
    elif (role, state, step) == (Role.CLIENT, State.OPEN, Step.REFUSE):
        # After the handshake an ERROR is news (somebody is offline), and refuses nothing.
        assert STEPS[role][step](session) == c.IdInUse()
        assert session.state is State.OPEN
    else:
        # What we ask for is our bug; what they send is their violation.
        theirs = step is Step.HELLO if role is Role.SERVER else step in {Step.ACCEPT, Step.REFUSE}
        with pytest.raises(NotNow if theirs else LocalError):
            STEPS[role][step](session)
        assert session.state is state


@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
def test_the_table_is_whole(role: Role) -> None:
    table = TRANSITIONS[role]
    assert set(paths(role)) == set(table), "a state without a way to it, or without a row"
    assert {step for row in table.values() for step in row} == set(STEPS[role])


@pytest.mark.parametrize("role", Role, ids=lambda role: role.value)
def test_what_the_table_promises(role: Role) -> None:
    table = TRANSITIONS[role]
    assert set(table[State.CLOSED].values()) == set(table[State.REFUSED].values()) == {State.CLOSED}
    for state, row in table.items():
        assert row[Step.CLOSE] is State.CLOSED
        for step, after in row.items():
            assert after is not INITIAL[role], "a session has one handshake"
            if after in TALKING and state not in TALKING:
                assert step is Step.ACCEPT, "nobody talks who was not accepted"
            if state in TALKING and step is not Step.CLOSE:
                assert after in TALKING, "nobody is refused who was accepted"
            assert (after is State.PROVEN) == (step is Step.FRESH)


SILENT: Final = [(role, state) for role in Role for state in TRANSITIONS[role] if state not in TALKING]


@pytest.mark.parametrize(("role", "state"), SILENT, ids=lambda value: value.value)
def test_before_and_after_a_session_nothing_is_said(role: Role, state: State) -> None:
    session = session_in(role, state)
    if isinstance(session, ClientSession):
        with pytest.raises(LocalError):
            session.command(c.Subscribe(()))
        with pytest.raises(LocalError):
            session.send(BOB.id, bytes(200))
        for frame in (from_server(b"\x00\x00\x4a"), Pair.opened().server.mask_out.xor(BOB.id, bytes(24)) + bytes(104)):
            with pytest.raises(NotNow):
                session.receive(frame)
    else:
        with pytest.raises(LocalError):
            session.seal(c.ServerPing())
        with pytest.raises(LocalError):
            session.challenge()
        with pytest.raises(NotNow):
            session.open_command(from_client(b"\x00\x00\x40"))
    assert session.state is state


# --- The handshake --------------------------------------------------------------------------------------------------


def test_a_conversation() -> None:
    pair = Pair()
    hello = pair.server.receive_hello(pair.client.hello())
    assert hello.public == pair.server.peer == ALICE.public
    assert hello.version == 2
    assert pair.client.receive(pair.server.accept()) == c.HandshakeOk(2)
    assert (pair.client.state, pair.server.state) == (State.OPEN, State.UNPROVEN)

    assert pair.say(c.Subscribe((BOB.public.x_pub,))) == c.Subscribe((BOB.public.x_pub,))
    assert pair.tell(c.PeerOnline((BOB.public.x_pub,))) == c.PeerOnline((BOB.public.x_pub,))
    assert pair.tell(c.RecipientOffline(BOB.id, bytes(24))) == c.RecipientOffline(BOB.id, bytes(24))
    assert pair.client.state is State.OPEN
    assert pair.say(c.Unknown(0x7F, b"new")) == c.Unknown(0x7F, b"new")
    assert pair.tell(c.Unknown(0x7F, b"new")) == c.Unknown(0x7F, b"new")

    pair.client.close()
    pair.server.close()
    assert pair.client.state is pair.server.state is State.CLOSED


def test_a_packet_goes_through_untouched() -> None:
    alice, bob = Pair.opened(ALICE), Pair.opened(BOB)
    packet = seal(b"\x01\x00\x20text", ALICE, ALICE.shared_with(BOB.public.x_pub))
    assert bob.client.receive(relayed(alice, bob, alice.client.send(BOB.id, packet))) == PeerFrame(ALICE.id, packet)


def test_message_ids_count_and_wrap() -> None:
    random = Set()
    session = ClientSession(ALICE, SERVER.public, random=random)
    relay = ServerSession(SERVER)
    relay.receive_hello(session.hello())
    session.receive(relay.accept())

    def next_id() -> int:
        _, packet = frames.parse_frame(relay.mask_in, session.command(c.Unknown(0x7F, b"")))
        return frames.open_server_packet(packet, ALICE.public.ed_pub, SERVER.shared_with(ALICE.public.x_pub)).message_id

    assert [next_id() for _ in range(3)] == [1, 2, 3], "the handshake request was 0"
    for before, after in ((0xFF, 0x100), (0x7FFF, 0x8000), (0xFFFF, 0)):
        session._message_id = before
        assert [next_id() for _ in range(2)] == [before, after]


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_an_acceptance_with_another_version(version: int) -> None:
    pair = Pair()
    pair.client.hello()
    with pytest.raises(BadBody):
        pair.client.receive(from_server(b"\x00\x00\x02" + bytes((version,))))
    assert pair.client.state is State.AWAITING


@pytest.mark.parametrize(
    "error", [c.IdInUse(), c.BadVersion(3), c.NotAdmitted("why"), c.UnknownError(0x77, b"why"), c.UnknownError(0, b"")]
)
def test_a_refusal(error: c.ErrorBody) -> None:
    pair = Pair()
    pair.server.receive_hello(pair.client.hello())
    assert pair.client.receive(pair.server.refuse(error)) == error
    assert (pair.client.state, pair.server.state) == (State.REFUSED, State.REFUSED)


BEFORE_THE_ANSWER: Final = {
    "presence": b"\x00\x00\x42",
    "a ping": b"\x00\x00\x4a",
    "a challenge": b"\x00\x00\x4c" + bytes(32),
    "a notice": b"\x00\x00\x88hello",
    "an unknown command": b"\x00\x00\x7f",
    "a handshake request": b"\x00\x00\x01" + ALICE.public.ed_pub + b"\x02",
}


@pytest.mark.parametrize("plaintext", BEFORE_THE_ANSWER.values(), ids=BEFORE_THE_ANSWER.keys())
def test_the_relay_says_nothing_before_its_answer(plaintext: bytes) -> None:
    pair = Pair()
    pair.client.hello()
    with pytest.raises(NotNow):
        pair.client.receive(from_server(plaintext))
    assert pair.client.state is State.AWAITING
    assert pair.client.receive(OK) == c.HandshakeOk()


def test_no_peer_is_heard_before_the_answer() -> None:
    pair = Pair()
    pair.server.receive_hello(pair.client.hello())
    with pytest.raises(NotNow):
        pair.client.receive(frames.build_frame(pair.server.mask_out, BOB.id, bytes(200)))
    assert pair.client.state is State.AWAITING


def test_a_second_handshake() -> None:
    pair = Pair.opened()
    with pytest.raises(NotNow):
        pair.client.receive(OK)
    again = c.HandshakeRequest(ALICE.public.ed_pub)
    with pytest.raises(LocalError):
        pair.client.command(again)
    with pytest.raises(NotNow):
        pair.server.open_command(from_client(Inner(0, again.command, again.encode()).encode()))
    with pytest.raises(NotNow):
        pair.server.receive_hello(HELLO)
    assert (pair.client.state, pair.server.state) == (State.OPEN, State.UNPROVEN)


def test_a_hello_that_does_not_open_leaves_the_session_waiting() -> None:
    session = ServerSession(SERVER)
    with pytest.raises(BadFrame):
        session.receive_hello(HELLO[:-1] + bytes((HELLO[-1] ^ 1,)))
    assert session.state is State.AWAITING


def test_an_answer_signed_by_somebody_else() -> None:
    """Whoever holds the client's or the relay's X secret alone cannot speak as the relay."""
    pair = Pair()
    pair.server.receive_hello(pair.client.hello())
    packet = seal(b"\x00\x00\x02\x02", BOB, SERVER.shared_with(ALICE.public.x_pub))
    with pytest.raises(BadFrame):
        pair.client.receive(frames.build_frame(pair.server.mask_out, SERVER_ID, packet))
    assert pair.client.state is State.AWAITING


def test_what_a_client_says_cannot_be_turned_back_to_it() -> None:
    """Both directions share one secret; the signature tells them apart."""
    pair = Pair.opened()
    _, packet = pair.at_relay(pair.client.command(c.Unknown(0x4A, b"")))
    with pytest.raises(BadFrame):
        pair.client.receive(frames.build_frame(pair.server.mask_out, SERVER_ID, packet))


def test_a_command_of_another_client() -> None:
    pair = Pair.opened(ALICE)
    other = Pair.opened(BOB)
    _, packet = other.at_relay(other.client.command(c.Subscribe(())))
    with pytest.raises(BadFrame):
        pair.server.open_command(packet)


@pytest.mark.parametrize(
    ("plaintext", "error"),
    [(b"", BadFrame), (b"\x00\x00", BadFrame), (b"\x00\x00\x40\x00", BadBody), (b"\x00\x00\x01", BadBody)],
)
def test_a_command_that_opens_to_nonsense(plaintext: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        Pair.opened().server.open_command(from_client(plaintext))


@pytest.mark.parametrize(
    ("plaintext", "error"),
    [(b"", BadFrame), (b"\x00\x00", BadFrame), (b"\x00\x00\xff", BadBody), (b"\x00\x00\x42\x00", BadBody)],
)
def test_an_answer_that_opens_to_nonsense(plaintext: bytes, error: type[Exception]) -> None:
    pair = Pair()
    pair.client.hello()
    with pytest.raises(error):
        pair.client.receive(from_server(plaintext))
    assert pair.client.state is State.AWAITING


def test_a_client_does_not_send_to_the_zero_id() -> None:
    with pytest.raises(LocalError):
        Pair.opened().client.send(SERVER_ID, bytes(200))


@pytest.mark.parametrize("size", [103, 2**20 - 7])
def test_a_client_does_not_send_what_no_relay_takes(size: int) -> None:
    with pytest.raises(LocalError):
        Pair.opened().client.send(BOB.id, bytes(size))


def test_a_client_is_not_its_own_relay() -> None:
    with pytest.raises(BadKey):
        ClientSession(SERVER, SERVER.public)


def test_a_pinned_key_of_low_order() -> None:
    order_8 = bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")
    with pytest.raises(BadKey):
        ClientSession(ALICE, PublicIdentity(order_8, SERVER.public.ed_pub))


# --- Freshness ------------------------------------------------------------------------------------------------------


def challenge(pair: Pair) -> bytes:
    body = pair.client.receive(pair.server.challenge())
    assert isinstance(body, c.Challenge)
    return body.random


def proof(pair: Pair, random: bytes) -> bool:
    body = pair.say(c.Proof(random))
    assert isinstance(body, c.Proof)
    return pair.server.check_proof(body)


def test_a_proof() -> None:
    pair = Pair.opened()
    assert [pair.server.proven, proof(pair, challenge(pair)), pair.server.proven] == [False, True, True]
    assert pair.server.state is State.PROVEN


def test_a_challenge_is_what_the_source_gave() -> None:
    pair = Pair.opened()
    pair.server._random = drawn(b"\x07" * 32, bytes(24))
    assert challenge(pair) == b"\x07" * 32


def test_a_proof_without_a_challenge() -> None:
    for random in (bytes(32), b"\x07" * 32):
        pair = Pair.opened()
        assert not proof(pair, random)
        assert not pair.server.proven


def test_a_wrong_proof_uses_the_challenge_up() -> None:
    pair = Pair.opened()
    random = challenge(pair)
    assert not proof(pair, random[:-1] + bytes((random[-1] ^ 1,)))
    assert not proof(pair, random)
    assert not pair.server.proven
    assert proof(pair, challenge(pair))


def test_a_proof_counts_once() -> None:
    pair = Pair.opened()
    random = challenge(pair)
    assert proof(pair, random)
    assert not proof(pair, random)
    assert pair.server.proven, "what was proven stays so"


def test_the_last_challenge_counts() -> None:
    pair = Pair.opened()
    first, second = challenge(pair), challenge(pair)
    assert first != second
    assert not proof(pair, first)
    pair = Pair.opened()
    first, second = challenge(pair), challenge(pair)
    assert proof(pair, second)


def test_a_proof_of_another_session() -> None:
    one, other = Pair.opened(), Pair.opened()
    challenge(other)
    other.server._random = drawn(b"\x07" * 32, bytes(24))
    random = challenge(other)
    challenge(one)
    assert not proof(one, random)


def test_a_nonce_never_seen_proves_too() -> None:
    pair = Pair.opened()
    pair.server.prove()
    assert pair.server.proven
    pair.server.prove()
    assert pair.server.proven


def test_no_proof_after_the_end() -> None:
    pair = Pair.opened()
    random = challenge(pair)
    pair.server.close()
    with pytest.raises(LocalError):
        pair.server.check_proof(c.Proof(random))
    assert not pair.server.proven


# --- What is shown --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "state"), [(role, state) for role in Role for state in TRANSITIONS[role]])
def test_repr_shows_the_state_and_nothing_else(role: Role, state: State) -> None:
    session = session_in(role, state)
    kind = "ClientSession" if role is Role.CLIENT else "ServerSession"
    assert repr(session) == str(session) == f"{kind}({state.value})"


def test_repr_of_a_peers_frame() -> None:
    assert repr(PeerFrame(b"SECRETID", b"SECRET")) == "PeerFrame()"
