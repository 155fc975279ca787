"""Real processes over real sockets: a relay, the mailbox, clients by HTTP and through the relay."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from keys.contact import Contact
from keys.deposit import seal_deposit
from keys.identity import Identity
from keys.invite import RelayCard
from keys.stamp import NO_STAMP, mint_stamp
from peers.client import Introduction, PeerPacket, RelayClient
from peers.mailbox.keyfile import mint
from tests.integration.test_secrecy_process import find_spelling
from tests.peers.mailbox.lab import ALICE, BOB, asked, check_sums, contents
from tests.peers.mailbox.running import MailboxProcess
from tests.support.clients import WAIT, run_async
from tests.support.relay_process import ROOT, RelayProcess, running_relay
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire.inner import Inner, parse_inner
from wire.mailbox_answers import parse_from_mailbox
from wire.mailbox_codes import Reason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.peers.mailbox.http_lab import Asker

UNLIMITED = {
    "introductions_per_second": 0,
    "introductions_pair_per_second": 0,
    "introductions_target_per_second": 0,
    "commands_per_second": 0,
    "frames_per_second": 0,
    "bytes_per_second": 0,
}


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    with running_relay(tmp_path / "relay", limits=UNLIMITED) as running:
        yield running


@asynccontextmanager
async def started(directory: Path, relay: RelayProcess | None = None, **how: Any) -> AsyncIterator[MailboxProcess]:
    """A mailbox that is killed at the end, if nobody ended it before."""
    box = MailboxProcess(directory, relay, **how)
    try:
        await box.logged("started" if relay is None else "connected")
        yield box
    finally:
        box.kill()


class Visitor:
    """A client of the mailbox through the relay."""

    def __init__(self, relay: RelayClient, who: Identity, box: MailboxProcess) -> None:
        self.relay = relay
        self.who = who
        self.box = Contact(who, box.identity.public)
        self.introduced: asyncio.Event = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._task = asyncio.create_task(self._read())
        self._last = 0

    async def _read(self) -> None:
        async for event in self.relay:
            if isinstance(event, Introduction):
                assert event.public == self.box.public
                self.introduced.set()
            if isinstance(event, PeerPacket):
                inner = parse_inner(self.box.open(event.packet))
                answer = parse_from_mailbox(inner.command, inner.body)
                waiting = self._answers.pop(getattr(answer, "request", 0), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)

    async def tell(self, body: Any) -> asyncio.Future[Any]:
        """Send a request; return the future of its answer."""
        future = asyncio.get_running_loop().create_future()
        self._answers[getattr(body, "request", 0)] = future
        await self.relay.send(self.box.id, self.box.seal(Inner(1, body.command, body.encode()).encode()))
        return future

    async def says(self, body: Any) -> Any:
        async with asyncio.timeout(WAIT):
            return await (await self.tell(body))

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@asynccontextmanager
async def visiting(relay: RelayProcess, box: MailboxProcess, who: Identity | None = None) -> AsyncIterator[Visitor]:
    who = who or Identity.generate()
    async with RelayClient(who, RelayCard(relay.public, relay.url)) as client:
        visitor = Visitor(client, who, box)
        await client.connected(WAIT)
        await client.introduce(box.identity.id, "")
        try:
            yield visitor
        finally:
            await visitor.end()


# --- The whole way ----------------------------------------------------------------------------------------------------


@run_async
async def test_both_ways_lead_to_the_same_items(tmp_path: Path, relay: RelayProcess) -> None:
    async with started(tmp_path / "box", relay) as box:
        bob = Identity.generate()
        sealed = seal_deposit(ALICE.public, bob.public.x_pub, box.identity.public, b"the packet")
        async with visiting(relay, box) as throwaway, await box.asker() as http:
            assert isinstance(await throwaway.says(asked(1, bob, deposit=sealed)), answers.Kept)
            assert isinstance(await http.says(asked(2, bob)), answers.Kept)
            async with visiting(relay, box, bob) as owner:
                lease = await owner.says(asks.Fetch(1, 10))
                assert lease.items[0].content == sealed
                assert (await http.says(asks.List(0), bob)).leased == 2
                numbers = tuple(item.number for item in lease.items)
                assert (await http.says(asks.Ack(0, numbers), bob)).count == 2
                assert (await owner.says(asks.List(2))).items == 0
            assert await box.page("/readyz") == (200, "ready\n")
            assert await box.page("/healthz") == (200, "ok\n")
            assert await box.figure("request_seconds_count", face="relay", command="deposit") == 1
            assert await box.figure("relay_connected") == 1
        await box.stop()
        assert [record["event"] for record in box.records] == ["started", "connected", "stopping", "stopped"]
        assert box.records[-1]["given_up"] == 0
        for public in (bob.public, throwaway.who.public, box.identity.public):
            assert find_spelling(public.id, box.output.encode()) is None
        assert "127.0.0.1:" + http.base.rpartition(":")[2] in box.output  # its own address is all that it names


@run_async
async def test_without_its_relay_it_serves_http_and_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "relay"
    directory.mkdir()
    relay = RelayProcess(directory, limits=UNLIMITED)
    async with started(tmp_path / "box", relay) as box, await box.asker() as http:
        relay.process.kill()
        relay.process.wait()
        await box.logged("disconnected")
        assert isinstance(await http.says(asked(1)), answers.Kept)
        assert (await box.page("/readyz"))[0] == 503
        again = RelayProcess(directory, limits=UNLIMITED, arguments=["--port", str(relay.port)])
        try:
            async with visiting(again, box, BOB) as bob:
                async with asyncio.timeout(WAIT):
                    while await box.figure("relay_sessions_total") < 2:  # noqa: ASYNC110 - of a metric there is no event
                        await asyncio.sleep(0.02)
                await bob.relay.introduce(box.identity.id, "")
                assert contents(await bob.says(asks.Fetch(1, 10))) == [1]
        finally:
            again.process.kill()
            again.process.wait()
        await box.stop()


# --- kill -9 ----------------------------------------------------------------------------------------------------------


async def flood(says: Any, first: int, kept: set[int], told: asyncio.Event) -> None:
    """Deposit until the mailbox is gone; note what it confirmed."""
    number = first
    with suppress(aiohttp.ClientError, OSError, asyncio.CancelledError):
        while True:
            answer = await says(asked(number, ttl=3600))
            assert isinstance(answer, answers.Kept)
            kept.add(number)
            told.set()
            number += 1


async def everything(http: Asker, who: Identity = BOB) -> list[int]:
    """Fetch and acknowledge all there is."""
    found: list[int] = []
    while True:
        lease = await http.says(asks.Fetch(0, 64), who)
        if not lease.items:
            return found
        found += contents(lease)
        await http.says(asks.Ack(0, tuple(item.number for item in lease.items)), who)


@run_async
async def test_kill_9_while_deposits_come_by_both_ways(tmp_path: Path, relay: RelayProcess) -> None:
    kept: set[int] = set()
    for round_ in range(3):
        base = (round_ + 1) * 1_000_000
        async with started(tmp_path / "box", relay) as box, await box.asker() as http, visiting(relay, box) as visitor:
            told = asyncio.Event()

            tasks = [asyncio.create_task(flood(http.says, base + n * 10_000, kept, told)) for n in range(4)]
            tasks += [asyncio.create_task(flood(visitor.says, base + n * 10_000, kept, told)) for n in range(4, 8)]
            async with asyncio.timeout(WAIT):
                await told.wait()
            already = len(kept)
            async with asyncio.timeout(WAIT):
                while len(kept) < already + 40 + 17 * round_:  # noqa: ASYNC110 - a count that others raise
                    await asyncio.sleep(0)
            box.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks)
    async with started(tmp_path / "box", relay) as box, await box.asker() as http:
        found = await everything(http)
        assert len(found) == len(set(found))
        assert kept <= set(found)
        await box.stop()
    check_sums(tmp_path / "box" / "mailbox.db")


@run_async
async def test_kill_9_between_lease_and_ack_and_in_the_middle_of_acks(tmp_path: Path, relay: RelayProcess) -> None:
    async with started(tmp_path / "box", relay) as box, await box.asker() as http:
        for number in range(40):
            await http.says(asked(number))
        leased = await http.says(asks.Fetch(0, 10), BOB)
        assert contents(leased) == list(range(10))
        box.kill()
    acked: set[int] = set()
    asked_for: set[int] = set()
    async with started(tmp_path / "box", relay) as box, visiting(relay, box, BOB) as bob:
        lease = await bob.says(asks.Fetch(1, 64))
        assert contents(lease) == list(range(40))  # the lease ended with the process, and nothing was deleted by it
        waiting = []
        for request, (number, item) in enumerate(zip(contents(lease), lease.items, strict=True), 2):
            asked_for.add(number)
            waiting.append((number, await bob.tell(asks.Ack(request, (item.number,)))))
            if number == 20:
                async with asyncio.timeout(WAIT):
                    await waiting[5][1]
                box.kill()
                break
        await asyncio.sleep(0)
        acked = {number for number, answer in waiting if answer.done()}
    assert len(acked) >= 1
    async with started(tmp_path / "box", relay) as box, await box.asker() as http:
        again = await http.says(asks.Fetch(0, 64), BOB)
        there = set(contents(again))
        assert set(range(40)) - asked_for <= there <= set(range(40)) - acked
        # An old ACK still counts, and deletes nothing else.
        await http.says(asks.Ack(0, tuple(item.number for item in leased.items)), BOB)
        numbers = tuple(item.number for item in again.items)
        assert (await http.says(asks.Ack(0, numbers), BOB)).count == len(there - set(range(10)))
        assert (await http.says(asks.List(0), BOB)).items == 0
        await box.stop()
    check_sums(tmp_path / "box" / "mailbox.db")


# --- Signals ----------------------------------------------------------------------------------------------------------


@run_async
async def test_what_was_begun_is_answered_when_it_is_told_to_end(tmp_path: Path, relay: RelayProcess) -> None:
    async with started(tmp_path / "box", relay) as box, await box.asker() as http, visiting(relay, box) as visitor:
        waiting = [await visitor.tell(asked(number)) for number in range(50)]
        async with asyncio.timeout(WAIT):
            await waiting[0]
        by_http = [asyncio.create_task(http.says(asked(number))) for number in range(100, 110)]
        done, _ = await asyncio.wait(by_http, return_when=asyncio.FIRST_COMPLETED)
        await box.stop()
        answered = [each.result() for each in [*waiting, *by_http] if each.done() and not each.exception()]
        assert all(isinstance(each, answers.Kept) for each in answered)
        kept = len(answered)
        for each in by_http:
            each.cancel()
        assert done
    async with started(tmp_path / "box") as box, await box.asker() as http:
        assert len(await everything(http)) >= kept


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_waits_for_nothing(tmp_path: Path, number: signal.Signals) -> None:
    @run_async
    async def check() -> None:
        async with started(tmp_path / "box", arguments=("--limits.stop", "50")) as box:
            at = (await box.logged("started"))["http"].rpartition(":")[2]
            _, writer = await asyncio.open_connection("127.0.0.1", int(at))
            writer.write(b"POST /drop HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
            async with asyncio.timeout(WAIT):
                while "http_turned" not in (await box.page("/metrics"))[1]:  # noqa: ASYNC110 - it was let in by now
                    await asyncio.sleep(0.01)
            box.signal(number)
            await box.logged("stopping")
            box.signal(number)
            assert await box.wait() == 0
            writer.close()

    check()


@run_async
async def test_tokens_and_recipients_are_read_again_at_sighup(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.write_text(f"# those of the house\n{BOB.public.x_pub.hex()}\n")
    async with started(tmp_path / "box", arguments=("--recipients", str(served))) as box, await box.asker() as http:
        assert (await http.says(asked(1, ALICE))).reason == Reason.NOT_SERVED
        assert isinstance(await http.says(asked(1)), answers.Kept)
        served.write_text("nonsense\n")
        box.signal(signal.SIGHUP)
        told = await box.logged("reload_failed")
        assert "line 1" in told["reason"]
        assert "nonsense" not in box.output
        served.write_text(f"{BOB.public.x_pub.hex()}\n{ALICE.public.x_pub.hex()}")
        box.signal(signal.SIGHUP)
        assert (await box.logged("reloaded"))["recipients"] == 2
        assert isinstance(await http.says(asked(1, ALICE)), answers.Kept)
        await box.stop()


_HANGUP_WHILE_OPENING = """
import os, signal, sys
from pathlib import Path
from peers.mailbox import process
from peers.mailbox.__main__ import main
from peers.mailbox.process import open_store

