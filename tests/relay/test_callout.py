"""The operator's own admission service: what is remembered, what waits, and what is said over HTTP."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from relay.access import AccessError
from relay.callout import Answer, Answers, Callout
from relay.callout_http import HttpCallout, address_text, check_installed, read_answer
from relay.limits import Limits
from tests.relay.harness import identity
from tests.support.clients import WAIT, run_async
from tests.wire.pair import Counted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from keys.identity import PublicIdentity

ALICE, BOB, CAROL = (identity(number).public for number in (1, 2, 3))
HOME: Final = bytes((192, 0, 2, 7))


# --- Answers that hold -----------------------------------------------------------------------------------------------


def answers(seconds: float = 60.0, most: int = 100) -> Answers:
    return Answers(seconds, most, Counted("answers"))


def test_a_yes_holds_for_a_minute_and_a_no_for_five_seconds() -> None:
    known = answers()
    yes, no, failed = (known.key(public) for public in (ALICE, BOB, CAROL))
    known.put(yes, Answer.ALLOWED, 0.0)
    known.put(no, Answer.REFUSED, 0.0)
    known.put(failed, Answer.FAILED, 0.0)
    assert [known.get(key, 4.9) for key in (yes, no, failed)] == [Answer.ALLOWED, Answer.REFUSED, None]
    assert [known.get(key, 59.9) for key in (yes, no)] == [Answer.ALLOWED, None]
    assert known.get(yes, 60.0) is None
    assert len(known) == 0


def test_a_failure_forgets_what_was_known() -> None:
    known = answers()
    key = known.key(ALICE)
    known.put(key, Answer.ALLOWED, 0.0)
    known.put(key, Answer.FAILED, 1.0)
    assert known.get(key, 1.0) is None


def test_answers_are_bounded_and_expire() -> None:
    known = answers(most=2)
    for public in (ALICE, BOB, CAROL):
        known.put(known.key(public), Answer.ALLOWED, 0.0)
    assert known.get(known.key(ALICE), 0.0) is None
    assert len(known) == 2
    known.expire(59.0)
    assert len(known) == 2
    known.expire(60.0)
    assert len(known) == 0


def test_nothing_is_remembered_where_that_is_switched_off() -> None:
    known = answers(seconds=0.0)
    known.put(known.key(ALICE), Answer.ALLOWED, 0.0)
    assert len(known) == 0


def test_it_takes_both_keys_to_be_known() -> None:
    known = answers()
    assert known.key(ALICE) != known.key(BOB)
    assert ALICE.x_pub[:8] not in known.key(ALICE)


# --- Asking ----------------------------------------------------------------------------------------------------------


class Slow:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[PublicIdentity] = []
        self.came = asyncio.Semaphore(0)
        self.now = asyncio.Event()
        self.at_once = 0
        self.most = 0
        self.answer: Answer | Exception = Answer.ALLOWED

    async def post(self, public: PublicIdentity, address: bytes) -> Answer:
        self.asked.append(public)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.came.release()
        try:
            await self.now.wait()
        finally:
            self.at_once -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def callout(post: Callable[[PublicIdentity, bytes], Awaitable[Answer]], **limits: Any) -> Callout:
    return Callout(post, Limits(**limits), asyncio.get_running_loop(), Counted("callout"))


async def ask(of: Callout, public: PublicIdentity, address: bytes = b"") -> Answer:
    done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    of.ask(public, address, done.set_result)
    async with asyncio.timeout(WAIT):
        return await done


@run_async
async def test_each_client_is_asked_about_once_however_many_connections_wait() -> None:
    service = Slow()
    asking = callout(service.post)
    waiting = [asyncio.create_task(ask(asking, ALICE)) for _ in range(3)]
    await service.came.acquire()
    service.now.set()
    assert await asyncio.gather(*waiting) == [Answer.ALLOWED] * 3
    assert service.asked == [ALICE]
    assert asking.known(ALICE) is Answer.ALLOWED
    assert asking.known(BOB) is None


@run_async
async def test_no_more_requests_at_once_than_allowed() -> None:
    service = Slow()
    asking = callout(service.post, callout_parallel=2)
    waiting = [asyncio.create_task(ask(asking, identity(number).public)) for number in range(6)]
    for _ in range(2):
        await service.came.acquire()
    service.now.set()
    assert await asyncio.gather(*waiting) == [Answer.ALLOWED] * 6
    assert service.most == 2


@run_async
async def test_a_service_that_hangs_keeps_out_those_in_line_too_and_for_no_longer() -> None:
    service = Slow()
    asking = callout(service.post, callout_parallel=1, callout_timeout=0.2)
    with capture_logs() as logs:
        got = await asyncio.gather(*(ask(asking, identity(number).public) for number in range(3)))
    assert got == [Answer.FAILED] * 3
    assert len(service.asked) == 1
    # Told once, by its type alone.
    assert logs == [{"event": "callout_failed", "error": "TimeoutError", "log_level": "warning"}]
    assert asking.known(ALICE) is None


@run_async
async def test_whatever_goes_wrong_is_no_yes() -> None:
    service = Slow()
    service.now.set()
    asking = callout(service.post)
    for wrong in (OSError("192.0.2.7 refused"), ValueError(), Answer.FAILED):
        service.answer = wrong
        with capture_logs() as logs:
            assert await ask(asking, ALICE) is Answer.FAILED
        assert "192.0.2" not in repr(logs)
    service.answer = Answer.ALLOWED
    assert await ask(asking, ALICE) is Answer.ALLOWED


@run_async
async def test_those_who_wait_are_bounded() -> None:
    service = Slow()
    asking = callout(service.post, callout_waiting=2)
    waiting = [asyncio.create_task(ask(asking, public)) for public in (ALICE, BOB)]
    for _ in range(2):
        await service.came.acquire()
    assert await ask(asking, CAROL) is Answer.FAILED
    service.now.set()
    assert await asyncio.gather(*waiting) == [Answer.ALLOWED] * 2
    assert await ask(asking, CAROL) is Answer.ALLOWED


@run_async
async def test_closing_ends_what_is_under_way() -> None:
    service = Slow()
    asking = callout(service.post)
    told: list[Answer] = []
    asking.ask(ALICE, b"", told.append)
    await service.came.acquire()
    await asking.close()
    assert service.at_once == 0
    assert told == []


# --- Over HTTP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"allow": true}', Answer.ALLOWED),
        (b'{"allow": true, "note": "x"}', Answer.ALLOWED),
        (b'{"allow": false}', Answer.REFUSED),
        (b'{"allow": 1}', Answer.FAILED),
        (b'{"allow": "true"}', Answer.FAILED),
        (b'{"allowed": true}', Answer.FAILED),
        (b"[true]", Answer.FAILED),
        (b"true", Answer.FAILED),
        (b"", Answer.FAILED),
        (b"\xff", Answer.FAILED),
        (b"[" * 4000, Answer.FAILED),
    ],
)
def test_only_a_plain_yes_is_one(body: bytes, answer: Answer) -> None:
    assert read_answer(body) is answer


def test_addresses_as_text() -> None:
    assert address_text(HOME) == "192.0.2.7"
    assert address_text(bytes.fromhex("20010db800000001")) == "2001:db8:0:1::/64"


class Service:
    """A service over HTTP on this machine."""

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.questions: list[dict[str, Any]] = []
        self._answer = answer

    async def __aenter__(self) -> str:
        async def handle(request: web.Request) -> web.StreamResponse:
            if request.method == "POST":
                self.questions.append(await request.json())
            return await self._answer(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/may"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def answered(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], address: bytes = HOME, *, tell: bool = False
) -> tuple[Answer, list[dict[str, Any]]]:
    service = Service(answer)
    async with service as url:
        asking = HttpCallout(url, Limits(callout_timeout=WAIT), asyncio.get_running_loop(), tell=tell)
        try:
            return await ask(asking, ALICE, address), service.questions
        finally:
            await asking.close()


async def yes(request: web.Request) -> web.StreamResponse:
    return web.json_response({"allow": True})


@run_async
async def test_the_question_names_the_keys_and_not_the_address() -> None:
    keys = {"id": ALICE.id.hex(), "x25519": ALICE.x_pub.hex(), "ed25519": ALICE.ed_pub.hex()}
    assert await answered(yes) == (Answer.ALLOWED, [keys])
    assert await answered(yes, tell=True) == (Answer.ALLOWED, [keys | {"address": "192.0.2.7"}])
    assert await answered(yes, b"", tell=True) == (Answer.ALLOWED, [keys])


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 429, 500, 503])
@run_async
async def test_another_status_is_no_answer(status: int) -> None:
    async def say(request: web.Request) -> web.StreamResponse:
        if request.path == "/elsewhere":
            return web.json_response({"allow": True})
        return web.json_response({"allow": True}, status=status, headers={"Location": "/elsewhere"})

    assert (await answered(say))[0] is Answer.FAILED


@run_async
async def test_a_no_and_an_endless_answer() -> None:
    async def no(request: web.Request) -> web.StreamResponse:
        return web.json_response({"allow": False})

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None:
            await response.write(b" " * 1024)
        return response

    assert (await answered(no))[0] is Answer.REFUSED
    assert (await answered(endless))[0] is Answer.FAILED


@run_async
async def test_a_service_that_is_not_there() -> None:
    async with Service(yes) as url:
        pass
    asking = HttpCallout(url, Limits(), asyncio.get_running_loop(), tell=False)
    try:
        assert await ask(asking, ALICE) is Answer.FAILED
    finally:
        await asking.close()


def test_without_the_library_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(AccessError, match=r"pip install .* '\.\[callout\]'"):
        check_installed()


def test_limits_that_change_hold_for_what_comes_next() -> None:
    loop = asyncio.new_event_loop()
    try:
        callout = Callout(never, Limits(callout_waiting=5), loop)
        callout.change(Limits(callout_waiting=1, callout_parallel=3, callout_cache=7.0))
        assert callout._limits.callout_waiting == 1
        assert callout._slots._value == 3
        assert callout._answers._seconds == 7.0
    finally:
        loop.close()


async def never(_public: PublicIdentity, _address: bytes) -> Answer:
    raise AssertionError("nobody is asked here")
