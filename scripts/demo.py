"""What `scripts/demo` runs: a relay and two people, three processes, and what each of them saw.

The director (:func:`main`) starts the relay, then this file again for each person (:func:`person`), and speaks with
them by lines of JSON. What is shown as the relay's view are the bytes that one person's process gave to its socket and
those that the other's took from it; the director minted the relay's keys and can therefore do with them whatever the
relay could.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import ClientConnection, connect

from keys.contact import Contact
from keys.errors import OpenError
from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity, PublicIdentity
from keys.invite import Invite, RelayCard
from keys.packet import open_packet
from wire import commands as c
from wire import mask
from wire.frames import parse_frame
from wire.inner import Inner, parse_inner
from wire.session import ClientSession, PeerFrame

TEXT: Final = 0x20
"""``uuid(16) utf-8``"""
DELIVERY_ACK: Final = 0x27
"""``uuid(16)``"""
PATIENCE: Final = 60.0
"""Seconds after which something is wrong."""
LINES: Final = {
    "Alice": "Hi Bob! The spare key is under the blue flowerpot.",
    "Bob": "Found it. Only you and I know, right?",
}


# --- One person, in a process of its own -----------------------------------------------------------------------------


class Person:
    """A client of the relay that writes one text and reads one."""

    def __init__(self, name: str) -> None:
        self.identity = Identity.generate()
        tell(invite=Invite(self.identity.public, name).text, pid=os.getpid())
        order = hear()
        card = RelayCard.parse(order["card"])
        self.contact = Contact.from_invite(self.identity, Invite.parse(order["peer"]))
        self.session = ClientSession(self.identity, card.public)
        self.socket: ClientConnection = connect(card.url)
        self.sent = 0

    def enter(self) -> None:
        """Open a session: the handshake, and the proof that it is no recording of one."""
        self.socket.send(self.session.hello())
        answer = self.receive()
        if not isinstance(answer, c.HandshakeOk):
            raise SystemExit(f"the relay refuses: {answer}")
        challenge = self.receive()
        if isinstance(challenge, c.Challenge):
            self.socket.send(self.session.command(c.Proof(challenge.random)))

    def receive(self) -> c.ServerBody | PeerFrame:
        self.frame = self.socket.recv(PATIENCE, decode=False)
        return self.session.receive(self.frame)

    def send(self, command: int, body: bytes) -> bytes:
        inner = Inner(self.sent, command, body)
        self.sent += 1
        frame = self.session.send(self.contact.id, self.contact.seal(inner.encode()))
        self.socket.send(frame)
        return frame

    def say(self, text: str) -> None:
        """Send a text and wait until its reader's client has acknowledged it."""
        message = uuid.uuid4().bytes
        tell(sent=self.send(TEXT, message + text.encode()).hex())
        inner = self.read()
        if (inner.command, inner.body) != (DELIVERY_ACK, message):
            raise SystemExit("not the acknowledgement of what was sent")
        tell(acknowledged=True)

    def listen(self) -> None:
        """Read a text and acknowledge it."""
        inner = self.read()
        if inner.command != TEXT:
            raise SystemExit("not a text")
        message, text = inner.body[:16], inner.body[16:].decode()
        tell(received=self.frame.hex(), text=text)
        self.send(DELIVERY_ACK, message)

    def read(self) -> Inner:
        """Return the next thing that the peer says; what it did not sign, or sign for us, does not open."""
        while not isinstance(item := self.receive(), PeerFrame):
            pass
        if item.sender_id != self.contact.id:
            raise SystemExit("a stranger writes")
        return parse_inner(self.contact.open(item.packet))


def person(name: str) -> None:
    """Be Alice or Bob."""
    me = Person(name)
    me.enter()
    tell(ready=True)
    while (order := hear())["do"] != "leave":
        if order["do"] == "say":
            me.say(order["text"])
        else:
            me.listen()
    me.socket.close()


def tell(**what: Any) -> None:
    """Say something to the director."""
    print(json.dumps(what), flush=True)


