"""Admission in front of a whole relay: openings refused by a reply, clients refused once their keys are proven."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from keys.identity import PublicIdentity
from relay.access import AccessError
from relay.admission import Admission
from relay.callout import Answer, Done
from relay.limits import Limits
from relay.reasons import Ending
from relay.tokens import TokenSource
from tests.relay.harness import Lab, Peer, identity, upgrade
from wire import commands as c

TOKEN = "a-token-of-ours-1"
OTHER = "another-token-2.~"


def knock(lab: Lab, *headers: str, path: str = "/ws", address: str = "198.51.100.7") -> Peer:
    peer = lab.peer(1000 + lab.number(), address)
    peer.transport.arrive(upgrade(path, *headers))
    lab.run()
    return peer


def answer(peer: Peer) -> tuple[int, dict[str, str]]:
    """Return status and header lines of what the relay answered."""
    head = bytes(peer.transport.written).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(head[0].split()[1]), {
        name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])
    }


def said_no(peer: Peer, ending: Ending, text: str) -> None:
    peer.lab.run()
    assert peer.said == [c.NotAdmitted(text)]
    assert peer.close_code == 1008
    assert peer.session.ended is ending
    assert peer.lab.core.sessions.get(peer.id) is not peer.session


# --- Tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Lab:
    source = TokenSource(None, f"{TOKEN} {OTHER}")
    return Lab(Limits(token_failures_burst=2, token_failures_per_second=0.1), admission=Admission(source))


@pytest.mark.parametrize("token", [TOKEN, OTHER])
@pytest.mark.parametrize(
    ("headers", "path"),
    [
        (["Authorization: Bearer {}"], "/ws"),
        (["Sec-WebSocket-Protocol: blindrelay, token.{}"], "/ws"),
        (["Sec-WebSocket-Protocol: token.{}", "Sec-WebSocket-Protocol: blindrelay"], "/api0"),
        ([], "/ws?token={}"),
    ],
)
def test_a_token_lets_in_and_is_not_said_back(guarded: Lab, token: str, headers: list[str], path: str) -> None:
    peer = knock(guarded, *(header.format(token) for header in headers), path=path.format(token))
    status, lines = answer(peer)
    assert status == 101
    assert lines.get("sec-websocket-protocol") == ("blindrelay" if "Protocol" in "".join(headers) else None)
    assert token.encode() not in peer.transport.written
    peer.message(peer.wire.hello())
    guarded.run()
    assert isinstance(peer.said[0], c.HandshakeOk)


def test_without_one_nobody_gets_in_and_nothing_is_charged(guarded: Lab) -> None:
    for _ in range(5):
        peer = knock(guarded, "Sec-WebSocket-Protocol: blindrelay")
        status, lines = answer(peer)
        assert (status, lines["www-authenticate"]) == (401, "Bearer")
        assert peer.session.ended is Ending.TOKEN
    assert answer(knock(guarded, f"Authorization: Bearer {TOKEN}"))[0] == 101


def test_wrong_ones_are_limited_by_address(guarded: Lab) -> None:
    wrong = [knock(guarded, "Authorization: Bearer wrong-wrong-wrong") for _ in range(3)]
    assert [answer(peer)[0] for peer in wrong] == [401, 401, 429]
    assert answer(wrong[2])[1]["retry-after"] == "10"
    assert wrong[2].session.ended is Ending.TOKEN_RATE
    # Whether the next one would be right is not told either; nor is another address concerned.
    assert answer(knock(guarded, f"Authorization: Bearer {TOKEN}"))[0] == 429
    assert answer(knock(guarded, f"Authorization: Bearer {TOKEN}", address="198.51.100.8"))[0] == 101
    guarded.advance(10)
    assert answer(knock(guarded, f"Authorization: Bearer {TOKEN}"))[0] == 101
    guarded.tick(60)
    assert len(guarded.core.door.token_failures) == 0


def test_pages_ask_for_no_token(guarded: Lab) -> None:
    page = guarded.peer(1)
    page.transport.arrive(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    guarded.run()
    assert answer(page)[0] == 200


def test_a_token_in_the_query_is_warned_of_once_an_hour_and_not_shown(guarded: Lab) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            knock(guarded, path=f"/ws?token={TOKEN}")
        knock(guarded, path="/ws?token=wrong-wrong-wrong")
        guarded.advance(3600)
        knock(guarded, path=f"/ws?token={TOKEN}")
    assert [entry["event"] for entry in logs] == ["token_in_query"] * 2
    assert TOKEN not in repr(logs)


def test_an_open_relay_selects_the_subprotocol_that_is_offered() -> None:
    lab = Lab()
    assert "sec-websocket-protocol" not in answer(knock(lab, "Sec-WebSocket-Protocol: chat"))[1]
    assert answer(knock(lab, "Sec-WebSocket-Protocol: chat, blindrelay"))[1]["sec-websocket-protocol"] == "blindrelay"


# --- Lists -----------------------------------------------------------------------------------------------------------


def with_lists(tmp_path: Path, *, allow: str | None = None, deny: str | None = None) -> Lab:
    def written(name: str, text: str | None) -> Path | None:
        if text is None:
            return None
        path = tmp_path / name
        path.write_text(text)
        return path

    admission = Admission(None, written("allow", allow), written("deny", deny))
    return Lab(Limits(handshakes_per_second=0), admission=admission)


def test_a_denied_address_gets_a_403(tmp_path: Path) -> None:
    lab = with_lists(tmp_path, deny="198.51.100.0/24")
    peer = knock(lab)
    assert answer(peer)[0] == 403
    assert peer.session.ended is Ending.DENIED
    assert answer(knock(lab, address="203.0.113.1"))[0] == 101


def test_a_denied_client_is_told_once_it_proved_its_keys(tmp_path: Path) -> None:
    lab = with_lists(tmp_path, deny=identity(1).id.hex())
    said_no(lab.peer(1).open(), Ending.DENIED, "this relay is not open to you")
    lab.connect(2)
    lab.tick(10)
    assert lab.core.counters.endings[Ending.DENIED] == 1
    assert len(lab.core.handshakes_seen) == 1


def test_only_who_is_allowed_gets_in(tmp_path: Path) -> None:
    lab = with_lists(tmp_path, allow=f"{identity(1).public.x_pub.hex()}\n203.0.113.9")
    lab.connect(1)
    said_no(lab.peer(2).open(), Ending.DENIED, "this relay is not open to you")
    allowed = lab.peer(3, "203.0.113.9").open()
    lab.run()
    assert allowed.id in lab.core.sessions


def test_who_is_denied_at_a_reload_goes(tmp_path: Path) -> None:
    lab = with_lists(tmp_path, deny="# nobody")
    alice, bob = lab.connect(1, 2)
    carol = lab.peer(3, "203.0.113.9").open()
    undecided = knock(lab, address="203.0.113.9")
    lab.run()
    (tmp_path / "deny").write_text(f"{alice.id.hex()}\n203.0.113.0/24")
    lab.core.entry.reload()
    lab.run()
    for gone in (alice, carol, undecided):
        assert gone.close_code == 1008
        assert gone.session.ended is Ending.DENIED
    assert list(lab.core.sessions) == [bob.id]


def test_who_is_no_longer_allowed_at_a_reload_goes(tmp_path: Path) -> None:
    lab = with_lists(tmp_path, allow=f"{identity(1).id.hex()}\n{identity(2).id.hex()}")
    alice, bob = lab.connect(1, 2)
    (tmp_path / "allow").write_text(bob.id.hex())
    lab.core.entry.reload()
    lab.run()
    assert alice.close_code == 1008
    assert list(lab.core.sessions) == [bob.id]


def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    lab = with_lists(tmp_path, deny="# nobody")
    (alice,) = lab.connect(1)
    (tmp_path / "deny").write_text(f"{alice.id.hex()}\nwhat?")
    with pytest.raises(AccessError, match="line 2"):
        lab.core.entry.reload()
    lab.run()
    assert not alice.over


def test_where_there_are_no_lists_a_reload_keeps_everybody() -> None:
    lab = Lab()
    (alice,) = lab.connect(1)
    lab.core.entry.reload()
    lab.run()
    assert not alice.over


# --- Closing down ----------------------------------------------------------------------------------------------------


def test_a_relay_that_closes_down_takes_those_it_has_seen() -> None:
    lab = Lab()
    alice, bob = lab.connect(1, 2)
    bob.close()
    lab.run()
    lab.core.entry.decommission("We close in May.")
    lab.run()
    assert alice.news() == [c.Info("We close in May.")]
    said_no(lab.peer(3).open(), Ending.DECOMMISSIONED, "We close in May.")
    again = lab.peer(2).open()
    lab.run()
    assert [type(body) for body in again.said] == [c.HandshakeOk, c.Challenge, c.Info]
    # Whoever was refused is not known by that.
    said_no(lab.peer(3).open(), Ending.DECOMMISSIONED, "We close in May.")
    lab.core.entry.decommission("We close in May.")
    lab.run()
    assert alice.news() == []
    lab.core.entry.decommission("")
    lab.connect(3)


def test_who_is_connected_is_known_even_if_its_nonces_are_forgotten() -> None:
    lab = Lab(Limits(replay_keys=1))
    lab.connect(1, 2)
    lab.core.entry.decommission("We close.")
    for number in (1, 2):
        lab.core.sessions[identity(number).id].abort(Ending.SILENT)
        again = lab.peer(number).open()
        lab.run()
        assert isinstance(again.said[0], c.HandshakeOk)


# --- Callout ---------------------------------------------------------------------------------------------------------


class Service:
    """Answers when the test wants it to."""

    def __init__(self) -> None:
        self.remembered: dict[bytes, Answer] = {}
        self.asked: list[tuple[PublicIdentity, bytes, Done]] = []

    def known(self, public: PublicIdentity) -> Answer | None:
        return self.remembered.get(public.x_pub)

    def ask(self, public: PublicIdentity, address: bytes, done: Done) -> None:
        self.asked.append((public, address, done))

    def expire(self, now: float) -> None:
        pass

    def change(self, limits: Limits) -> None:
        self.limits = limits

    def answer(self, answer: Answer) -> None:
        self.asked.pop(0)[2](answer)


def test_nothing_is_read_and_no_id_is_claimed_until_the_service_answered() -> None:
    service = Service()
    lab = Lab(callout=service)
    bob = lab.peer(2).open()
    lab.run()
    service.answer(Answer.ALLOWED)
    lab.run()
    bob.news()
    alice = lab.peer(1).open()
    frame, nonce = alice.blind(bob)
    alice.message(frame)
    lab.run()
    assert service.asked[0][:2] == (alice.public, bytes((198, 51, 100, 7)))
    assert alice.raw == []
    assert not alice.transport.reading
    assert alice.id not in lab.core.sessions
    bob.send(alice)
    lab.run()
    assert len(bob.nacked) == 1
    service.answer(Answer.ALLOWED)
    lab.run()
    assert isinstance(alice.said[0], c.HandshakeOk)
    assert bob.delivered == [nonce]


def test_what_is_known_is_not_asked() -> None:
    service = Service()
    service.remembered = {identity(1).public.x_pub: Answer.ALLOWED, identity(2).public.x_pub: Answer.REFUSED}
    lab = Lab(callout=service)
    lab.connect(1)
    said_no(lab.peer(2).open(), Ending.CALLOUT_REFUSED, "this relay is not open to you")
    assert service.asked == []


def test_a_no_is_told_and_a_failure_says_try_later() -> None:
    service = Service()
    lab = Lab(callout=service)
    alice, bob = lab.peer(1).open(), lab.peer(2).open()
    lab.run()
    service.answer(Answer.REFUSED)
    said_no(alice, Ending.CALLOUT_REFUSED, "this relay is not open to you")
    service.answer(Answer.FAILED)
    lab.run()
    assert bob.raw == []
    assert bob.close_code == 1013
    assert bob.session.ended is Ending.CALLOUT_FAILED
    assert lab.core.sessions == {}


@pytest.mark.parametrize("said", list(Answer))
def test_an_answer_for_somebody_who_is_gone(said: Answer) -> None:
    service = Service()
    lab = Lab(callout=service)
    alice = lab.peer(1).open()
    lab.run()
    alice.transport.die()
    lab.run()
    service.answer(said)
    lab.run()
    lab.check_empty()


def test_an_answer_that_comes_when_the_relay_stops() -> None:
    service = Service()
    lab = Lab(callout=service)
    lab.peer(1).open()
    lab.run()
    lab.core.stopping = True
    service.answer(Answer.ALLOWED)
    lab.run()
    assert lab.core.sessions == {}


def test_who_was_denied_while_the_service_was_asked(tmp_path: Path) -> None:
    deny = tmp_path / "deny"
    deny.write_text("")
    service = Service()
    lab = Lab(admission=Admission(None, None, deny), callout=service)
    alice = lab.peer(1).open()
    lab.run()
    deny.write_text(alice.id.hex())
    lab.core.entry.reload()
    lab.run()
    assert alice.session.ended is Ending.DENIED
    service.answer(Answer.ALLOWED)
    lab.run()
    assert lab.core.sessions == {}


def test_two_connections_of_one_client_stand_in_line_after_their_answers() -> None:
    service = Service()
    lab = Lab(callout=service)
    first, second = lab.peer(1).open(), lab.peer(1).open()
    lab.run()
    for _ in range(2):
        service.answer(Answer.ALLOWED)
    lab.run()
    # The first was not proven yet, so it yields, as ever.
    assert first.session.ended is Ending.REPLACED
    assert lab.core.sessions == {second.id: second.session}


def test_a_replayed_handshake_is_not_asked_about() -> None:
    service = Service()
    lab = Lab(callout=service)
    alice, mallory = lab.peer(1), knock(lab)
    request = alice.wire.hello()
    alice.transport.arrive(upgrade())
    alice.message(request)
    mallory.message(request)
    lab.run()
    assert len(service.asked) == 1
    assert mallory.session.ended is Ending.REPLAYED_HANDSHAKE
