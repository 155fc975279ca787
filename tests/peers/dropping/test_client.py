"""A mailbox's client: what it asks, and what it makes of answers that no mailbox would give."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from keys.contact import Contact
from keys.deposit import open_deposit, seal_deposit
from keys.errors import BadInvite
from keys.identity import Identity
from keys.invite import MailboxCard
from keys.primitives import random_bytes
from peers.client import NotConnected
from peers.dropping import (
    Collector,
    Depositor,
    DroppingOptions,
    MailboxRefused,
    NotAMailbox,
    TooDear,
    Unreachable,
)
from peers.dropping.by_http import HttpWay
from peers.dropping.by_packets import PacketWay
from peers.dropping.by_relay import RelayWay, relay_at
from peers.dropping.web import below, proxy_for
from peers.mailbox.price import PriceList
from peers.mailbox.rules import AccessRule, token_digest
from tests.peers.dropping.boxes import HttpBox
from tests.peers.mailbox.lab import limits
from tests.support.certificates import make_certificate, trusting
from tests.support.clients import run_async
from wire import mailbox_answers as answers
from wire import mailbox_http as http
from wire.inner import parse_inner
from wire.mailbox_codes import MailboxCommand, Reason
from wire.mailbox_commands import Info, encode_for_mailbox, parse_for_mailbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ALICE, BOB = Identity(b"a" * 32, b"A" * 32), Identity(b"b" * 32, b"B" * 32)
BOX = Identity(b"m" * 32, b"M" * 32)
OPTIONS = DroppingOptions(timeout=10.0, stamp_bits=8)


def depositor(card: MailboxCard, options: DroppingOptions = OPTIONS) -> Depositor:
    return Depositor(card, HttpWay(card, options), options)


def collector(card: MailboxCard, who: Identity = BOB) -> Collector:
    return Collector(card, HttpWay(card, OPTIONS, who))


def deposit(card: MailboxCard) -> bytes:
    packet = Contact(ALICE, BOB.public).seal(b"hello")
    return seal_deposit(ALICE.public, BOB.public.x_pub, card.public, packet)


@asynccontextmanager
async def saying(
    reply: bytes, *, body: bytes = b"", hold: bool = False
) -> AsyncIterator[tuple[MailboxCard, list[bytes]]]:
    """A server that says one thing to everybody; gives its card and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if not hold:
            writer.write(reply.replace(b"\n", b"\r\n") + body)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield MailboxCard(BOX.public, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sub/?a=1"), asked


@run_async
async def test_left_fetched_and_acknowledged(tmp_path: Path) -> None:
    async with HttpBox(tmp_path / "box") as box:
        sender, receiver = depositor(box.card), collector(box.card)
        content, secret = deposit(box.card), random_bytes(32)
        lasts = await sender.deposit(BOB.public.x_pub, content, secret)
        assert 13 * 86400 < lasts <= 14 * 86400 + 3600
        assert abs(await sender.deposit(BOB.public.x_pub, content, secret) - lasts) <= 1
        assert (await receiver.counts()).items == 1
        lease = await receiver.fetch(10)
        assert [item.content for item in lease.items] == [content]
        assert open_deposit(BOB, box.card.public, content)[0] == ALICE.public
        assert await receiver.acknowledge((lease.items[0].number,)) == 1
        assert await receiver.restore() == 0
        await sender.deposit(BOB.public.x_pub, deposit(box.card), secret)
        assert [await sender.drop(BOB.public.x_pub, secret) for _ in range(2)] == [True, False]
        # Who is not asked for a proof has none to give.
        with pytest.raises(MailboxRefused):
            await Collector(box.card, HttpWay(box.card, OPTIONS)).fetch(1)
        for client in (sender, receiver):
            await client.rest()


@run_async
async def test_the_price(tmp_path: Path) -> None:
    async with HttpBox(tmp_path / "box", limits(prices=PriceList(base=6, most=6))) as box:
        sender = depositor(box.card)
        for _ in range(2):  # the second pays at once what the first was told
            await sender.deposit(BOB.public.x_pub, deposit(box.card), random_bytes(32))
        assert len(box.asked) == 3
        stingy = DroppingOptions(timeout=10.0, stamp_bits=5)
        other = depositor(box.card, stingy)
        with pytest.raises(TooDear, match="6 bits; 5 are allowed"):
            await other.deposit(BOB.public.x_pub, deposit(box.card), random_bytes(32))
        for client in (sender, other):
            await client.rest()
    with pytest.raises(ValueError, match="between 0 and 30"):
        DroppingOptions(stamp_bits=31)


@pytest.mark.parametrize(
    ("access", "reason"),
    [(AccessRule(frozenset({ALICE.public.x_pub})), Reason.NOT_SERVED), (AccessRule(tokens=(bytes(32),)), Reason.TOKEN)],
)
@run_async
async def test_who_is_not_let_in(tmp_path: Path, access: AccessRule, reason: Reason) -> None:
    async with HttpBox(tmp_path / "box", access=access) as box:
        sender = depositor(box.card)
        with pytest.raises(MailboxRefused) as refusal:
            await sender.deposit(BOB.public.x_pub, deposit(box.card), random_bytes(32))
        assert refusal.value.reason is reason
        await sender.rest()


@run_async
async def test_with_a_token(tmp_path: Path) -> None:
    access = AccessRule(frozenset({BOB.public.x_pub}), (token_digest(b"right"),))
    async with HttpBox(tmp_path / "box", limits(prices=PriceList(base=6, most=6)), access) as box:
        sender = depositor(box.card)
        await sender.deposit(BOB.public.x_pub, deposit(box.card), random_bytes(32), b"right")
        assert [await sender.takes(token) for token in (b"right", b"wrong", b"")] == [True, False, False]
        box.fail = Reason.TOO_FAST
        with pytest.raises(MailboxRefused):
            await sender.takes(b"right")
        await sender.rest()
        assert await box.held(BOB) == 1
    async with HttpBox(tmp_path / "open", access=AccessRule(tokens=(token_digest(b"right"),))) as box:
        sender = depositor(box.card)
        assert await sender.takes(b"right")
        assert box.asked[-1] == MailboxCommand.DROP  # nothing of the trial stays there
        await sender.rest()


@run_async
async def test_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    box = HttpBox(tmp_path / "box")
    box.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    box.tls.load_cert_chain(*certificate)
    async with box:
        distrustful = depositor(box.card)
        with pytest.raises(Unreachable, match="no trusted TLS"):
            await distrustful.info()
        trusted = depositor(box.card, DroppingOptions(timeout=10.0, ssl=trusting(certificate)))
        assert (await trusted.info()).bits == 0
        for client in (distrustful, trusted):
            await client.rest()


@run_async
async def test_another_mailbox_at_that_address(tmp_path: Path) -> None:
    async with HttpBox(tmp_path / "box") as box:
        false = MailboxCard(BOX.public, box.card.url)
        receiver = collector(false)
        with pytest.raises(NotAMailbox, match="keys are others"):
            await receiver.fetch(1)
        await receiver.rest()


@run_async
async def test_a_mailbox_that_was_just_restarted_is_asked_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HttpBox(tmp_path / "box") as box:
        receiver = collector(box.card)
        prove, proofs = box.mailbox.prove, []

        def once(*arguments: Any) -> None:
            proofs.append(arguments)
            prove(*((*arguments[:1], ALICE.public.x_pub, *arguments[2:]) if len(proofs) == 1 else arguments))

        monkeypatch.setattr(box.mailbox, "prove", once)
        assert (await receiver.fetch(1)).items == ()
        assert len(proofs) == 2
        await receiver.rest()


LONG = b"x" * (http.ANSWER_MAX + 1)


@pytest.mark.parametrize(
    ("reply", "body", "error"),
    [
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"", NotAMailbox),
        (b"HTTP/1.1 200 OK\n\n", LONG, NotAMailbox),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\n", b"hello", NotAMailbox),
        (b"HTTP/1.1 404 Not Found\nContent-Length: 0\n\n", b"", NotAMailbox),
        (b"HTTP/1.1 502 Bad Gateway\nContent-Length: 4\n\n", b"oops", Unreachable),
        (b"HTTP/1.1 302 Found\nLocation: http://127.0.0.1:1/\nContent-Length: 0\n\n", b"", NotAMailbox),
        (b"HTTP/1.1 404 Not Found\n\n", bytes((0x78, 1, 0, 0, 0)), NotAMailbox),  # KEPT, by its bytes
        (b"HTTP/1.1 200 OK\n\n", bytes((0x7E, 1, 0)), NotAMailbox),  # REFUSED, by its bytes
        (b"HTTP/1.1 200 OK\nContent-Length: 10\n\n", b"half", NotAMailbox),
        (b"nonsense\n\n", b"", NotAMailbox),
        (b"", b"", Unreachable),
    ],
)
@run_async
async def test_answers_that_are_none(reply: bytes, body: bytes, error: type[Exception]) -> None:
    async with saying(reply, body=body) as (card, asked):
        sender = depositor(card)
        with pytest.raises(error) as raised:
            await sender.deposit(BOB.public.x_pub, deposit(card), random_bytes(32))
        assert card.url not in str(raised.value)
        await sender.rest()
        head = asked[0].decode().lower()
        assert head.startswith("post /sub/drop?a=1 http/1.1")
        assert "user-agent" not in head
        assert "gzip" not in head