def hear() -> dict[str, Any]:
    """Wait for an order of the director."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit("the director is gone")
    return dict(json.loads(line))


# --- The director ----------------------------------------------------------------------------------------------------


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Child:
    """A process that the director started; it does not outlive the demo."""

    def __init__(self, what: str, stack: ExitStack, *command: str, **environment: str) -> None:
        self.what = what
        self.process = subprocess.Popen(
            [sys.executable, "-P", *command],
            env={**{k: v for k, v in os.environ.items() if not k.startswith("RELAY_")}, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        stack.callback(self.end)

    def line(self) -> str:
        """Return the next line of its output."""
        if self.process.stdout is None:
            raise AssertionError("a pipe")
        line = self.process.stdout.readline()
        if not line:
            self.process.kill()
            raise Failed(f"{self.what} ended:\n{self.process.communicate()[1].strip()}")
        return line.rstrip("\n")

    def hear(self) -> dict[str, Any]:
        return dict(json.loads(self.line()))

    def order(self, **what: str) -> None:
        if self.process.stdin is None:
            raise AssertionError("a pipe")
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def leave(self, number: signal.Signals | None = None) -> str:
        """Wait for its end, after a signal if one is given; return its error output."""
        if number is not None:
            self.process.send_signal(number)
        errors = self.process.communicate(timeout=PATIENCE)[1]
        if self.process.returncode:
            raise Failed(f"{self.what} ended with status {self.process.returncode}:\n{errors.strip()}")
        return errors

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Paint:
    """Colours, where somebody sees them."""

    def __init__(self) -> None:
        self._on = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def __call__(self, code: int, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text


BOLD, DIM, YELLOW = 1, 2, 33
COLOURS: Final = {"Alice": 32, "Bob": 34}


def main() -> int:
    """Run the demo and return the exit status."""
    paint = Paint()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        # Nothing here takes a second: whatever hangs is ended, and then says so.
        watchdog = threading.Timer(PATIENCE, os.kill, (os.getpid(), signal.SIGINT))
        watchdog.daemon = True
        watchdog.start()
        stack.callback(watchdog.cancel)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blindrelay-demo-")))
        try:
            perform(stack, directory, paint)
        except (Failed, OSError, subprocess.TimeoutExpired) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ndemo: interrupted", file=sys.stderr)
            return 130
    return 0


def perform(stack: ExitStack, directory: Path, paint: Paint) -> None:
    """Start the three, let two of them talk, and print what happens."""
    own = Identity.generate()
    write_server_keys(directory / "relay.keys", ServerKeys(own))
    print(paint(BOLD, "A blind relay and two people: three processes, keys made a moment ago and gone in another."))
    print()

    relay = Child("the relay", stack, "-m", "relay", "--port", "0", "--admin", "off", RELAY_DATA_DIR=str(directory))
    found = re.search(r"ws://\S+", relay.line())
    if found is None:
        raise Failed("the relay does not say where it listens")
    url = found[0]
    people = {name: Child(name, stack, __file__, "--person", name) for name in LINES}
    invites = {}
    print(f"  {'relay':8}{url}", flush=True)
    for name, child in people.items():
        invites[name] = Invite.parse(child.hear()["invite"])
        print(f"  {name:8}id {invites[name].public.id.hex()}   invite {invites[name].text[:24]}…")
    for (name, child), peer in zip(people.items(), reversed(invites.values()), strict=True):
        child.order(card=RelayCard(own.public, url).text, peer=peer.text)
        if child.hear() != {"ready": True}:
            raise Failed(f"{name} gets no session")
    print()

    frames = None
    for speaker, listener in (("Alice", "Bob"), ("Bob", "Alice")):
        sent, received = exchange(people, speaker, listener, paint)
        frames = frames or (sent, received)
    if frames is not None:
        show_relays_view(own, invites["Alice"].public, invites["Bob"].public, *frames, paint)

    for child in people.values():
        child.order(do="leave")
        child.leave()
    print()
    print(paint(BOLD, "All that the relay wrote down"))
    for line in relay.leave(signal.SIGTERM).splitlines():
        record = json.loads(line)
        event = record.pop("event")
        told = {key: value for key, value in record.items() if key not in ("level", "timestamp")}
        text = f"  {event:9}" + "  ".join(f"{key} {json.dumps(value)}" for key, value in told.items())
        print(textwrap.fill(text, 96, subsequent_indent=" " * 11, break_long_words=False))
    print()
    print("Now run a relay of your own: scripts/run")


def exchange(people: dict[str, Child], speaker: str, listener: str, paint: Paint) -> tuple[bytes, bytes]:
    """Let one say a line to the other; return the frame as it went to the relay and as it came from it."""
    text = LINES[speaker]
    people[listener].order(do="listen")
    people[speaker].order(do="say", text=text)
    sent = bytes.fromhex(people[speaker].hear()["sent"])
    got = people[listener].hear()
    acknowledged = people[speaker].hear()
    if got["text"] != text or acknowledged != {"acknowledged": True}:
        raise Failed("what was said is not what was heard")
    for name, what in (
        (speaker, f"writes  “{text}”"),
        (listener, f"reads   “{got['text']}”"),
        (speaker, "sees    " + paint(DIM, f"delivered: {listener}'s client says so, sealed like the text")),
    ):
        print(f"  {paint(COLOURS[name], f'{name:8}')}{what}")
    print()
    return sent, bytes.fromhex(got["received"])


def show_relays_view(
    own: Identity, alice: PublicIdentity, bob: PublicIdentity, sent: bytes, received: bytes, paint: Paint
) -> None:
    """Print what Alice's first frame was to the relay, and try to read it with the relay's keys."""
    shared = own.shared_with(alice.x_pub)
    recipient_id, packet = parse_frame(mask.client_to_server(shared), sent)
    sender_id, forwarded = parse_frame(mask.server_to_client(own.shared_with(bob.x_pub)), received)
    if recipient_id != bob.id or sender_id != alice.id or packet != forwarded:
        raise Failed("the relay did something else than to forward")
    opens = True
    try:
        open_packet(packet, alice.ed_pub, shared)
    except OpenError:
        opens = False
    if opens:
        raise Failed("the relay could read it")

    print(paint(BOLD, f"What the relay saw of Alice's line: {len(sent)} bytes in, {len(received)} bytes out"))
    lines = (
        ("from Alice", sent[:8], YELLOW, f"a masked header: the relay unmasks “for {bob.id.hex()}”,"),
        ("to Bob", received[:8], YELLOW, f"and masks “from {alice.id.hex()}” for Bob"),
        ("both times", packet[:8], DIM, "a number used once (24 bytes), the sealed text, and"),
        ("", packet[8:16], DIM, "Alice's signature (64), not one byte changed: to the"),
        ("", packet[16:24], DIM, "relay this is noise. Its own keys do not open it;"),
        ("", packet[24:32], DIM, "this demo has just tried."),
    )
    for label, data, code, note in lines:
        print(f"  {label:12}{paint(code, data.hex(' '))}  {note}")
    print("  It does know who writes to whom, when, and how much.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--person"]:
        person(sys.argv[2])
    elif len(sys.argv) > 1:
        sys.exit("usage: scripts/demo")
    else:
        sys.exit(main())