async def opening(settings, *rest):
    settings.recipients.write_text(os.environ["SERVED_LATER"])
    os.kill(os.getpid(), signal.SIGHUP)
    return await open_store(settings, *rest)

process.open_store = opening
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_recipients_that_change_while_the_store_is_opened(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.write_text(f"{BOB.public.x_pub.hex()}\n")
    mint(tmp_path / "box")
    ways = ["--http", "127.0.0.1:0", "--http-url", "http://mailbox.example", "--admin", "off"]
    with subprocess.Popen(
        [sys.executable, "-c", _HANGUP_WHILE_OPENING, *ways, "--recipients", served, "--data-dir", tmp_path / "box"],
        cwd=ROOT,
        env=os.environ | {"SERVED_LATER": f"{BOB.public.x_pub.hex()}\n{ALICE.public.x_pub.hex()}\n"},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        records = []
        for line in running.stderr:
            records.append(json.loads(line))
            if records[-1]["event"] == "started":
                running.send_signal(signal.SIGTERM)
    assert running.returncode == 0
    assert [record["event"] for record in records] == ["reloaded", "started", "stopping", "stopped"]
    assert records[0]["recipients"] == 2


# --- Trouble ----------------------------------------------------------------------------------------------------------


@run_async
async def test_when_the_disk_is_full_reading_and_deleting_go_on_and_it_heals(tmp_path: Path) -> None:
    """A limit on the size of its files refuses writes as a full disk does (EFBIG in place of ENOSPC)."""
    async with started(tmp_path / "box", file_size=600_000) as box, await box.asker() as http:
        refused: list[int] = []
        number = 0
        while not refused:
            answer = await http.says(asked(number))
            if isinstance(answer, answers.Refused):
                refused.append(answer.reason)
            else:
                number += 1
        assert refused[0] in (Reason.FULL, Reason.FAILED)
        assert number > 10
        lease = await http.says(asks.Fetch(0, 5), BOB)
        assert contents(lease) == [0, 1, 2, 3, 4]
        # No room for the log either: then it is there again when there is room.
        acked = await http.says(asks.Ack(0, tuple(item.number for item in lease.items)), BOB)
        assert isinstance(acked, answers.Acked | answers.Refused)
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert isinstance(await http.says(asked(number)), answers.Kept)
        assert (await http.says(asks.Ack(0, tuple(item.number for item in lease.items)), BOB)).count in (0, 5)
        assert await everything(http) == list(range(5, number + 1))
        await box.stop()
    check_sums(tmp_path / "box" / "mailbox.db")


@run_async
async def test_within_the_reserve_of_the_disk_deposits_are_refused_and_all_else_goes_on(tmp_path: Path) -> None:
    async with started(tmp_path / "box") as box, await box.asker() as http:
        await http.says(asked(1))
        await box.stop()
    free = os.statvfs(tmp_path)
    reserve = {"BLINDRELAY_MAILBOX_LIMITS_DISK_RESERVE": str(free.f_bavail * free.f_frsize * 2)}
    async with started(tmp_path / "box", variables=reserve) as box, await box.asker() as http:
        assert (await http.says(asked(2))).reason == Reason.FULL
        lease = await http.says(asks.Fetch(0, 9), BOB)
        assert (contents(lease), lease.refusals) == ([1], 1)
        numbers = tuple(item.number for item in lease.items)
        assert (await http.says(asks.Ack(0, numbers, lease.refusals), BOB)).count == 1
        await box.stop()


@run_async
async def test_spam_within_and_beyond_the_stamp(tmp_path: Path) -> None:
    arguments = ("--limits.price-base", "8", "--limits.price-busy", "10", "--limits.price-most", "12")
    async with started(tmp_path / "box", arguments=arguments) as box, await box.asker() as http:
        async with http.session.get(f"{http.base}/info") as answer:
            about = json.loads(await answer.read())
        assert about["bits"] == 8

        def stamped(number: int, bits: int) -> asks.Deposit:
            body = asked(number).deposit
            stamp = mint_stamp(box.identity.public.x_pub, BOB.public.x_pub, body, about["now"], bits)
            return asked(number, stamp=stamp)

        assert (await http.says(asked(1, stamp=NO_STAMP))).reason == Reason.STAMP_CHEAP
        assert (await http.says(asked(1, stamp=stamped(2, 8).stamp))).reason == Reason.STAMP_WRONG
        for number in range(25):
            assert isinstance(await http.says(stamped(number, 8)), answers.Kept)
        # The price has risen; what was told before is still taken for a while, and less never was.
        refused = await http.says(stamped(100, 7))
        assert (refused.reason, refused.bits) == (Reason.STAMP_CHEAP, 10)
        assert isinstance(await http.says(stamped(101, 10)), answers.Kept)
        assert await box.figure("refused_total", reason="stamp_cheap") == 2
        assert await box.figure("price_bits") == 10
        await box.stop()


@run_async
async def test_rates_of_a_session_and_of_an_address(tmp_path: Path, relay: RelayProcess) -> None:
    arguments = ("--limits.depositor-items", "3", "--limits.address-items", "2")
    async with started(tmp_path / "box", relay, arguments=arguments, bounded=True) as box:
        async with visiting(relay, box) as visitor, visiting(relay, box) as other, await box.asker() as http:
            said = [await visitor.says(asked(number)) for number in range(4)]
            assert [isinstance(each, answers.Kept) for each in said] == [True, True, True, False]
            assert said[-1].reason == Reason.TOO_FAST
            assert isinstance(await other.says(asked(9)), answers.Kept)
            said = [await http.says(asked(number)) for number in range(10, 13)]
            assert [getattr(each, "reason", None) for each in said] == [None, None, Reason.TOO_FAST]
        await box.stop()


# --- Beginnings that fail ---------------------------------------------------------------------------------------------


@run_async
async def test_a_relay_that_refuses_us_ends_no_other_way_in(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        card = {"BLINDRELAY_MAILBOX_RELAY": RelayCard(ALICE.public, f"ws://127.0.0.1:{port}/ws").text}
        async with started(tmp_path / "box", variables=card) as box, await box.asker() as http:
            await box.logged("relay_refused")
            assert isinstance(await http.says(asked(1)), answers.Kept)
            assert (await box.page("/readyz"))[0] == 503
            await box.stop()
        alone = MailboxProcess(tmp_path / "alone", http=False, variables=card)
        assert await alone.wait() == 1
        assert "Traceback" not in alone.output


@run_async
async def test_two_cannot_have_one_directory(tmp_path: Path) -> None:
    async with started(tmp_path / "box") as box:
        second = MailboxProcess(tmp_path / "box")
        assert await second.wait() == 1
        assert "another mailbox uses" in second.output
        await box.stop()


@run_async
async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with started(tmp_path / "box") as box:
        at = (await box.logged("started"))["http"]
        second = MailboxProcess(tmp_path / "other", variables={"BLINDRELAY_MAILBOX_HTTP": at})
        assert await second.wait() == 1
        assert f"cannot listen on {at}" in second.output
        await box.stop()