@run_async
async def test_a_server_that_says_nothing() -> None:
    async with saying(b"", hold=True) as (card, _):
        sender = depositor(card, DroppingOptions(timeout=0.1))
        with pytest.raises(Unreachable, match=r"within 0\.1 s"):
            await sender.info()
        await sender.rest()


@run_async
async def test_nobody_there() -> None:
    async with saying(b"") as (card, _):
        pass
    sender = depositor(card)
    with pytest.raises(Unreachable, match="cannot be reached"):
        await sender.info()
    await sender.rest()


@pytest.mark.parametrize("facts", [b"[]", b"{}", b'{"x25519_public":"00","ed25519_public":"zz"}', b"\xff"])
@run_async
async def test_a_relay_that_is_none(facts: bytes) -> None:
    reply = b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(facts)
    async with saying(reply, body=facts) as (card, asked):
        url = card.url.replace("http:", "ws:").replace("/sub/?a=1", "/sub/ws")
        with pytest.raises(NotAMailbox):
            await relay_at(url, OPTIONS)
        assert asked[0].startswith(b"GET /sub/info HTTP/1.1")
        way = RelayWay(MailboxCard(BOX.public, url), OPTIONS)
        with pytest.raises(NotAMailbox):
            await way.ask(Info(0))
        await way.rest()


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("https://box.example", "https://box.example/drop"),
        ("https://box.example/", "https://box.example/drop"),
        ("https://box.example/a/b?c=d", "https://box.example/a/b/drop?c=d"),
        ("http://[::1]:8080/x/", "http://[::1]:8080/x/drop"),
    ],
)
def test_below(base: str, address: str) -> None:
    assert below(base, "/drop") == address


