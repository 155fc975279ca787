"""The pure parts: delays, presence, the queue of events, options, texts, addresses."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from peers.client import (
    BadOption,
    ClientOptions,
    Connected,
    Event,
    IdInUse,
    NotAdmitted,
    PeerPacket,
    WrongVersion,
)
from peers.client.backoff import ASKED_MOST, Backoff, clamp
from peers.client.inbox import Inbox
from peers.client.opening import is_loopback, retry_after
from peers.client.presence import PER_FRAME, WATCHED_MOST, Presence, in_frames
from peers.client.texts import plain, plain_lines, shown_url
from tests.support.clients import run_async
from wire.errors import LocalError

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


def least(size: int) -> bytes:
    return bytes(size)


def most(size: int) -> bytes:
    return b"\xff" * size


# --- Delays ----------------------------------------------------------------------------------------------------------


def test_delays_are_drawn_between_the_least_and_a_ceiling_that_doubles() -> None:
    highest = Backoff(0.5, 60, most)
    assert [round(highest.next(), 3) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    lowest = Backoff(0.5, 60, least)
    assert [lowest.next() for _ in range(9)] == [0.5] * 9
    highest.reset()
    assert round(highest.next(), 3) == 1


def test_a_delay_that_was_asked_for_is_kept_with_jitter_and_bounded() -> None:
    assert Backoff(0.5, 60, least).next(7) == 7
    assert round(Backoff(0.5, 60, most).next(7), 3) == 7.7
    assert Backoff(0.5, 60, least).next(1e9) == ASKED_MOST
    assert Backoff(0.5, 60, least).next(-3) == 0.5, "what is asked for never makes it faster"
    growing = Backoff(0.5, 60, most)
    assert [round(growing.next(0), 3) for _ in range(3)] == [1, 2, 4]
    assert clamp(-1) == 0
    assert clamp(float("inf")) == ASKED_MOST


def test_a_floor() -> None:
    assert Backoff(0.5, 60, least).next(floor=2) == 2
    assert round(Backoff(0.5, 60, most).next(floor=2), 3) == 2.5
    waited_long = Backoff(0.5, 60, most)
    for _ in range(5):
        waited_long.next()
    assert waited_long.next(floor=2) > 30


def test_retry_after() -> None:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after(" 17 ", now) == 17
    assert retry_after("Thu, 01 Jan 2026 12:00:30 GMT", now) == 30
    assert retry_after("Thu, 01 Jan 2026 11:00:30 GMT", now) == 0
    assert retry_after("9" * 5000, now) == 999999999
    for unreadable in ("", "soon", "-5", "1.5", "٣", "Thu, 99 Jan 2026 12:00:30 GMT"):
        assert retry_after(unreadable, now) is None


# --- Presence --------------------------------------------------------------------------------------------------------


def test_presence_is_of_watched_keys_only() -> None:
    presence = Presence()
    assert presence.watch([A, B, A]) == [A, B]
    assert presence.watch([B, C]) == [C]
    assert presence.came([A, bytes(32), C]) == (A, C)
    assert presence.is_online(A)
    assert not presence.is_online(bytes(32))
    assert presence.unwatch([A, bytes(32)]) == [A]
    assert not presence.is_online(A)
    assert presence.went([A, C]) == (C,)
    assert not presence.is_online(C)
    presence.came([B])
    presence.forget()
    assert not presence.is_online(B)
    assert presence.wanted == [B, C]


def test_what_cannot_be_watched_changes_nothing() -> None:
    presence = Presence()
    with pytest.raises(LocalError, match="32 bytes"):
        presence.watch([A, b"short"])
    with pytest.raises(LocalError, match="most"):
        presence.watch(n.to_bytes(32, "big") for n in range(WATCHED_MOST + 1))
    assert presence.wanted == []
    presence.watch([A])
    with pytest.raises(LocalError):
        presence.unwatch([A, b"short"])
    assert presence.wanted == [A]


def test_keys_are_told_in_frames_of_bounded_size() -> None:
    keys = [n.to_bytes(32, "big") for n in range(2 * PER_FRAME + 1)]
    parts = in_frames(keys)
    assert [len(part) for part in parts] == [PER_FRAME, PER_FRAME, 1]
    assert [key for part in parts for key in part] == keys
    assert in_frames([]) == []


# --- The queue of events ---------------------------------------------------------------------------------------------


@run_async
async def test_the_inbox_waits_for_room_and_keeps_the_order() -> None:
    inbox = Inbox(2)
    came: list[Event] = [Connected(), IdInUse(), PeerPacket(b"", b"")]

    async def fill() -> None:
        for event in came:
            await inbox.put(event)
        inbox.end()

    filling = asyncio.create_task(fill())
    await asyncio.sleep(0)
    assert len(inbox) == 2
    assert not filling.done()
    assert [await inbox.take() for _ in range(4)] == [*came, None]
    assert await inbox.take() is None
    await filling


@run_async
async def test_who_is_cancelled_has_taken_nothing_and_two_cannot_take() -> None:
    inbox = Inbox(1)
    taking = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    with pytest.raises(LocalError, match="one consumer"):
        await inbox.take()
    await inbox.put(Connected())
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await inbox.take() == Connected()


# --- Options, texts, addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "short"},
        {"token": "x" * 129},
        {"token": "with a blank in the middle"},
        {"token": "line\r\nbreak-of-a-header"},
        {"liveness": 0.0},
        {"open_timeout": -1.0},
        {"backoff_min": float("nan")},
        {"backoff_max": float("inf")},
        {"backoff_min": 5.0, "backoff_max": 1.0},
        {"queue": 0},
    ],
)
def test_options_that_cannot_be_used(wrong: dict[str, object]) -> None:
    with pytest.raises(BadOption) as caught:
        ClientOptions(**wrong)  # type: ignore[arg-type]
    assert str(wrong.get("token", "\0")) not in str(caught.value)


def test_a_token_is_not_shown() -> None:
    assert "0f0c2a4be1d35f87" not in repr(ClientOptions(token="0f0c2a4be1d35f87"))


def test_texts_from_others_do_nothing_to_a_terminal() -> None:
    assert plain("a\x1b[31mb\u202ec\r\nd\x00") == "a [31mb c d"
    assert plain("x" * 5000, 10) == "x" * 10
    assert plain_lines("one\x07\n\x1b]0;two\n") == "one\n]0;two"


def test_errors_say_what_to_do() -> None:
    assert str(NotAdmitted("We close on 1 May.")).endswith("We close on 1 May.")
    assert "ask its operator" in str(NotAdmitted(""))
    assert "update this program" in str(WrongVersion(3))
    assert "the relay has to be updated" in str(WrongVersion(1))


def test_the_address_is_shown_without_its_query() -> None:
    assert shown_url("wss://relay.example:8443/ws?token=0f0c2a4be1d35f87") == "wss://relay.example:8443/ws"
    assert shown_url("ws://[::1]:1/ws") == "ws://[::1]:1/ws"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "relay.localhost",
        "127.0.0.1",
        "127.1",
        "127.3.2.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",  # noqa: S104
    ],
)
def test_loopback(host: str) -> None:
    assert is_loopback(f"ws://{host}:8090/ws")


@pytest.mark.parametrize(
    "host", ["relay.example", "localhost.example", "192.0.2.1", "[2001:db8::1]", "12x.0.0.1", "ä.example"]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(f"wss://{host}/ws")


def test_the_library_below_has_no_say_in_logs() -> None:
    logger = logging.getLogger("peers.client.websockets")
    assert not logger.propagate
    assert not logger.isEnabledFor(logging.CRITICAL)
