"""The HTTP face over real sockets: what is served, and what is not borne."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from keys.deposit import seal_deposit
from keys.invite import MailboxCard
from keys.pickup import answer_challenge
from peers.mailbox.http_face import BODY_MAX
from peers.mailbox.http_protocol import HEAD_MAX
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import AccessRule, token_digest
from peers.mailbox.store import StoreError
from tests.peers.mailbox.http_lab import URL, Asker, served
from tests.peers.mailbox.lab import ALICE, BOB, BOX, CAROL, Box, asked, content, contents, limits, secret
from tests.support.clients import WAIT, run_async, tcp_connect
from wire import mailbox_answers as answers
from wire import mailbox_commands as asks
from wire import mailbox_http as framing
from wire.mailbox_codes import ACK_MAX, ITEM_MAX, TOKEN_MAX, MailboxCommand, Reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@run_async
async def test_a_deposit_from_end_to_end(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        sealed = seal_deposit(ALICE.public, BOB.public.x_pub, BOX, b"the packet")
        kept = await http.asker.says(asked(0, deposit=sealed))
        assert isinstance(kept, answers.Kept)
        lease = await http.asker.says(asks.Fetch(0, 10), BOB)
        assert [item.content for item in lease.items] == [sealed]
        counts = await http.asker.says(asks.List(0), BOB)
        assert (counts.items, counts.leased) == (1, 1)
        acked = await http.asker.says(asks.Ack(0, (lease.items[0].number,)), BOB)
        assert acked.count == 1
        await http.asker.says(asked(2))
        assert (await http.asker.says(asks.Drop(0, BOB.public.x_pub, secret(2)))).found
        assert (await http.asker.says(asks.Restore(0), BOB)).count == 0
        assert http.figure("request_seconds_count", face="http", command="deposit") == 2
        assert http.figure("deposits_total") == 2


@run_async
async def test_the_largest_of_each_fits(tmp_path: Path) -> None:
    bounds = limits()
    async with Box(tmp_path / "box.db", bounds) as box, served(box.mailbox, box) as http:
        big = asked(1, deposit=content(1, ITEM_MAX), token=b"t" * TOKEN_MAX)
        assert len(framing.encode_request(big)) == BODY_MAX["/drop"]
        assert isinstance(await http.asker.says(big), answers.Kept)
        for number in (2, 3, 4):
            await http.asker.says(asked(number, deposit=content(number, ITEM_MAX)))
        lease = await http.asker.says(asks.Fetch(0, 10), BOB)
        assert contents(lease) == [1, 2, 3]
        most = asks.Ack(0, (lease.items[0].number, *range(1, ACK_MAX)))
        assert len(framing.encode_request(most, bytes(32), bytes(56))) == BODY_MAX["/ack"]
        assert (await http.asker.says(most, BOB)).count == 1


@run_async
async def test_info(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        async with http.asker.session.get(http.asker.base + "/info") as answer:
            raw = await answer.read()
            assert "server" not in answer.headers
            assert answer.headers["cache-control"] == "no-store"
        assert framing.about_from_json(raw) == box.mailbox.about(asks.Info(0), box.at)
        assert MailboxCard.parse(json.loads(raw)["card"]).url == URL


@run_async
async def test_nobody_is_sent_elsewhere(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        for path in ("/info/", "/drop/"):
            url, headers = http.asker.base + path, {"Host": "evil.example"}
            async with http.asker.session.get(url, headers=headers, allow_redirects=False) as answer:
                assert (answer.status, answer.headers.get("Location")) == (404, None)


@run_async
async def test_web_pages_of_any_origin_may_ask(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        headers = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        async with http.asker.session.options(http.asker.base + "/drop", headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
        http.asker.headers = {"Origin": "https://app.example"}
        async with http.asker.session.post(http.asker.base + "/drop", data=b"", headers=http.asker.headers) as answer:
            assert answer.headers["access-control-allow-origin"] == "*"


# --- Proofs -----------------------------------------------------------------------------------------------------------


@run_async
async def test_nothing_is_picked_up_without_the_recipients_proof(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        await http.asker.says(asked(1))
        fetch = asks.Fetch(0, 10)
        arguments = framing.arguments_of(fetch)
        challenge = await http.asker.challenge(BOB)
        right = answer_challenge(BOB, BOX, URL, fetch.command, arguments, challenge)
        x_pub = BOB.public.x_pub
        elsewhere = answer_challenge(BOB, BOX, "https://other.example", fetch.command, arguments, challenge)
        other_command = answer_challenge(BOB, BOX, URL, MailboxCommand.LIST, arguments, challenge)
        wrong = [
            (x_pub, bytes(56)),
            (x_pub, elsewhere),
            (x_pub, other_command),
            (CAROL.public.x_pub, right),
        ]
        for key, answer in wrong:
            status, told = await http.asker.post("/pickup", framing.encode_request(fetch, key, answer))
            assert (status, framing.parse_answer(told)) == (400, answers.Refused(0, Reason.BAD_REQUEST))
        status, _ = await http.asker.post("/pickup", framing.encode_request(fetch, x_pub, right))
        assert status == 200
        status, _ = await http.asker.post("/pickup", framing.encode_request(fetch, x_pub, right))
        assert status == 400  # a ticket serves once


@run_async
async def test_who_has_nothing_and_who_has_much_look_alike_before_a_proof(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        await http.asker.says(asked(1))
        for who in (BOB, CAROL):
            status, told = await http.asker.post("/pickup", who.public.x_pub + bytes(56) + bytes((0x71, 9, 0)))
            assert (status, told) == (400, framing.encode_answer(answers.Refused(0, Reason.BAD_REQUEST)))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/drop", b""),
        ("/drop", b"\x70"),
        ("/drop", b"\x71\x00\x00"),
        ("/pickup", bytes(88)),
        ("/pickup", bytes(88) + b"\x72" + bytes(4)),
        ("/ack", bytes(88) + b"\x72" + bytes(5)),
        ("/ack", b""),
        ("/challenge", b"short"),
        ("/challenge", bytes(32)),
    ],
)
def test_what_does_not_fit_its_layout(tmp_path: Path, path: str, body: bytes) -> None:
    @run_async
    async def check() -> None:
        async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
            status, told = await http.asker.post(path, body)
            assert (status, framing.parse_answer(told)) == (400, answers.Refused(0, Reason.BAD_REQUEST))

    check()


@run_async
async def test_refusals_have_their_status(tmp_path: Path) -> None:
    access = AccessRule(frozenset({BOB.public.x_pub}), (token_digest(b"t" * 32),))
    bounds = limits(recipient_items=1)
    async with Box(tmp_path / "box.db", bounds, access) as box, served(box.mailbox, box) as http:
        assert (await http.asker.says(asked(1))).reason == Reason.TOKEN
        assert (await http.asker.says(asked(1, CAROL, token=b"t" * 32))).reason == Reason.NOT_SERVED
        assert isinstance(await http.asker.says(asked(1, token=b"t" * 32)), answers.Kept)
        assert (await http.asker.says(asked(2, token=b"t" * 32))).reason == Reason.FULL
        assert http.figure("refused_total", reason="full") == 1


@run_async
async def test_a_store_that_fails_is_told_and_nothing_else(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:

        async def fails(*_: object) -> int:
            raise StoreError("the path of the file")

        box.store.deposit = fails
        status, told = await http.asker.post("/drop", framing.encode_request(asked(1)))
        assert (status, framing.parse_answer(told)) == (503, answers.Refused(0, Reason.FAILED))


@run_async
async def test_a_fault_of_ours_ends_no_service(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        serve = box.mailbox.serve

        async def faulty(*_: object) -> None:
            raise RuntimeError("inside")

        box.mailbox.serve = faulty  # type: ignore[method-assign, assignment]
        status, told = await http.asker.post("/drop", framing.encode_request(asked(1)))
        assert (status, framing.parse_answer(told)) == (503, answers.Refused(0, Reason.FAILED))
        assert http.figure("failures_total", kind="internal") == 1
        box.mailbox.serve = serve  # type: ignore[method-assign]
        assert isinstance(await http.asker.says(asked(1)), answers.Kept)


# --- Addresses --------------------------------------------------------------------------------------------------------


@run_async
async def test_rates_go_by_the_address_that_a_trusted_proxy_tells(tmp_path: Path) -> None:
    bounds = limits(address=Rate(1, 1 << 20, 3600.0))
    async with Box(tmp_path / "box.db", bounds) as box, served(box.mailbox, box, "127.0.0.1") as http:

        async def from_(forwarded: str, number: int) -> bool:
            http.asker.headers = {"X-Forwarded-For": forwarded}
            return isinstance(await http.asker.says(asked(number)), answers.Kept)

        assert await from_("203.0.113.1", 1)
        assert not await from_("203.0.113.1", 2)
        assert await from_("198.51.100.7, 203.0.113.2", 3)
        assert not await from_("192.0.2.1, 203.0.113.2", 4)  # what stands before is a claim
        assert await from_("2001:db8::1", 5)
        assert not await from_("2001:db8::2", 6)  # the same /64
        assert await from_("what?", 7)  # who cannot be told shares one budget
        assert not await from_("and, this", 8)


@run_async
async def test_nobody_else_is_believed(tmp_path: Path) -> None:
    bounds = limits(address=Rate(1, 1 << 20, 3600.0))
    async with Box(tmp_path / "box.db", bounds) as box, served(box.mailbox, box) as http:
        http.asker.headers = {"X-Forwarded-For": "203.0.113.1"}
        assert isinstance(await http.asker.says(asked(1)), answers.Kept)
        http.asker.headers = {"X-Forwarded-For": "203.0.113.2"}
        assert (await http.asker.says(asked(2))).reason == Reason.TOO_FAST


# --- What is not borne ------------------------------------------------------------------------------------------------


async def told(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection ends, be it by a reset."""
    found = b""
    async with asyncio.timeout(WAIT):
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                found += chunk
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not holds():  # noqa: ASYNC110 - of what a connection does there is no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", sorted(BODY_MAX))
def test_a_body_that_is_too_large_is_not_read(tmp_path: Path, path: str) -> None:
    @run_async
    async def check() -> None:
        async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
            most = BODY_MAX[path]
            reader, writer = await http.raw()
            writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {most + 1}\r\n\r\n".encode())
            answer = await told(reader)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert answer.endswith(framing.encode_answer(answers.Refused(0, Reason.TOO_BIG)))
            writer.close()
            # Nor where its size is not told before.
            reader, writer = await http.raw()
            writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            writer.write(b"%x\r\n" % (most + 1) + bytes(most + 1))
            assert (await told(reader)).startswith(b"HTTP/1.1 413 ")
            writer.close()
            assert http.figure("http_turned_away_total", reason="too_large") == 2

    check()