def test_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_for("https://box.example") is None
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("https://box.example") == "http://proxy.example:3128"
    assert proxy_for("https://inside.example/x") is None
    assert proxy_for("http://box.example") is None
    assert proxy_for("https://127.0.0.1:1") is None
    monkeypatch.setenv("https_proxy", "socks5://user:secret@proxy.example")
    with pytest.raises(Unreachable) as raised:
        proxy_for("https://box.example")
    assert "secret" not in str(raised.value)


class Line:
    """A connection to a mailbox whose answers the test makes."""

    def __init__(self) -> None:
        self.introduced = 0
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()
        self.up = True

    async def introduce(self, target_id: bytes, nickname: str) -> None:
        assert (target_id, nickname) == (BOX.public.id, "")
        self.introduced += 1

    async def send(self, recipient_id: bytes, packet: bytes) -> None:
        if not self.up:
            raise NotConnected("no session")
        assert recipient_id == BOX.public.id
        self.sent.put_nowait(packet)


def answered(packet: bytes, number: int | None = None) -> bytes:
    """The mailbox's answer to a packet of Bob's, or to the request with that number."""
    contact = Contact(BOX, BOB.public)
    inner = parse_inner(contact.open(packet))
    body: Any = parse_for_mailbox(inner.command, inner.body)
    about = answers.About(body.request if number is None else number, 1, 2, 0, 3, 4, 5, 6, 7)
    return contact.seal(encode_for_mailbox(about))


