"""Asks the operator's own service whether a client may in, once its keys are proven (PROTOCOL.md §8.8).

Fails closed: whatever is not a plain yes keeps the client out. Bounded: so many requests at once, so many clients that
wait, and one deadline for waiting and asking together, so that a service that hangs costs nobody more than that.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Protocol

import structlog

from keys.identity import PublicIdentity
from keys.primitives import KEY_SIZE, keyed_digest, random_bytes
from relay.guard import Seldom
from relay.limits import Limits

_REFUSED_FOR = 1 / 12
"""How long a no is remembered, as a part of what a yes is: 5 s, so that a new customer need not wait."""


class Answer(Enum):
    """What the service said."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"


Done = Callable[[Answer], None]


class Asker(Protocol):
    """Whoever can be asked about a client."""

    def known(self, public: PublicIdentity) -> Answer | None:
        """Return an answer that still holds, if there is one."""

    def ask(self, public: PublicIdentity, address: bytes, done: Done) -> None:
        """Ask, and call `done` once with the answer, later or at once."""

    def expire(self, now: float) -> None:
        """Forget answers that hold no longer at `now`."""

    def change(self, limits: Limits) -> None:
        """Go by other limits from now on."""


class Answers:
    """Answers that still hold, by digests of full keys under a random key of this process. Pure: `now` is passed in.

    Args:
        seconds: how long a yes holds; 0 remembers nothing.
        most: answers in all; the oldest goes first.
    """

    def __init__(self, seconds: float, most: int, random: Callable[[int], bytes] = random_bytes) -> None:
        self._seconds = seconds
        self._most = most
        self._secret = random(KEY_SIZE)
        self._answers: OrderedDict[bytes, tuple[Answer, float]] = OrderedDict()

    def change(self, seconds: float, most: int) -> None:
        """Remember answers for so long, and so many, from now on; those that are there stay as long as they were to."""
        self._seconds = seconds
        self._most = most
        while len(self._answers) > most:
            self._answers.popitem(last=False)

    def key(self, public: PublicIdentity) -> bytes:
        """Return what answers about a client are kept under."""
        return keyed_digest(self._secret, public.x_pub + public.ed_pub)

    def get(self, key: bytes, now: float) -> Answer | None:
        """Return the answer that holds at `now`."""
        answer, until = self._answers.get(key, (None, 0.0))
        if now < until:
            return answer
        self._answers.pop(key, None)
        return None

    def put(self, key: bytes, answer: Answer, now: float) -> None:
        """Remember an answer; a failure is none."""
        self._answers.pop(key, None)
        if answer is Answer.FAILED or not self._seconds:
            return
        lifetime = self._seconds if answer is Answer.ALLOWED else self._seconds * _REFUSED_FOR
        self._answers[key] = (answer, now + lifetime)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def expire(self, now: float) -> None:
        """Forget answers that hold no longer, in the order in which they came: a no may wait behind a yes."""
        while self._answers:
            _, until = next(iter(self._answers.values()))
            if now < until:
                return
            self._answers.popitem(last=False)

    def __len__(self) -> int:
        return len(self._answers)


class Callout:
    """Asks about clients, each once however many of their connections wait for it.

    Args:
        post: asks the service about full keys and an address; gives its answer. Whatever it raises is a failure.
        limits: see the `callout_…` ones.
    """

    def __init__(
        self,
        post: Callable[[PublicIdentity, bytes], Awaitable[Answer]],
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._post = post
        self._limits = limits
        self._loop = loop
        self._answers = Answers(limits.callout_cache, limits.rate_keys, random)
        self._slots = asyncio.Semaphore(limits.callout_parallel)
        self._waiting: dict[bytes, list[Done]] = {}
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._tell = Seldom(60.0)

    def known(self, public: PublicIdentity) -> Answer | None:
        return self._answers.get(self._answers.key(public), self._loop.time())

    def ask(self, public: PublicIdentity, address: bytes, done: Done) -> None:
        if self._count >= self._limits.callout_waiting:
            self._failed("too many wait for the admission service")
            done(Answer.FAILED)
            return
        self._count += 1
        key = self._answers.key(public)
        waiting = self._waiting.setdefault(key, [])
        waiting.append(done)
        if len(waiting) == 1:
            task = self._loop.create_task(self._run(key, public, address))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def expire(self, now: float) -> None:
        self._answers.expire(now)

    def change(self, limits: Limits) -> None:
        self._limits = limits
        self._answers.change(limits.callout_cache, limits.rate_keys)
        # Requests that are under way give back the slots that they took.
        self._slots = asyncio.Semaphore(limits.callout_parallel)

    async def close(self) -> None:
        """Ask nobody any more; who waits is not answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, key: bytes, public: PublicIdentity, address: bytes) -> None:
        answer = Answer.FAILED
        try:
            slots = self._slots
            async with asyncio.timeout(self._limits.callout_timeout), slots:
                answer = await self._post(public, address)
        except Exception as error:  # noqa: BLE001 - fails closed, whatever went wrong
            # Only its type: texts of such errors hold addresses, and may hold what was sent.
            self._failed(type(error).__name__)
        else:
            if answer is Answer.FAILED:
                self._failed("no answer that can be understood")
        now = self._loop.time()
        self._answers.put(key, answer, now)
        for done in self._waiting.pop(key):
            self._count -= 1
            self._loop.call_soon(done, answer)

    def _failed(self, error: str) -> None:
        if self._tell.due(self._loop.time()):
            structlog.get_logger().warning("callout_failed", error=error)
