"""TLS between socket and session, in memory: what is passed on is what the socket says, in any pieces."""

import contextlib
import hmac
import re
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from websockets.frames import Opcode

from relay.limits import Limits
from relay.reasons import Ending
from relay.tls import Certificate, TlsTransport
from relay.websocket import Phase
from tests.relay.harness import Lab, Peer, client_frame, identity, upgrade
from tests.support.certificates import NAME, Files, make_certificate, trusting
from wire import commands as c
from wire.limits import MAX_FRAME

KIB = 1024


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class TlsPeer(Peer):
    """A client that speaks TLS; what it wants to send waits for the handshake. `pieces` is the size of its chunks."""

    def __init__(self, lab: Lab, number: int, files: Files, pieces: int = 1 << 20, keylog: Path | None = None) -> None:
        self.files = files
        self.pieces = pieces
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = trusting(files)
        if keylog is not None:
            context.keylog_filename = str(keylog)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=NAME)
        self.ready = self.notified = False
        self.alert = ""
        super().__init__(lab, identity(number))

    def _attach(self) -> None:
        self.above = TlsTransport(self.session, Certificate(*self.files).context, self.lab.core.door.may_begin_tls)
        self.transport.protocol = self.above
        self.above.connection_made(self.transport)
        self._shake()

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.alert = str(error.reason)
        self._pass_on()

    def _pass_on(self) -> None:
        data = self.outgoing.read()
        for at in range(0, len(data), self.pieces):
            self.transport.arrive(data[at : at + self.pieces])

    def _bytes_taken(self, data: bytes) -> None:
        self.incoming.write(data)
        if not self.ready:
            self._shake()
        try:
            while self.ready and (plain := self.tls.read(1 << 20)):
                super()._bytes_taken(plain)
            self.notified = self.ready
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.notified = True
        except ssl.SSLError as error:
            self.alert = str(error.reason)

    def encrypted(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    def say_bytes(self, data: bytes) -> "TlsPeer":
        self.tls.write(data)
        self._pass_on()
        return self

    def opened(self) -> "TlsPeer":
        self.lab.run()
        assert self.ready
        self.say_bytes(upgrade() + client_frame(self.wire.hello()))
        self.lab.run()
        assert [type(body) for body in self.news()] == [c.HandshakeOk, c.Challenge]
        return self


def is_stalled(peer: Peer) -> bool:
    return peer.session.outbox.stalled


def is_read(peer: Peer) -> bool:
    return peer.transport.reading


@pytest.mark.parametrize("pieces", [1, 5, 1000, 1 << 20])
def test_in_any_pieces(files: Files, pieces: int) -> None:
    lab = Lab()
    alice, (bob,) = TlsPeer(lab, 1, files, pieces).opened(), lab.connect(2)
    for size in (112, 20 * KIB, 40 * KIB if pieces < 1000 else MAX_FRAME):
        nonce = bob.send(alice, size)
        lab.run()
        assert alice.delivered == [nonce]
        alice.news()
        frame, nonce = alice.blind(bob, size)
        alice.say_bytes(client_frame(frame))
        lab.run()
        assert bob.delivered == [nonce]
        bob.news()


def test_the_session_is_there_before_the_handshake(files: Files) -> None:
    lab = Lab()
    peer = TlsPeer(lab, 1, files)
    assert peer.session in lab.core.opening
    peer.transport.window = 0
    for _ in range(11):
        lab.tick()
    assert peer.session.ended is Ending.SLOW_OPENING
    assert peer.session.phase is Phase.LOST


def test_each_byte_that_the_socket_keeps_is_counted_and_drains(files: Files) -> None:
    lab = Lab(Limits(queue_size=256 * KIB, queue_share=64 * KIB, flush_size=32 * KIB))
    alice, (bob,) = TlsPeer(lab, 1, files).opened(), lab.connect(2)
    alice.stall(100)
    nonces = [bob.send(alice, 8 * KIB) for _ in range(64)]
    lab.run()
    outbox = alice.session.outbox
    assert is_stalled(alice)
    assert outbox.in_transport == alice.transport.get_write_buffer_size() > 0
    assert 0 <= 256 * KIB - outbox.untaken < 17 * KIB
    assert outbox.untaken <= lab.core.budget.used <= 256 * KIB
    refused = set(bob.nacked)
    assert 30 <= len(refused) <= 34
    alice.resume()
    lab.run()
    assert not is_stalled(alice)
    assert lab.core.budget.used == 0
    assert alice.delivered == [nonce for nonce in nonces if nonce not in refused]


def test_nothing_is_said_to_wait_while_the_socket_takes_everything(files: Files) -> None:
    lab = Lab()
    alice, (bob,) = TlsPeer(lab, 1, files).opened(), lab.connect(2)
    for _ in range(100):
        bob.send(alice)
        lab.run()
        assert not alice.session.outbox.stalled
        assert not lab.core.budget.stalled
    assert len(alice.delivered) == 100


def test_reads_that_are_held_hold_the_socket(files: Files) -> None:
    lab = Lab(Limits(frames_per_second=10, frames_burst=20))
    alice, (bob,) = TlsPeer(lab, 1, files).opened(), lab.connect(2)
    frames = [alice.blind(bob) for _ in range(40)]
    alice.say_bytes(b"".join(client_frame(frame) for frame, _ in frames))
    alice.say_bytes(client_frame(alice.blind(bob)[0]))
    lab.run()
    assert alice.session.held
    assert not is_read(alice)
    assert alice.transport.unread
    lab.advance(10)
    assert is_read(alice)
    assert len(bob.delivered) == 41


def test_the_relay_ends_with_close_notify_and_the_end_of_the_stream(files: Files) -> None:
    lab = Lab()
    alice = TlsPeer(lab, 1, files)
    lab.run()
    alice.say_bytes(upgrade() + client_frame(b"no handshake"))
    lab.run()
    assert alice.close_code == 1008
    assert alice.notified
    assert alice.transport.ended
    assert not alice.transport.is_closing()
    # What still comes is thrown away, and the pulse cuts the rest off.
    alice.say_bytes(client_frame(b"late"))
    alice.transport.arrive(b"and no TLS at all")
    for _ in range(6):
        lab.tick()
    assert alice.transport.is_closing()
    lab.check_empty()


def test_a_client_that_ends_by_close_notify(files: Files) -> None:
    lab = Lab()
    alice = TlsPeer(lab, 1, files).opened()
    with pytest.raises(ssl.SSLWantReadError):
        alice.tls.unwrap()
    alice._pass_on()
    lab.run()
    assert alice.session.ended is Ending.CLIENT
    assert alice.transport.is_closing()
    lab.check_empty()


def test_a_frame_and_close_notify_in_one_chunk(files: Files) -> None:
    lab = Lab()
    alice, (bob,) = TlsPeer(lab, 1, files).opened(), lab.connect(2)
    frame, nonce = alice.blind(bob)
    alice.tls.write(client_frame(frame))
    with pytest.raises(ssl.SSLWantReadError):
        alice.tls.unwrap()
    alice._pass_on()
    lab.run()
    assert bob.delivered == [nonce]
    assert alice.session.ended is Ending.CLIENT


def test_frames_before_a_changed_record_arrive(files: Files) -> None:
    lab = Lab()
    alice, (bob,) = TlsPeer(lab, 1, files).opened(), lab.connect(2)
    frame, nonce = alice.blind(bob)
    good, changed = alice.encrypted(client_frame(frame)), bytearray(alice.encrypted(client_frame(frame)))
    changed[-1] ^= 1
    alice.transport.arrive(good + bytes(changed))
    lab.run()
    assert bob.delivered == [nonce]
    assert alice.session.ended is Ending.BAD_TLS
    assert alice.transport.is_closing()
    assert "BAD_RECORD_MAC" in alice.alert


@pytest.mark.parametrize("data", [b"GET /ws HTTP/1.1\r\n\r\n", b"\x00" * 100, b"\x15\x03\x01\x00\x02\x02\x28"])
def test_what_is_no_tls(files: Files, data: bytes) -> None:
    lab = Lab()
    peer = TlsPeer(lab, 1, files)
    peer.transport._incoming.clear()
    peer.transport.arrive(data)
    lab.run()
    assert peer.session.ended is Ending.BAD_TLS
    assert (b"wss://" in peer.transport.written) is data.startswith(b"GET")
    lab.check_empty()


def test_a_socket_that_dies_leaves_nothing(files: Files) -> None:
    lab = Lab()
    alice, (bob,) = TlsPeer(lab, 1, files).opened(), lab.connect(2)
    alice.transport.dies_at_write = True
    nonce = bob.send(alice)
    lab.run()
    assert bob.nacked == [nonce]
    assert alice.session.phase is Phase.LOST
    # The two no longer hold each other: only the socket's transport and the test still know either.
    assert not hasattr(alice.above, "_session")
    bob.transport.die()
    lab.run()
    lab.check_empty()


def test_frames_that_come_with_the_end_are_taken_though_reads_were_held(files: Files) -> None:
    """On TCP a pause defers the end of the stream; TLS says it in the same bytes as the last frames."""
    lab = Lab(Limits(refusals_waiting=4, handshakes_per_second=0))
    alice, (bob,) = TlsPeer(lab, 1, files).opened(), lab.connect(2)
    lost = [alice.wire.send(b"nobody..", alice.packet()) for _ in range(20)]
    frames = [alice.wire.send(bob.id, alice.packet()) for _ in range(20)]
    for frame in (*lost, *frames):
        alice.tls.write(client_frame(frame))
    alice.tls.write(client_frame(b"\x03\xe8", Opcode.CLOSE))
    with contextlib.suppress(ssl.SSLError):
        alice.tls.unwrap()
    alice.transport.arrive(alice.outgoing.read())
    lab.advance(5.0)
    assert len(bob.delivered) == 20
    assert alice.session.ended is Ending.CLIENT


# --- Key updates -----------------------------------------------------------------------------------------------------


class Records:
    """What a client could encrypt by itself, in TLS 1.3 (RFC 8446 §5.2, §7.3), from its traffic secret."""

    def __init__(self, secret: bytes, digest: str, key_size: int) -> None:
        self._secret, self._digest, self._key_size = secret, digest, key_size
        self._renew()

    def _expand(self, label: bytes, size: int) -> bytes:
        text = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(text),)) + text + b"\0"
        out, block, count = b"", b"", 0
        while len(out) < size:
            count += 1
            block = hmac.new(self._secret, block + info + bytes((count,)), self._digest).digest()
            out += block
        return out[:size]

    def _renew(self) -> None:
        self._cipher = AESGCM(self._expand(b"key", self._key_size))
        self._nonce = int.from_bytes(self._expand(b"iv", 12), "big")
        self._count = 0

    def record(self, data: bytes, kind: int) -> bytes:
        inner = data + bytes((kind,))
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._nonce ^ self._count).to_bytes(12, "big")
        self._count += 1
        return head + self._cipher.encrypt(nonce, inner, head)

    def key_update(self) -> bytes:
        record = self.record(b"\x18\0\0\x01\0", 22)
        self._secret = self._expand(b"traffic upd", len(self._secret))
        self._renew()
        return record


def test_key_updates_hold_nobody_and_end_the_connection(files: Files, tmp_path: Path) -> None:
    """A client can send any number of them, each costs a key derivation, and none is a byte that a limit sees."""
    lab = Lab(unit=0.001)
    keys = tmp_path / "keys"
    peer = TlsPeer(lab, 1, files, keylog=keys)
    lab.run()
    assert peer.ready
    (secret,) = re.findall(r"CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)", keys.read_text())
    name = peer.tls.cipher()
    assert name is not None
    strong = "AES_256" in name[0]
    records = Records(bytes.fromhex(secret), "sha384" if strong else "sha256", 32 if strong else 16)
    flood = b"".join(records.key_update() for _ in range(12_000))
    peer.transport.arrive(flood)
    turns = lab.run()
    # A few steps in each turn of the loop, of 16 KiB at most, and no more than 256 KiB in all.
    assert turns >= 4
    assert peer.session.ended is Ending.BAD_TLS
    assert len(flood) > 300 * KIB
