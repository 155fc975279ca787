"""`python -m bench.chat`: what the chat costs. A message from a cold start, a long history, a large file.

Nothing here is judged: times depend on the machine. Those of whole programs stand beside the start of a bare
interpreter, and those of the file beside hashing it, on the same machine in the same minute.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity
from keys.invite import RelayCard
from peers.profile import Profile
from peers.store import Connection, contacts, messages, open_store

_RUNS = 7
_WORDS = ("weather", "river", "tomorrow", "bicycle", "coffee", "library", "evening", "question", "garden", "letter")
_MIB = 1 << 20


def main() -> int:
    """Measure, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.chat", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--messages", type=int, default=100_000, help="stored messages (default 100,000)")
    parser.add_argument("--mib", type=int, default=1024, help="MiB of the file (default 1,024)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        asyncio.run(_history(directory / "store.db", arguments.messages))
        with _relay(directory) as card:
            people = _People(directory, card)
            _cold_send(people)
            _file(people, arguments.mib)
    return 0


def _tell(what: str, value: str) -> None:
    print(f"{what:62} {value:>24}", flush=True)


def _median(measure: Callable[[], float], runs: int = _RUNS) -> float:
    return statistics.median(measure() for _ in range(runs))


# --- A long history ---------------------------------------------------------------------------------------------------


async def _history(path: Path, count: int) -> None:
    store = open_store(path)
    row = await store.write(contacts.add, 0, Identity.generate().public, nickname="Bob")
    began = time.perf_counter()
    await store.write(_fill, row.id, count)
    _tell(f"{count:,} messages received, in one transaction", f"{time.perf_counter() - began:.1f} s")
    await store.close()

    async def opened() -> float:
        began = time.perf_counter()
        async with open_store(path) as store:
            # What a screen asks for, from a file that is not open yet.
            await asyncio.gather(
                store.read(contacts.everyone),
                store.read(messages.unread),
                store.read(messages.latest),
                store.read(messages.history, row.id),
            )
            return time.perf_counter() - began

    _tell("open the store and a chat of that length", _ms(statistics.median([await opened() for _ in range(_RUNS)])))
    async with open_store(path) as store:
        for what, words in (
            ("one word in ten messages", "garden"),
            ("two words", "river garden"),
            ("the beginning of a word", "wea"),
            ("one message among all", f"number{count // 2}"),
            ("nothing", "zebra"),
        ):
            times = []
            for _ in range(_RUNS):
                began = time.perf_counter()
                found = await store.read(messages.search, words)
                times.append(time.perf_counter() - began)
            _tell(f"search for {what} ({len(found)} shown)", _ms(statistics.median(times)))


def _fill(db: Connection, contact: int, count: int) -> None:
    for number in range(count):
        text = f"{_WORDS[number % 10]} and {_WORDS[number // 10 % 10]} number{number}"
        messages.receive(db, number, contact, messages.uuid(), text)


# --- Whole programs --------------------------------------------------------------------------------------------------


@contextmanager
def _relay(directory: Path) -> Iterator[str]:
    keys = Identity.generate()
    write_server_keys(directory / "relay.keys", ServerKeys(keys))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    command = [sys.executable, "-P", "-m", "relay", "--port", "0", "--admin", "off", "--drain", "0"]
    with subprocess.Popen(
        command,
        env=environment | {"RELAY_DATA_DIR": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as relay:
        assert relay.stdout is not None
        line = relay.stdout.readline()
        url = next(word for word in line.split() if word.startswith("ws://"))
        try:
            yield RelayCard(keys.public, url).text
        finally:
            relay.terminate()


class _People:
    """Two profiles, a sender and a receiver who listens."""

    def __init__(self, directory: Path, card: str) -> None:
        self.directory = directory
        self.environment = {**os.environ, "BLINDRELAY_HOME": str(directory / "home"), "NO_COLOR": "1"}
        for name in ("alice", "bob"):
            self.run(name, "init", "--relay", card, "--name", name)
        bob = Profile.locate("bob", self.environment)
        bob.write_settings(replace(bob.settings(), auto_accept=1 << 40))
        for name, other in (("alice", "bob"), ("bob", "alice")):
            invite = self.json(other, "me")["invite"]
            self.run(name, "add", invite)

    def command(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "peers.chat", "--profile", name, *arguments]

    def run(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            self.command(name, *arguments), env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"blindrelay-chat {arguments[0]} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def json(self, name: str, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(name, "--json", *arguments))
        return answer

    @contextmanager
    def listening(self, name: str) -> Iterator["subprocess.Popen[bytes]"]:
        with subprocess.Popen(
            self.command(name, "--json", "listen"),
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)


def _cold_send(people: _People) -> None:
    def bare() -> float:
        return _timed([sys.executable, "-P", "-c", "pass"])

    def send() -> float:
        began = time.perf_counter()
        people.run("alice", "send", "bob", "hello", "--wait", "delivered", "--timeout", "60")
        return time.perf_counter() - began

    with people.listening("bob"):
        send()  # until the other one listens
        python, cold = _median(bare), _median(send)
    _tell("a message, from a cold start to its acknowledgement", _ms(cold))
    _tell("  of which a bare interpreter", _ms(python))


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def _file(people: _People, mib: int) -> None:
    path = people.directory / "file.bin"
    block = os.urandom(_MIB)
    with path.open("wb") as file:
        for number in range(mib):
            file.write(number.to_bytes(8, "big") + block[8:])
    with people.listening("bob") as bob:
        people.run("alice", "send", "bob", "a file follows", "--wait", "delivered", "--timeout", "60")
        receiver, before = psutil.Process(bob.pid), psutil.Process(bob.pid).memory_info().rss
        began = time.perf_counter()
        with subprocess.Popen(
            people.command("alice", "file", "send", "bob", str(path), "--wait", "--timeout", "3600"),
            env=people.environment,
            stdout=subprocess.DEVNULL,
        ) as alice:
            sender = psutil.Process(alice.pid)
            most = {"sender": 0, "receiver": 0}
            while alice.poll() is None:
                try:
                    most["sender"] = max(most["sender"], sender.memory_info().rss)
                    most["receiver"] = max(most["receiver"], receiver.memory_info().rss)
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.05)
        took = time.perf_counter() - began
    if alice.returncode:
        raise SystemExit(f"the file did not arrive: exit status {alice.returncode}")
    _tell(f"a file of {mib:,} MiB, hashed, sent, hashed, acknowledged", f"{took:.1f} s, {mib / took:.0f} MiB/s")
    _tell("  most memory of the sender", f"{most['sender'] / _MIB:.0f} MiB")
    _tell("  most memory of the receiver", f"{most['receiver'] / _MIB:.0f} MiB (before: {before / _MIB:.0f})")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    raise SystemExit(main())
