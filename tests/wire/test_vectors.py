"""Every entry of the vectors of protocol v2, byte for byte, written and read by both roles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from keys.identity import SERVER_ID, Identity
from keys.invite import Invite
from keys.packet import open_packet, seal
from keys.primitives import HeaderKeystream, random_bytes
from tests.wire.pair import ALICE, BOB, IDENTITIES, NOTIFIER, SERVER, Pair, Set, drawn, relayed
from wire import commands as c
from wire import frames, mask
from wire.inner import Inner, parse_inner
from wire.session import ClientSession, PeerFrame, ServerSession, State

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "v2.json").read_text("utf-8"))


class Entry:
    """One entry, which notes which of its fields were looked at."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._unread = set(fields)

    def text(self, name: str) -> str:
        self._unread.discard(name)
        value = self._fields[name]
        assert isinstance(value, str)
        return value

    def bytes(self, name: str) -> bytes:
        return bytes.fromhex(self.text(name))

    def number(self, name: str) -> int:
        self._unread.discard(name)
        value = self._fields[name]
        assert isinstance(value, int)
        return value

    def assert_all_read(self) -> None:
        assert not self._unread, "fields that no test looks at"


Check = Callable[[Entry], None]
CHECKS: Final[dict[str, Check]] = {}


def checks(name: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        assert name not in CHECKS
        CHECKS[name] = check
        return check

    return register


def entries(value: object) -> list[dict[str, Any]]:
    """Return the entries below one name: itself, the items of a list, or those of a table of tables."""
    if isinstance(value, list):
        return value
    assert isinstance(value, dict)
    if all(isinstance(item, dict) for item in value.values()):
        return [{"owner": name, **item} for name, item in value.items()]
    return [value]


@pytest.mark.parametrize("name", [name for name in VECTORS if name != "note"])
def test_entry(name: str) -> None:
    assert name in CHECKS, "an entry without a check"
    found = entries(VECTORS[name])
    assert found
    for fields in found:
        entry = Entry(fields)
        CHECKS[name](entry)
        entry.assert_all_read()


def test_no_entry_is_gone() -> None:
    assert set(CHECKS) | {"note"} == set(VECTORS)


# --- Keys -----------------------------------------------------------------------------------------------------------


def _check_identity(identity: Identity) -> Check:
    def check(entry: Entry) -> None:
        made = Identity(entry.bytes("x_seed"), entry.bytes("ed_seed"))
        assert made.public == identity.public
        assert made.public.x_pub == entry.bytes("x_pub")
        assert made.public.ed_pub == entry.bytes("ed_pub")
        assert made.id == entry.bytes("id")

    return check


for _name, _identity in IDENTITIES.items():
    CHECKS[_name] = _check_identity(_identity)


@checks("invite")
def check_invite(entry: Entry) -> None:
    nick = entry.text("nick")
    for text, nickname in ((entry.text("alice_no_nick"), ""), (entry.text("alice_nick"), nick)):
        invite = Invite(ALICE.public, nickname)
        assert invite.text == text
        assert Invite.parse(text) == invite


# --- Routing headers ------------------------------------------------------------------------------------------------


@checks("session_keys")
def check_session_keys(entry: Entry) -> None:
    identity = IDENTITIES[entry.text("owner")]
    shared = entry.bytes("shared")
    assert identity.shared_with(SERVER.public.x_pub) == shared
    assert SERVER.shared_with(identity.public.x_pub) == shared
    # The keys themselves are hidden in the keystreams; equal masks under several nonces tell that they are these.
    c2s, s2c = HeaderKeystream(entry.bytes("c2s")), HeaderKeystream(entry.bytes("s2c"))
    for nonce in (bytes(24), bytes(range(24)), b"\xff" * 24):
        assert mask.client_to_server(shared).xor(bytes(8), nonce) == c2s.xor(bytes(8), nonce)
        assert mask.server_to_client(shared).xor(bytes(8), nonce) == s2c.xor(bytes(8), nonce)


@checks("header_mask")
def check_header_mask(entry: Entry) -> None:
    nonce, clear, wire = entry.bytes("nonce"), entry.bytes("clear"), entry.bytes("wire")
    keystream = HeaderKeystream(entry.bytes("key"))
    assert keystream.xor(clear, nonce) == wire
    assert keystream.xor(wire, nonce) == clear
    assert mask.client_to_server(ALICE.shared_with(SERVER.public.x_pub)).xor(clear, nonce) == wire


# --- The handshake --------------------------------------------------------------------------------------------------


@checks("handshake_request")
def check_handshake_request(entry: Entry) -> None:
    nonce, frame = entry.bytes("nonce"), entry.bytes("frame")
    assert ClientSession(ALICE, SERVER.public, random=drawn(nonce)).hello() == frame
    server = ServerSession(SERVER)
    hello = server.receive_hello(frame)
    assert hello == frames.Hello(ALICE.public, SERVER.shared_with(ALICE.public.x_pub), nonce, 2)
    assert server.peer == ALICE.public


@checks("handshake_request_bad_version")
def check_handshake_request_bad_version(entry: Entry) -> None:
    nonce, frame, version = entry.bytes("nonce"), entry.bytes("frame"), entry.number("version")
    shared = ALICE.shared_with(SERVER.public.x_pub)
    assert frames.build_handshake(ALICE, shared, version=version, random=drawn(nonce)) == frame
    hello = ServerSession(SERVER).receive_hello(frame)
    assert hello == frames.Hello(ALICE.public, shared, nonce, version)


def _check_answer(answer: Callable[[ServerSession], bytes], body: c.ServerBody, state: State) -> Check:
    def check(entry: Entry) -> None:
        frame = entry.bytes("frame")
        server_random = Set()
        client, server = ClientSession(ALICE, SERVER.public), ServerSession(SERVER, random=server_random)
        server.receive_hello(client.hello())
        server_random.next = entry.bytes("nonce")
        assert answer(server) == frame
        assert client.receive(frame) == body
        assert client.state is state
        assert Inner(0, body.command, body.encode()).encode() == entry.bytes("inner")

    return check


CHECKS["handshake_ok"] = _check_answer(ServerSession.accept, c.HandshakeOk(2), State.OPEN)
CHECKS["error_id_in_use"] = _check_answer(lambda server: server.refuse(c.IdInUse()), c.IdInUse(), State.REFUSED)
CHECKS["error_bad_version"] = _check_answer(
    lambda server: server.refuse(c.BadVersion()), c.BadVersion(2), State.REFUSED
)


# --- Frames for the server ------------------------------------------------------------------------------------------


def _opened(client: Identity) -> tuple[ClientSession, ServerSession, Set]:
    """Return both ends of an open session, and what their next nonce is drawn from."""
    random = Set()
    client_session = ClientSession(client, SERVER.public, random=random)
    server_session = ServerSession(SERVER, random=random)
    server_session.receive_hello(client_session.hello())
    client_session.receive(server_session.accept())
    return client_session, server_session, random


def _check_from_client(body: c.ClientBody) -> Check:
    def check(entry: Entry) -> None:
        frame, plaintext = entry.bytes("frame"), entry.bytes("inner")
        inner = parse_inner(plaintext)
        assert inner == Inner(inner.message_id, body.command, body.encode())
        assert inner.encode() == plaintext
        client, server, random = _opened(ALICE)
        for _ in range(1, inner.message_id):  # the handshake request was message 0
            client.command(c.Unknown(0x7F, b""))
        random.next = entry.bytes("nonce")
        assert client.command(body) == frame
        recipient_id, packet = frames.parse_frame(server.mask_in, frame)
        assert recipient_id == SERVER_ID
        assert frames.frame_nonce(frame) == entry.bytes("nonce")
        assert server.open_command(packet) == body

    return check


def _check_from_server(body: c.ServerBody, client: Identity = ALICE) -> Check:
    def check(entry: Entry) -> None:
        frame, plaintext = entry.bytes("frame"), entry.bytes("inner")
        assert parse_inner(plaintext) == Inner(0, body.command, body.encode())
        client_session, server_session, random = _opened(client)
        random.next = entry.bytes("nonce")
        assert server_session.seal(body) == frame
        assert client_session.receive(frame) == body

    return check


_BOBS_AND_NOTIFIERS: Final = (BOB.public.x_pub, NOTIFIER.public.x_pub)
_BOBS: Final = (BOB.public.x_pub,)
_TEXT_NONCE: Final = bytes.fromhex(VECTORS["text"]["packet"])[:24]
_TOKEN: Final = b"token-text"
CHECKS.update(
    {
        "error_recipient_offline": _check_from_server(c.RecipientOffline(BOB.id, _TEXT_NONCE)),
        "subscribe": _check_from_client(c.Subscribe(_BOBS_AND_NOTIFIERS)),
        "unsubscribe": _check_from_client(c.Unsubscribe(_BOBS)),
        "peer_online": _check_from_server(c.PeerOnline(_BOBS)),
        "peer_offline": _check_from_server(c.PeerOffline(_BOBS)),
        "introduce": _check_from_client(c.Introduce(BOB.id, "Алиса")),
        "intro_from": _check_from_server(c.IntroFrom(ALICE.public.x_pub, ALICE.public.ed_pub, "Алиса"), BOB),
        "wake_call": _check_from_client(c.Wake(BOB.id, c.WakeType.CALL)),
        "wake_call_forwarded": _check_from_server(c.Wake(BOB.id, c.WakeType.CALL), NOTIFIER),
        "push_register": _check_from_client(c.PushRegister(c.PushKind.WEB_PUSH, _TOKEN)),
        "push_register_forwarded": _check_from_server(c.PushForward(ALICE.id, c.PushKind.WEB_PUSH, _TOKEN), NOTIFIER),
        "server_ping": _check_from_server(c.ServerPing()),
    }
)


@pytest.mark.parametrize(
    ("said", "forwarded", "recipient"),
    [
        ("introduce", "intro_from", BOB),
        ("wake_call", "wake_call_forwarded", NOTIFIER),
        ("push_register", "push_register_forwarded", NOTIFIER),
    ],
)
def test_what_the_relay_makes_of_what_a_client_says(said: str, forwarded: str, recipient: Identity) -> None:
    _, from_alice, _ = _opened(ALICE)
    body = from_alice.open_command(frames.parse_frame(from_alice.mask_in, bytes.fromhex(VECTORS[said]["frame"]))[1])
    made: c.Body
    match body:
        case c.Introduce():
            assert body.target_id == recipient.id
            made = c.IntroFrom(from_alice.peer.x_pub, from_alice.peer.ed_pub, body.nickname)
        case c.Wake():
            assert not body.is_message
            made = body
        case c.PushRegister():
            made = c.PushForward(from_alice.peer.id, body.kind, body.token)
        case _:
            pytest.fail("another command")
    _, to_recipient, random = _opened(recipient)
    random.next = bytes.fromhex(VECTORS[forwarded]["nonce"])
    assert to_recipient.seal(made) == bytes.fromhex(VECTORS[forwarded]["frame"])


# --- A frame from peer to peer --------------------------------------------------------------------------------------


@checks("text")
def check_text(entry: Entry) -> None:
    inner = Inner(7, 0x20, entry.bytes("message_uuid") + entry.text("text").encode())
    assert inner.encode() == entry.bytes("inner")
    packet, sent, delivered = entry.bytes("packet"), entry.bytes("sent_by_alice"), entry.bytes("delivered_to_bob")
    shared = ALICE.shared_with(BOB.public.x_pub)
    assert seal(inner.encode(), ALICE, shared, drawn(packet[:24])) == packet

    alice, bob = Pair.opened(ALICE), Pair.opened(BOB)
    assert alice.client.send(BOB.id, packet) == sent
    assert frames.frame_nonce(sent) == packet[:24]
    assert alice.at_relay(sent) == (BOB.id, packet)
    assert relayed(alice, bob, sent) == delivered
    received = bob.client.receive(delivered)
    assert received == PeerFrame(ALICE.id, packet)
    assert isinstance(received, PeerFrame)
    opened = open_packet(received.packet, ALICE.public.ed_pub, BOB.shared_with(ALICE.public.x_pub))
    assert parse_inner(opened) == inner


def test_random_nonces_are_what_a_session_uses_unless_told() -> None:
    first, second = (ClientSession(ALICE, SERVER.public).hello() for _ in range(2))
    assert first[32:56] != second[32:56]
    assert len(random_bytes(24)) == 24
