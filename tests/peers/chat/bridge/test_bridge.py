"""The bridge as a process with real pipes, through a real relay."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from keys.files import ClientKeys
from keys.identity import Identity
from keys.invite import Invite
from keys.private_file import make_directories
from peers.chat.exits import Exit
from peers.store import contacts, messages, open_store, status
from peers.store.message_rows import MessageRow, State
from tests.peers.carrier.conversation import WAIT, Person
from tests.peers.carrier.telefon import Telefon, uuid
from tests.peers.chat.bridge.process import Bridge, environment, robot
from tests.support.clients import Clients, run_async
from tests.support.relay_process import ROOT, RelayProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peers.store import Connection
    from peers.store.contacts import ContactRow
    from tests.peers.chat.user import User

TEXT, DELIVERED, READ = 0x20, 0x27, 0x2A


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    # Who is killed again and again is announced each time.
    running = RelayProcess(tmp_path_factory.mktemp("relay"), limits={"presence_burst": 1000})
    yield running
    running.check()


async def adds(person: Person, keys: ClientKeys) -> ContactRow:
    return await person.store.write(contacts.add, person.now(), keys.identity.public, nickname=keys.nickname)


async def hears(person: Person, contact: ContactRow, count: int) -> list[str]:
    """The first texts of a contact, as soon as there are so many."""
    rows = await person.until(messages.history, lambda rows: sum(not row.outgoing for row in rows) >= count, contact.id)
    return [row.text for row in rows if not row.outgoing]


async def until_read(person: Person, message: MessageRow) -> MessageRow:
    return await person.until(messages.get, lambda row: row.state == State.READ, message.id)


@run_async
async def test_a_pipe_both_ways(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    keys = robot()
    contact = await adds(alice, keys)
    async with alice.at(relay), Bridge(environment(tmp_path, keys, relay, alice.keys.invite)) as bridge:
        await bridge.write("hello", "", "   ", "/send /etc/passwd", "Alice: still the text", '{"to": "x"}')
        said = ["hello", "/send /etc/passwd", "Alice: still the text", '{"to": "x"}']
        assert await hears(alice, contact, 4) == said
        first = await alice.says(contact, "two\nlines\twith a tab and \\n")
        second = await alice.says(contact, "\x1b[31mred\x07 [bold]\u202e")
        assert await bridge.read() == "two\\nlines\twith a tab and \\n"
        assert await bridge.read() == "[31mred [bold]"
        await until_read(alice, first)
        await until_read(alice, second)
        bridge.end_input()
        assert await bridge.ends() == Exit.DONE
    assert await alice.heard(contact) == said  # and nothing else was sent, above all no file


async def answer(app: Telefon) -> tuple[int, bytes]:
    """The next packet that is no text: one that was sent before the peer was seen coming online is sent again."""
    while (packet := await app.next())[0] == TEXT:
        pass
    return packet


@run_async
async def test_a_plain_v2_peer(relay: RelayProcess, tmp_path: Path) -> None:
    keys, theirs = robot(), Person(tmp_path / "telefon", "Tele").keys
    async with Clients(relay) as clients, Bridge(environment(tmp_path, keys, relay, theirs.invite)) as bridge:
        app = await Telefon.open(clients, theirs.identity, keys.identity.public)
        await bridge.write("hello app")
        command, body = await app.next()
        assert (command, body[16:]) == (TEXT, b"hello app")
        await app.send(keys.identity.public, DELIVERED, body[:16])
        number = uuid()
        await app.send(keys.identity.public, TEXT, number + b"hello bridge")
        assert await bridge.read() == "hello bridge"
        assert await answer(app) == (DELIVERED, number)
        assert await answer(app) == (READ, number)
        await app.send(keys.identity.public, TEXT, number + b"hello bridge")  # as it does after a break
        assert await answer(app) == (DELIVERED, number)
        bridge.end_input()
        assert await bridge.rest() == []
        assert await bridge.ends() == Exit.DONE


@run_async
async def test_several_peers(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    keys = robot()
    from_robot = [await adds(alice, keys), await adds(bob, keys)]
    variables = environment(tmp_path, keys, relay, alice.keys.invite, bob.keys.invite)
    async with alice.at(relay), bob.at(relay), Bridge(variables) as bridge:
        await bridge.write("to nobody", "bob: one", "two", "Alice:three", "http://example.org: four", "BOB: ", "five")
        assert await hears(bob, from_robot[1], 3) == ["one", "two", "five"]
        assert await hears(alice, from_robot[0], 2) == ["three", "http://example.org: four"]
        await alice.says(from_robot[0], "first\nBob: second")
        assert await bridge.read() == "Alice: first\\nBob: second"
        await bob.says(from_robot[1], "hi")
        assert await bridge.read() == "Bob: hi"
        bridge.end_input()
        assert await bridge.ends() == Exit.USAGE  # for the first line
        assert "none is chosen" in bridge.errors
        assert "to nobody" not in bridge.errors
    unsent = tmp_path / "bridge" / keys.identity.id.hex() / "bridge-unsent.txt"
    assert unsent.read_text() == "to nobody\n"
    assert stat.S_IMODE(unsent.stat().st_mode) == 0o600


@run_async
async def test_json(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    keys = robot()
    contact = await adds(alice, keys)
    await adds(bob, keys)
    variables = environment(tmp_path, keys, relay, alice.keys.invite, bob.keys.invite)
    async with alice.at(relay), Bridge(variables, "--json") as bridge:
        await bridge.write(
            json.dumps({"to": "alice", "text": "Bob: a\nb"}),
            json.dumps({"to": alice.keys.identity.id.hex(), "text": "c"}),
            json.dumps({"text": "to nobody"}),
            json.dumps({"to": "alice", "text": "x", "file": "/etc/passwd"}),
            "no json",
            json.dumps({"to": "carol", "text": "x"}),
            json.dumps({"to": "alice", "text": ""}),
        )
        assert await hears(alice, contact, 2) == ["Bob: a\nb", "c"]
        said = await alice.says(contact, "\u202eone\ntwo\x1b")
        states = []
        while True:
            raw = await bridge.read()
            assert raw.isascii()
            record = json.loads(raw)
            assert record["label"] == "Alice"
            assert record["peer_id"] == alice.keys.identity.id.hex()
            if record["direction"] == "in":
                break
            states.append((record["event"], record["text"], record.get("detail")))
        assert ("state", "c", "sent") in states
        assert ("state", "c", "delivered") in states
        assert record["text"] == "\u202eone\ntwo\x1b"
        assert record["event"] == "message"
        assert record["trust"] == "invited"
        await alice.store.write(messages.edit, alice.now(), said.id, "other words")
        record = await bridge.read_record()
        assert (record["event"], record["text"]) == ("edited", "other words")
        await alice.store.write(messages.delete, alice.now(), said.id, for_both=True)
        assert (await bridge.read_record())["event"] == "deleted"
        bridge.end_input()
        assert await bridge.ends() == Exit.USAGE
        assert bridge.errors.count('{"warning"') == 5


@run_async
async def test_nobody_is_there(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    keys = robot()
    contact = await adds(alice, keys)
    variables = environment(tmp_path, keys, relay, alice.keys.invite)
    async with Bridge(variables, "--linger", "0.2") as bridge:
        await bridge.write("for later")
        bridge.end_input()
        assert await bridge.ends() == Exit.NOT_IN_TIME
        assert "goes out when" in bridge.errors
    async with alice.at(relay), Bridge(variables) as bridge:
        assert await hears(alice, contact, 1) == ["for later"]
        await bridge.write("and now")
        bridge.end_input()
        assert await bridge.ends() == Exit.DONE
    assert await alice.heard(contact) == ["for later", "and now"]


@run_async
async def test_an_end_without_a_line(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    async with Bridge(environment(tmp_path, robot(), relay, alice.keys.invite), "--linger", "60") as bridge:
        bridge.end_input()
        assert await bridge.ends() == Exit.DONE


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", Exit.DONE), ("SIGHUP", Exit.DONE), ("SIGINT", 130)])
@run_async
async def test_signals(relay: RelayProcess, alice: Person, tmp_path: Path, number: str, status: int) -> None:
    keys = robot()
    contact = await adds(alice, keys)
    async with alice.at(relay), Bridge(environment(tmp_path, keys, relay, alice.keys.invite)) as bridge:
        await bridge.write("here")
        assert await hears(alice, contact, 1) == ["here"]
        bridge.signal(signal.Signals[number])
        assert await bridge.ends() == status


@run_async
async def test_nobody_reads(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    keys = robot()
    contact = await adds(alice, keys)
    variables = environment(tmp_path, keys, relay, alice.keys.invite)
    async with alice.at(relay):
        async with Bridge(variables) as bridge:
            bridge.stop_reading()
            await bridge.write("ping")
            assert await hears(alice, contact, 1) == ["ping"]
            await alice.says(contact, "pong")
            assert await bridge.ends() == Exit.DONE
        async with Bridge(variables) as bridge:  # what could not be printed is not lost
            assert await bridge.read() == "pong"


@run_async
async def test_killed_at_every_step(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    """Whatever was going on: lines of a watched file arrive once and in order; of what is printed nothing is missing or
    out of order, and what comes twice has the same number."""
    keys = robot()
    contact = await adds(alice, keys)
    log = tmp_path / "log"
    log.touch()
    variables = {**environment(tmp_path, keys, relay, alice.keys.invite), "WSCHAT_WATCH": str(log)}
    async with alice.at(relay):
        async with Bridge(variables) as bridge:  # from now on all lines of the file are new
            await until_watched(tmp_path, keys, log)
            await bridge.kill()
        printed: dict[int, str] = {}
        up: list[str] = []
        down: list[str] = []
        for kill_at in range(1, 1000):
            up.append(f"up {kill_at}")
            down.append(f"down {kill_at}")
            with log.open("a") as file:
                file.write(json.dumps({"text": up[-1]}) + "\n")
            said = await alice.says(contact, down[-1])
            async with Bridge(variables, "--json", kill_at=kill_at) as bridge:
                done = asyncio.create_task(_both(alice, contact, len(up), said))
                dead = asyncio.create_task(bridge.dies())
                await asyncio.wait({done, dead}, timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
                survived = not dead.done()
                assert survived or dead.result() == -signal.SIGKILL
                done.cancel()
                dead.cancel()
                await bridge.kill()
                for raw in await bridge.rest():
                    record = json.loads(raw)
                    if record["event"] == "message" and record["direction"] == "in":
                        assert printed.setdefault(record["cursor"], record["text"]) == record["text"]
            if survived:
                break
        assert kill_at > 10
        assert [printed[number] for number in sorted(printed)] == down
        assert await alice.heard(contact) == up


async def until_watched(home: Path, keys: ClientKeys, log: Path) -> None:
    """Wait until a bridge has seen a file for the first time."""
    path = home / "bridge" / keys.identity.id.hex() / "store.db"
    make_directories(path.parent)  # whoever is first makes it
    async with open_store(path) as store:
        version = -1
        while await store.read(status.get, f"watch:{log}") is None:
            version = await store.changed(version)


@run_async
async def test_a_watched_file(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    keys = robot()
    contact = await adds(alice, keys)
    log = tmp_path / "log"
    log.write_text("old\nbegun ")
    variables = {**environment(tmp_path, keys, relay, alice.keys.invite), "WSCHAT_WATCH": str(log)}
    async with alice.at(relay):
        async with Bridge(variables) as bridge:
            bridge.end_input()  # which does not end it
            await bridge.says("connected")
            store = open_store(tmp_path / "bridge" / keys.identity.id.hex() / "store.db")
            async with store:
                while not await store.read(
                    lambda db: db.execute("SELECT 1 FROM status WHERE name LIKE 'watch%'").fetchone()
                ):
                    await store.changed(store.version(), 0.05)
            with log.open("a") as file:
                file.write("and ended\npart")
            assert await hears(alice, contact, 1) == ["begun and ended"]
            log.rename(tmp_path / "log.1")
            log.write_text("in the new file\n")
            assert await hears(alice, contact, 3) == ["begun and ended", "part", "in the new file"]
            log.write_text("anew\n")
            await hears(alice, contact, 4)
            await bridge.kill()
        with log.open("a") as file:
            file.write("while nobody looked\n")
        async with Bridge(variables):
            said = ["begun and ended", "part", "in the new file", "anew", "while nobody looked"]
            assert await hears(alice, contact, 5) == said


@run_async
async def test_killed_while_it_watches(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    """Each line arrives once and in order, wherever the bridge was killed."""
    keys = robot()
    contact = await adds(alice, keys)
    log = tmp_path / "log"
    variables = {**environment(tmp_path, keys, relay, alice.keys.invite), "WSCHAT_WATCH": str(log)}
    texts = [f"line {number}" for number in range(1000)]
    async with alice.at(relay):
        async with Bridge(variables) as bridge:
            await bridge.says("connected")
            log.write_text("".join(f"{text}\n" for text in texts[:300]))
            await hears(alice, contact, 1)
            await bridge.kill()
        with log.open("a") as file:
            file.writelines(f"{text}\n" for text in texts[300:])
        for seen in (100, 400, 700):
            async with Bridge(variables) as bridge:
                await _heard(alice, contact, seen)
                await bridge.kill()
        async with Bridge(variables):
            await _heard(alice, contact, len(texts))
    assert await alice.heard(contact) == texts


async def _both(person: Person, contact: ContactRow, count: int, said: MessageRow) -> int:
    await _heard(person, contact, count)
    await until_read(person, said)
    return 0


async def _heard(person: Person, contact: ContactRow, count: int) -> None:
    await person.until(_count, lambda found: found >= count, contact.id)


def _count(db: Connection, contact: int) -> int:
    (count,) = db.execute("SELECT count(*) FROM messages WHERE contact = ? AND outgoing = 0", (contact,)).fetchone()
    return int(count)


@run_async
async def test_strangers_are_shut_out(relay: RelayProcess, alice: Person, bob: Person, tmp_path: Path) -> None:
    keys = robot()
    from_alice, from_bob = await adds(alice, keys), await adds(bob, keys)
    variables = environment(tmp_path, keys, relay, alice.keys.invite)
    async with alice.at(relay), bob.at(relay), Bridge(variables) as bridge:
        await bob.says(from_bob, "let me in")
        await alice.says(from_alice, "hi")
        assert await bridge.read() == "hi"
        store = open_store(tmp_path / "bridge" / keys.identity.id.hex() / "store.db")
        async with store:
            version = -1
            while True:
                version = await store.changed(version)
                found = {row.nickname: row for row in await store.read(contacts.everyone)}
                if "Bob" in found and found["Bob"].blocked:
                    break
        bridge.end_input()
        assert await bridge.rest() == []
        assert await bridge.ends() == Exit.DONE


@run_async
async def test_one_bridge_at_a_time(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    variables = environment(tmp_path, robot(), relay, alice.keys.invite)
    async with Bridge(variables) as first:
        await first.says("connected")
        async with Bridge(variables) as second:
            assert await second.ends() == Exit.USAGE
            assert "another program uses the profile" in second.errors


@run_async
async def test_the_keys_are_another_relays(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    variables = environment(tmp_path, robot(), relay, alice.keys.invite)
    other = Identity.generate().public
    variables |= {"WSCHAT_SERVER_X_PUB": other.x_pub.hex(), "WSCHAT_SERVER_ED_PUB": other.ed_pub.hex()}
    async with Bridge(variables) as bridge:
        assert await bridge.ends() == Exit.REFUSED
        assert "has other keys than its relay card says" in bridge.errors


@run_async
async def test_the_seeds_are_written_nowhere(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    keys = robot()
    contact = await adds(alice, keys)
    async with alice.at(relay), Bridge(environment(tmp_path, keys, relay, alice.keys.invite)) as bridge:
        await bridge.write("hello")
        await hears(alice, contact, 1)
        own = tmp_path / "bridge" / keys.identity.id.hex()
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        content = b"".join(path.read_bytes() for path in own.rglob("*") if path.is_file())
        assert b"hello" in content
        for seed in keys.identity.seeds:
            assert seed not in content
            assert seed.hex().encode() not in content
        bridge.end_input()
        assert await bridge.ends() == Exit.DONE
        assert bridge.errors.count("\n") == 1  # "connected"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WSCHAT_X_SEED", "5ec4e7" * 10),
        ("WSCHAT_ED_SEED", "5ec4e7 5ec4e7"),
        ("WSCHAT_PEER_QR", "K05ec4e7"),
        ("WSCHAT_SERVER_X_PUB", "5ec4e7"),
        ("WSCHAT_SERVER_ED_PUB", ""),
        ("WS_URL", "http://5ec4e7"),
        ("WSCHAT_NICK", "5ec4e7" * 50),
    ],
)
@run_async
async def test_an_environment_that_makes_no_sense(
    relay: RelayProcess, alice: Person, tmp_path: Path, name: str, value: str
) -> None:
    async with Bridge({**environment(tmp_path, robot(), relay, alice.keys.invite), name: value}) as bridge:
        assert await bridge.ends() == Exit.USAGE
        assert name in bridge.errors
        assert "5ec4e7" not in bridge.errors
        assert bridge.errors.startswith("blindrelay-chat: ")


@run_async
async def test_a_profile(
    relay: RelayProcess, user: Callable[[str], User], alice: Person, bob: Person, tmp_path: Path
) -> None:
    profile = user("robot")
    invite = Invite.parse(profile.joins(relay))
    keys = ClientKeys(robot().identity, "Dave")  # who introduces himself, and is nobody's peer
    to_robot = {}
    for person in (alice, bob):
        profile.does("add", person.keys.invite.text)
        to_robot[person] = await person.store.write(contacts.add, 1, invite.public, nickname="robot")
    variables = profile.environment()
    async with alice.at(relay), bob.at(relay):
        old = await alice.says(to_robot[alice], "before the bridge")
        seen = await asyncio.to_thread(profile.does, "listen", "--once", "--json")
        assert seen.record["text"] == "before the bridge"
        assert (await alice.store.read(messages.get, old.id)).state == State.DELIVERED
        async with Clients(relay) as clients:
            app = await Telefon.open(clients, keys.identity, alice.keys.identity.public)
            await app.introduce(invite.public, "Dave")
            async with Bridge(variables) as bridge:
                assert await bridge.read() == "Alice: before the bridge"  # it was unread
                await app.introduce(invite.public, "Dave")
                await app.send(invite.public, TEXT, uuid() + b"from a stranger")
                await bridge.write("Dave: hi", "Bob: hi")
                assert await hears(bob, to_robot[bob], 1) == ["hi"]
                await bob.says(to_robot[bob], "and hi")
                assert await bridge.read() == "Bob: and hi"
                bridge.end_input()
                assert await bridge.ends() == Exit.USAGE
        assert (profile.home / "profiles" / "robot" / "bridge-unsent.txt").read_text() == "Dave: hi\n"
        async with Bridge(variables, "--peer", "bob") as bridge:
            await bridge.write("Alice: to Bob all the same")
            assert await hears(bob, to_robot[bob], 2) == ["hi", "Alice: to Bob all the same"]
            await alice.says(to_robot[alice], "not for this one")
            await bob.says(to_robot[bob], "for this one")
            assert await bridge.read() == "for this one"
    for arguments in (("--peer", "Eve"), ("--profile", "other")):
        async with Bridge(variables, *arguments) as bridge:
            assert await bridge.ends() == Exit.NOT_FOUND


@run_async
async def test_beside_another_program_of_the_profile(
    relay: RelayProcess, user: Callable[[str], User], alice: Person
) -> None:
    """Whichever of the two carries, and also when the one that did has ended."""
    profile = user("robot")
    invite = Invite.parse(profile.joins(relay))
    profile.does("add", alice.keys.invite.text)
    to_robot = await alice.store.write(contacts.add, 1, invite.public, nickname="robot")
    async with alice.at(relay):
        with profile.starts("listen", "--json", "--all") as listening:
            await asyncio.to_thread(listening.until, "connection", connection="connected")
            async with Bridge(profile.environment()) as bridge:
                await bridge.write("one")
                assert await hears(alice, to_robot, 1) == ["one"]
                listening.interrupt()
                await bridge.write("two")
                assert await hears(alice, to_robot, 2) == ["one", "two"]
                await alice.says(to_robot, "three")
                assert await bridge.read() == "three"
                bridge.end_input()
                assert await bridge.ends() == Exit.DONE


@run_async
async def test_stdout_is_closed(relay: RelayProcess, alice: Person, tmp_path: Path) -> None:
    """What is meant for it must not get into a file that was opened in its place."""
    keys = robot()
    contact = await adds(alice, keys)
    async with alice.at(relay):
        process = await asyncio.create_subprocess_shell(
            f"exec {sys.executable} -m peers.chat bridge --linger 60 >&-",
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment(tmp_path, keys, relay, alice.keys.invite)},
        )
        said = await alice.says(contact, "into the void")
        await until_read(alice, said)
        _, errors = await asyncio.wait_for(process.communicate(b""), WAIT)
        assert process.returncode == Exit.DONE, errors
