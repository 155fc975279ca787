"""Two people with ``blindrelay-chat`` and a relay: real processes over real sockets."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from keys.identity import Identity
from keys.invite import RelayCard
from keys.safety import safety_number
from peers.profile import Profile
from tests.peers.chat.user import ROOT, WAIT
from tests.support.relay_process import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.peers.chat.user import User

pytestmark = pytest.mark.timeout(120)


def meet(relay: RelayProcess, user: Callable[[str], User]) -> tuple[User, User]:
    """Alice and Bob; she has added him."""
    alice, bob = user("alice"), user("bob")
    alice.joins(relay, "Alice")
    invite = bob.joins(relay, "Bob")
    added = alice.does("add", invite, "--json").record
    assert (added["label"], added["trust"], added["introduction"]) == ("Bob", "invited", "sent")
    return alice, bob


def test_the_whole_way(relay: RelayProcess, user: Callable[[str], User]) -> None:
    """Offline, then online; send while listen runs in both profiles; what was read is told."""
    alice, bob = meet(relay, user)
    early = alice.does("send", "bob", "are you there?", "--json").record
    assert (early["state"], early["peer_online"]) == ("queued", False)
    assert alice.does("status", "--json").record["unacknowledged"] == 1

    with bob.starts("listen", "--json", "--mark-read") as ears, alice.starts("listen", "--json", "--all") as watch:
        stranger = ears.until("contact", detail="new")
        assert (stranger["label"], stranger["trust"]) == ("Alice", "unverified")
        first = ears.until("message")
        assert (first["text"], first["direction"], first["label"]) == ("are you there?", "in", "Alice")
        watch.until("state", detail="delivered", id=early["id"])
        assert watch.until("state", detail="read", id=early["id"])["state"] == "read"

        read = alice.does("send", "bob", "-", "--wait", "read", "--json", stdin="two\nlines\n").record
        assert (read["state"], read["text"]) == ("read", "two\nlines")
        assert ears.until("message")["text"] == "two\nlines"

        answer = bob.does("send", "Alice", "I am", "--wait", "delivered", "--json").record
        assert answer["state"] == "delivered"
        assert watch.until("message", direction="in")["text"] == "I am"

        status = bob.does("status", "--json").record
        assert (status["carried"], status["connection"], status["unread"]) == (True, "connected", 0)
        assert bob.does("contacts", "--json").record["online"] is True

        changed = alice.does("edit", str(read["id"]), "three", "--json").record
        assert (changed["text"], changed["told"]) == ("three", True)
        assert ears.until("edited")["text"] == "three"
        gone = alice.does("delete", str(read["id"]), "--for-both", "--json").record
        assert gone["told"] is True
        assert ears.until("deleted")["text"] == ""

        assert ears.interrupt() == 130
        assert watch.interrupt() == 130

    assert [m["text"] for m in bob.does("history", "alice", "--json").records] == ["are you there?", "", "I am"]
    assert alice.does("contacts", "--json").record["online"] is False


def test_a_script_listens_from_where_it_stopped(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, bob = meet(relay, user)
    with bob.starts("listen", "--json", "--all", "--count", "2") as ears:
        ears.until("connection", connection="connected")
        for text in ("one", "two"):
            alice.does("send", "Bob", text, "--wait", "delivered")
        cursor = ears.until("message", text="one")["cursor"]
        ears.until("message", text="two")
        assert ears.process.wait(WAIT) == 0
    again = bob.does("listen", "--json", "--since", str(cursor), "--once").record
    assert again["text"] == "two"
    late = bob.run("listen", "--json", "--once", "--timeout", "0.3")
    assert (late.status, late.out, late.error["exit"]) == (4, "", 4)
    assert bob.does("listen", "--timeout", "0.3").out == ""
    nobody = bob.run("listen", "--from", "carol")
    assert nobody.status == 3
    assert nobody.err.count("\n") == 1


def test_not_in_time_is_kept(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, bob = meet(relay, user)
    late = alice.run("send", "Bob", "later", "--wait", "delivered", "--timeout", "0.5", "--json")
    assert late.status == 4
    assert late.record["state"] == "queued"
    assert "Bob is offline" in late.error["error"]
    stored = alice.does("send", "Bob", "much later", "--wait", "stored", "--json").record
    assert stored["state"] == "queued"
    with bob.starts("listen", "--json", "--all", "--count", "3") as ears:
        ears.until("connection", connection="connected")
        assert "delivered" in alice.does("send", "Bob", "now", "--wait", "delivered").out
        heard = [record["text"] for record in ears.records() if record["event"] == "message"]
        assert heard == ["later", "much later", "now"]
    assert [m["state"] for m in alice.does("history", "Bob", "--json").records] == ["delivered"] * 3


def test_no_relay(tmp_path: Path, user: Callable[[str], User]) -> None:
    relay = RelayProcess(tmp_path)
    alice, bob = meet(relay, user)
    relay.signal(signal.SIGTERM)
    relay.wait()
    lost = alice.run("send", "Bob", "hello", "--timeout", "0.5", "--json")
    assert (lost.status, lost.record["state"]) == (4, "queued")
    assert "no connection to the relay" in lost.error["error"]
    assert bob.run("wake", "Alice").status == 3  # the introduction was not waited for
    woken = alice.run("wake", "Bob", "--timeout", "0.3")
    assert (woken.status, woken.out) == (4, "")
    silent = alice.run("listen", "--timeout", "0.5", "--json")
    assert (silent.status, silent.out) == (0, "")
    assert "no connection to the relay" in silent.err
    assert silent.err.count("warning") == 1
    waiting = alice.does("add", "--timeout", "0", user("carol").joins(relay), "--json").record
    assert waiting["introduction"] == "waiting"
    relay.check()


def test_the_relay_has_other_keys(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, mallory = user("alice"), user("mallory")
    alice.joins(relay)
    card = RelayCard(Identity.generate().public, relay.url)
    mallory.does("init", "--url", card.url, "--x-pub", card.public.x_pub.hex(), "--ed-pub", card.public.ed_pub.hex())
    refused = mallory.run("add", alice.does("me", "--json").record["invite"], "--timeout", "50")
    assert refused.status == 5
    assert "other keys" in refused.err
    assert mallory.does("contacts", "--json").record["label"] == "alice"
    assert mallory.run("listen").status == 5
    assert "refused" in mallory.does("status").out


def test_safety_numbers(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, bob = meet(relay, user)
    with bob.starts("listen", "--json", "--all") as ears:
        ears.until("connection", connection="connected")
        alice.does("send", "Bob", "hello", "--wait", "delivered")
    hers, his = alice.does("verify", "Bob", "--json").record, bob.does("verify", "Alice", "--json").record
    keys = [Profile.locate(p.name, p.environment()).read_keys().identity.public for p in (alice, bob)]
    assert hers["safety_number"] == his["safety_number"] == safety_number(*keys)
    assert (hers["verified"], hers["trust"], his["trust"]) == (False, "invited", "unverified")
    assert alice.does("me", "--json").record["fingerprint"] in hers["safety_number"]

    shown = alice.does("verify", "Bob").out.splitlines()
    assert "".join("".join(line.split()) for line in shown[:3]) == hers["safety_number"]
    assert {len(line) for line in shown[:3]} == {23}
    assert alice.does("verify", "Bob", "--number", "\n".join(shown[:3]), "--json").record["verified"] is True
    assert bob.does("verify", "Alice", "--yes", "--json").record["trust"] == "verified"

    false = hers["safety_number"][::-1]
    differs = bob.run("verify", "Alice", "--number", false)
    assert (differs.status, differs.out) == (6, "")
    assert "differ" in differs.err
    assert bob.run("verify", "Alice", "--number", "12345").status == 2
    assert bob.does("verify", "Alice", "--undo", "--json").record["trust"] == "unverified"
    assert bob.at_terminal("verify", "Alice", typed="n\n").out.rstrip().endswith("Alice is unverified")
    assert bob.at_terminal("verify", "Alice", typed="y\n").out.rstrip().endswith("Alice is verified")


def test_whoever_reads_may_rest_or_go(relay: RelayProcess, user: Callable[[str], User]) -> None:
    """A pipe that is not read fills up, and messages are carried all the same; one that is closed ends us in peace."""
    alice, bob = meet(relay, user)
    with bob.starts("listen", "--json", "--all") as ears:
        ears.until("connection", connection="connected")
        big = "x" * 60_000  # two of them are more than a pipe holds
        for _ in range(3):
            alice.does("send", "Bob", stdin=big)
        state = alice.does("send", "Bob", "still there?", "--wait", "delivered", "--json").record["state"]
        assert state == "delivered"
        ears.until("message", text="still there?")
        assert ears.process.stdout is not None
        ears.process.stdout.close()
        alice.does("send", "Bob", "gone?")
        assert ears.process.wait(WAIT) == 0, ears.errors


def test_a_reader_that_had_enough(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, _ = meet(relay, user)
    for _ in range(3):
        alice.does("send", "Bob", "--wait", "stored", stdin="y" * 60_000)
    writer = subprocess.Popen(
        alice.command("history", "Bob"),
        env=alice.environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    os.read(writer.stdout.fileno(), 10)
    writer.stdout.close()
    assert writer.stderr is not None
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(WAIT) == 0


def test_wake(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, _ = meet(relay, user)
    assert alice.does("wake", "Bob", "--json").record["asked"] is True
    assert "Bob" in alice.does("wake", "Bob", "--call").out


def test_a_killed_carrier_leaves_no_presence(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, bob = meet(relay, user)
    with bob.starts("listen"), alice.starts("listen", "--json", "--all") as watch:
        watch.until("presence", detail="online")
        watch.process.kill()
        watch.process.wait(WAIT)
    assert alice.does("contacts", "--json").record["online"] is False
    status = alice.does("status", "--json").record
    assert (status["carried"], status["connection"]) == (False, "closed")


def test_signals_end_listening_in_peace(relay: RelayProcess, user: Callable[[str], User]) -> None:
    alice, _ = meet(relay, user)
    for number, status in ((signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)):
        with alice.starts("listen", "--json", "--all") as ears:
            ears.until("connection", connection="connected")
            ears.process.send_signal(number)
            assert ears.process.wait(WAIT) == status
            assert ears.errors == ""
        assert alice.does("status", "--json").record["connection"] == "closed"


def test_what_was_ignored_stays_ignored(relay: RelayProcess, user: Callable[[str], User]) -> None:
    """As nohup(1) and shells that start a command by & want it."""
    alice, _ = meet(relay, user)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        ears = alice.starts("listen", "--json", "--all")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    with ears:
        ears.until("connection", connection="connected")
        ears.process.send_signal(signal.SIGHUP)
        ears.process.send_signal(signal.SIGINT)
        sent = alice.does("send", "Bob", "still here", "--json").record
        assert ears.until("message", id=sent["id"])["direction"] == "out"
        ears.process.send_signal(signal.SIGTERM)
        assert ears.process.wait(WAIT) == 0


def test_closed_streams(relay: RelayProcess, user: Callable[[str], User]) -> None:
    """What is meant for stdout never gets into a file that took its number."""
    alice, _ = meet(relay, user)
    shell = 'exec "$@" >&- 2>&- <&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *alice.command("send", "Bob", "into the void", "--wait", "stored")],
        env=alice.environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
    assert alice.does("history", "Bob", "--json").record["text"] == "into the void"