@run_async
async def test_requests_by_packets() -> None:
    line = Line()
    card = MailboxCard(BOX.public, "wss://relay.example/ws")
    way = PacketWay(line, BOB, card, OPTIONS)
    first = asyncio.create_task(way.ask(Info(0)))
    packet = await line.sent.get()
    assert not way.take(b"x" * 200)  # from the mailbox's id, and not the mailbox's
    assert not way.take(Contact(ALICE, BOB.public).seal(b"\0\0\x7d"))
    assert way.take(answered(packet, 77))  # to nothing that was asked
    assert way.take(answered(packet))
    assert (await first).command == answers.About.command
    assert way.take(answered(packet))  # the same once more: nobody waits for it
    second = asyncio.create_task(way.ask(Info(0)))
    packet = await line.sent.get()
    assert not way.undelivered(bytes(24))
    assert way.undelivered(packet[:24])
    with pytest.raises(Unreachable, match="not at its relay"):
        await second
    assert line.introduced == 1
    third = asyncio.create_task(way.ask(Info(0)))
    await line.sent.get()
    way.reconnected()
    with pytest.raises(Unreachable, match="was lost"):
        await third
    fourth = asyncio.create_task(way.ask(Info(0)))
    way.take(answered(await line.sent.get()))
    await fourth
    assert line.introduced == 2  # the relay's other peers may have forgotten us
    line.up = False
    with pytest.raises(Unreachable):
        await way.ask(Info(0))


@run_async
async def test_a_mailbox_that_forgot_our_keys_is_given_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peers.dropping.by_packets._AGAIN", 0.01)
    line = Line()
    way = PacketWay(line, BOB, MailboxCard(BOX.public, "wss://relay.example/ws"), OPTIONS)
    asked = asyncio.create_task(way.ask(Info(0)))
    await line.sent.get()
    packet = await line.sent.get()
    assert line.introduced >= 2
    way.take(answered(packet))
    await asked


def test_a_card_leads_to_no_file() -> None:
    with pytest.raises(BadInvite):
        MailboxCard(BOX.public, "file:///etc/passwd")


class Told:
    """A way to a mailbox that says what a test wants."""

    def __init__(self, *said: answers.FromMailbox) -> None:
        self._said = list(said)
        self.asked: list[Any] = []

    async def ask(self, request: Any) -> answers.FromMailbox:
        self.asked.append(request)
        return self._said.pop(0)

    async def rest(self) -> None:
        pass


def about(now: int, bits: int) -> answers.About:
    return answers.About(0, now, bits, 0, 1, 1, 1, 1, 1)


@run_async
async def test_a_mailbox_that_lies_about_time_and_price() -> None:
    card = MailboxCard(BOX.public, "https://box.example")
    content, cheap = deposit(card), answers.Refused(0, Reason.STAMP_CHEAP, 3)
    for told, error in (
        ([cheap, about(2**64 - 1, 3)], NotAMailbox),
        ([cheap, about(0, 255)], TooDear),
        ([answers.Refused(0, Reason.STAMP_CHEAP, 255), about(0, 0)], TooDear),
        ([cheap, about(2**63 - 1, 1), cheap, about(1, 1), cheap], MailboxRefused),  # never content
        ([answers.Acked(0, 1)], NotAMailbox),
        ([answers.Refused(0, 200)], MailboxRefused),
    ):
        way = Told(*told)
        with pytest.raises(error):
            await Depositor(card, way, OPTIONS).deposit(BOB.public.x_pub, content, bytes(32))
        assert len(way.asked) == len(told)