@run_async
async def test_headers_without_end(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        reader, writer = await http.raw()
        writer.write(b"POST /drop HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_MAX)
        assert await told(reader) == b""
        writer.close()
        assert http.figure("http_turned_away_total", reason="too_large") == 1


@run_async
async def test_chunks_and_trailers_without_end(tmp_path: Path) -> None:
    """Bytes that carry no body are bounded too."""
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        reader, writer = await http.raw()
        writer.write(b"POST /drop HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        for number in range(300):
            writer.write(b"x%d: %s\r\n" % (number, b"y" * 8000))
        with suppress(ConnectionError):
            await writer.drain()
        assert b" 200 " not in await told(reader)
        writer.close()
        assert not http.doors.open


@run_async
async def test_requests_in_one_breath(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        reader, writer = await http.raw()
        writer.write(b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert (await told(reader)).count(b"HTTP/1.1 200") < 100
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /dr", b"POST /drop HTTP/1.1\r\nHost: x\r\n", b"POST /drop HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"],
    ids=["nothing", "a line", "headers", "a body"],
)
def test_who_is_too_slow(tmp_path: Path, sent: bytes) -> None:
    @run_async
    async def check() -> None:
        async with Box(tmp_path / "box.db") as box, served(box.mailbox, box, request=0.1) as http:
            reader, writer = await http.raw()
            writer.write(sent)
            answer = await told(reader)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
            writer.close()
            assert http.figure("http_turned_away_total", reason="too_slow") == 1

    check()


@run_async
async def test_an_answer_that_nobody_takes_is_not_kept(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box, send_buffer=4096, request=0.2) as http:
        for number in range(3):
            await http.asker.says(asked(number, deposit=content(number, ITEM_MAX)))
        fetch = asks.Fetch(0, 10)
        arguments = framing.arguments_of(fetch)
        challenge = await http.asker.challenge(BOB)
        proof = answer_challenge(BOB, BOX, URL, fetch.command, arguments, challenge)
        body = framing.encode_request(fetch, BOB.public.x_pub, proof)
        _, writer = await tcp_connect(http.port, receive_buffer=4096)
        writer.write(b"POST /pickup HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        # asyncio reads no further than its own buffer, so that the rest stays in the mailbox.
        await until(lambda: http.figure("http_turned_away_total", reason="too_slow") == 1)
        writer.transport.abort()
        # Who took all is not cut for it.
        await until(lambda: len(http.doors.open) == 1)
        assert isinstance(await http.asker.says(asked(9)), answers.Kept)


@run_async
async def test_answers_that_are_not_taken_count_as_under_way(tmp_path: Path) -> None:
    bounds: dict[str, Any] = {"send_buffer": 4096, "in_progress_bytes": 1 << 20}
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box, **bounds) as http:
        for number in range(6):
            await http.asker.says(asked(number, deposit=content(number, ITEM_MAX)))
        fetch = asks.Fetch(0, 3)
        challenge = await http.asker.challenge(BOB)
        proof = answer_challenge(BOB, BOX, URL, fetch.command, framing.arguments_of(fetch), challenge)
        body = framing.encode_request(fetch, BOB.public.x_pub, proof)
        _, writer = await tcp_connect(http.port, receive_buffer=4096)
        writer.write(b"POST /pickup HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: box.mailbox.tallies.handed == 3)
        # There would be no room for another of these; for what is small there is.
        assert (await http.asker.says(fetch, BOB)).reason == Reason.FAILED
        assert isinstance(await http.asker.says(asked(9)), answers.Kept)
        writer.transport.abort()
        await until(lambda: len(http.doors.open) == 1)
        assert len((await http.asker.says(fetch, BOB)).items) == 3


@run_async
async def test_who_says_little_takes_no_room_of_others(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box, in_progress_bytes=1 << 20) as http:
        quiet = [await http.raw() for _ in range(8)]
        for reader, writer in quiet:
            writer.write(b"POST /pickup HTTP/1.1\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
            # The body is being waited for.
            assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        assert isinstance(await http.asker.says(asked(1)), answers.Kept)
        assert contents(await http.asker.says(asks.Fetch(0, 3), BOB)) == [1]
        for _, writer in quiet:
            writer.transport.abort()


@run_async
async def test_connections_are_bounded(tmp_path: Path) -> None:
    async with (
        Box(tmp_path / "box.db") as box,
        served(box.mailbox, box, connections=3, address_connections=2) as http,
    ):
        open_ = [await http.raw() for _ in range(2)]
        await until(lambda: len(http.doors.open) == 2)
        reader, writer = await http.raw()
        assert await told(reader) == b""
        assert http.figure("http_turned_away_total", reason="address_connections") == 1
        for _, each in [*open_, (reader, writer)]:
            each.close()
        await until(lambda: not http.doors.open)
        assert isinstance(await http.asker.says(asked(1)), answers.Kept)


@run_async
async def test_what_is_under_way_is_bounded(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box, in_progress=1) as http:
        go_on, begun = asyncio.Event(), asyncio.Event()
        deposit = box.store.deposit

        async def slow(*arguments: object) -> int:
            begun.set()
            await go_on.wait()
            kept: int = await deposit(*arguments)
            return kept

        box.store.deposit = slow
        first = asyncio.create_task(http.asker.says(asked(1)))
        await begun.wait()
        assert (await http.asker.says(asked(2))).reason == Reason.FAILED
        assert http.figure("http_turned_away_total", reason="in_progress") == 1
        go_on.set()
        assert isinstance(await first, answers.Kept)


@run_async
async def test_what_is_under_way_is_answered_at_the_end(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box) as http:
        go_on, begun = asyncio.Event(), asyncio.Event()
        deposit = box.store.deposit

        async def slow(*arguments: object) -> int:
            begun.set()
            await go_on.wait()
            kept: int = await deposit(*arguments)
            return kept

        box.store.deposit = slow
        first = asyncio.create_task(http.asker.says(asked(1)))
        await begun.wait()
        http.server.stop()
        go_on.set()
        assert isinstance(await first, answers.Kept)
        await http.server.close()
        async with Asker(http.asker.base) as late:
            with pytest.raises(aiohttp.ClientConnectionError):
                await late.post("/drop", b"")


@run_async
async def test_who_goes_in_the_middle_of_a_body(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box, served(box.mailbox, box, in_progress_bytes=1 << 20) as http:
        for _ in range(30):
            _, writer = await http.raw()
            writer.write(b"POST /drop HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000))
            await writer.drain()
            writer.transport.abort()
        # Their bytes are not counted any more.
        assert isinstance(await http.asker.says(asked(1)), answers.Kept)


def test_the_bounds_are_those_of_the_layouts() -> None:
    assert set(BODY_MAX) == {*framing.PATHS, framing.CHALLENGE_PATH}
