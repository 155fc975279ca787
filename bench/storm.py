"""A node of a cluster dies, and all that were at it come back: `python -m bench.storm --sessions N`.

Three relays and a NATS server. All sessions are at the first relay, which is killed; then all open again at once, half
of them at each of the others, where each id has to be claimed. Told is the time until the last was let in, what that
cost each process, and whether a frame reaches each of them afterwards. One generator drives all, so its processor time
stands beside: where it is near the time that all took, the relays were waiting for it.
"""

import argparse
import os
import secrets
import select
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.cluster import nats_server
from bench.load.framing import BINARY, CLOSE, PING, PONG, BadStream, masked, take_messages
from bench.load.opening import Link, Opened, Opener, open_links, prepare
from bench.machine import cpu_time, raise_file_limit, resident_kib
from bench.stats import percentile
from bench.targets import RAISED, Target, started
from keys.files import ServerKeys, write_server_keys
from keys.identity import Identity

_NODES: Final = ("the node that dies", "node 1", "node 2")
_SPARE_FILES: Final = 512
_WITHIN: Final = 60.0
_SIZE: Final = 256
_SLICE: Final = 1000


def _command(directory: Path, url: str, secret: Path) -> list[str]:
    limits = [part for name, value in RAISED.items() for part in (f"--limits.{name.replace('_', '-')}", str(value))]
    how = ["--port", "0", "--admin", "off", "--drain", "0", "--data-dir", str(directory)]
    return [sys.executable, "-m", "relay", *how, "--nats", url, "--cluster-secret-file", str(secret), *limits]


def _come_back(threads: ThreadPoolExecutor, targets: list[Target], identities: list[Identity]) -> list[Opened]:
    """Open all sessions, as many at each relay, at the same time."""
    tickets = [prepare(target, identities[number :: len(targets)]) for number, target in enumerate(targets)]
    return list(threads.map(lambda target, some: Opener(target).open(some), targets, tickets))


def _send(sender: Link, identities: list[Identity]) -> None:
    for identity in identities:
        sender.socket.sendall(masked(sender.session.send(identity.id, os.urandom(_SIZE))))


def _received(links: list[Link]) -> int:
    """Count the frames of `_SIZE` bytes that come to these links, until each has one or time is up.

    Raises:
        BadStream: a session was closed, or somebody got more than was sent.
    """
    missing = {link.socket.fileno(): 1 for link in links}
    by_descriptor = {link.socket.fileno(): link for link in links}
    until = time.monotonic() + _WITHIN
    with select.epoll() as epoll:
        for descriptor in by_descriptor:
            epoll.register(descriptor, select.EPOLLIN)
        while any(missing.values()) and time.monotonic() < until:
            for descriptor, _ in epoll.poll(1.0):
                link = by_descriptor[descriptor]
                data = link.socket.recv(1 << 16)
                link.buffer += data
                for message in take_messages(link.buffer):
                    if message.opcode == PING:
                        link.socket.sendall(masked(message.payload, PONG))
                    elif message.opcode == BINARY and len(message.payload) == _SIZE + 8:
                        missing[descriptor] -= 1
                    elif message.opcode == CLOSE:
                        data = b""
                if not data or missing[descriptor] < 0:
                    raise BadStream("a session that came back was closed" if not data else "a frame came twice")
    return len(links) - sum(missing.values())


def measure(sessions: int) -> None:
    """Let a node die, and print what it takes until everybody is back."""
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(len(_NODES)))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blindrelay-bench-")))
        url, nats_pid = stack.enter_context(nats_server())
        secret = directory / "cluster.secret"
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        keys = ServerKeys(Identity.generate(), None)
        targets = []
        for number, name in enumerate(_NODES):
            place = directory / f"node-{number}"
            place.mkdir()
            write_server_keys(place / "relay.keys", keys)
            core = number % (os.cpu_count() or 1)
            targets.append(stack.enter_context(started(name, _command(place, url, secret), core, place / "log")))
        dying, *others = targets
        identities = [Identity.generate() for _ in range(sessions)]
        [before] = _come_back(threads, [dying], identities)
        print(f"{sessions:,} sessions at one node of three: open within {before.seconds:.2f} s", flush=True)
        [sender] = open_links(others[0], [Identity.generate()])
        # Half of them were written to: where they are is known to another node, and has to be forgotten.
        known = identities[: sessions // 2]
        by_id = {link.identity.id: link for link in before.links}
        for start in range(0, len(known), _SLICE):
            _send(sender, known[start : start + _SLICE])
            _received([by_id[identity.id] for identity in known[start : start + _SLICE]])
        os.kill(dying.pid or 0, 9)
        for link in before.links:
            link.close()
        pids = [target.pid or 0 for target in others]
        spent = [cpu_time(pid).on_cpu for pid in (*pids, nats_pid)]
        own, begun = time.process_time(), time.perf_counter()
        opened = _come_back(threads, others, identities)
        took, own = time.perf_counter() - begun, time.process_time() - own
        costs = [cpu_time(pid).on_cpu - was for pid, was in zip((*pids, nats_pid), spent, strict=True)]
        times = sorted(seconds for one in opened for seconds in one.times)
        print(f"the node is killed; all are back after {took:.2f} s", end=" ")
        print(f"(half after {percentile(times, 0.5):.2f} s, 99 % after {percentile(times, 0.99):.2f} s);", end=" ")
        print(f"{sum(one.retries for one in opened)} had to try again, nobody was refused")
        names = ("node 1", "node 2", "NATS")
        print("  processor time: " + ", ".join(f"{name} {cost:.2f} s" for name, cost in zip(names, costs, strict=True)))
        each = sum(costs[:2]) / sessions * 1e6
        print(f"  that is {each:,.0f} µs of the relays for each session; the generator took {own:.2f} s")
        memory = [f"{target.name} {resident_kib(target.pid or 0) / 1024:.0f} MiB" for target in others]
        print("  memory: " + ", ".join(memory))
        for one in opened:
            one.confirm()
        back = [link for one in opened for link in one.links]
        begun = time.perf_counter()
        came = 0
        # A node asks for so many ids at once and refuses more: a client would send again.
        for start in range(0, sessions, _SLICE):
            some = back[start : start + _SLICE]
            _send(sender, [link.identity for link in some])
            came += _received(some)
        print(f"  a frame to each: {came:,} of {sessions:,} arrived, within {time.perf_counter() - begun:.2f} s")
        if came != sessions:
            raise BadStream("somebody who came back is not reached")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.storm", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1500, help="at the node that dies")
    arguments = parser.parse_args()
    if arguments.sessions < 1:
        parser.error("there is no storm without sessions: give 1 or more")
    # Before and after the storm each session is a file of ours.
    limit = raise_file_limit(arguments.sessions + _SPARE_FILES)
    if limit < arguments.sessions + _SPARE_FILES:
        parser.error(f"{arguments.sessions} sessions need as many open files, and {limit} are allowed: raise ulimit -n")
    measure(arguments.sessions)


if __name__ == "__main__":
    main()
