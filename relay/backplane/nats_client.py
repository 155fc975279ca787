"""nats-py without its queues and tasks: messages go from where they are received to whoever subscribed.

That relies on names that begin with an underscore; `constraints.txt` pins what was tested, and the tests of the bus go
through all of them.
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final

import nats.errors
from nats.aio.client import Client
from nats.protocol.command import sub_cmd, unsub_cmd

from relay.backplane.bus import Received
from relay.backplane.nats_wire import Wire

_GIVE_UP_WITHIN: Final = 1.0
"""Seconds in which what is left may leave, when a connection is ended."""


class Subscription:
    """As much of nats-py's as it looks at when it renews or ends subscriptions."""

    __slots__ = ("_subject", "received")

    _queue: ClassVar[str] = ""
    _max_msgs: ClassVar[int] = 0
    _received: ClassVar[int] = 0
    _wait_for_msgs_task: ClassVar[None] = None
    _message_iterator: ClassVar[None] = None
    _pending_next_msgs_calls: ClassVar[None] = None

    def __init__(self, subject: str, received: Received) -> None:
        self._subject = subject
        self.received = received

    @property
    def subject(self) -> str:
        return self._subject


class Subscriptions(dict[int, Any]):
    """The subscriptions of one client after another."""

    def clear(self) -> None:
        """Keep them: nats-py drops them when it gives up, and we do not give up."""


class NatsClient(Client):
    """nats-py without queues and tasks between the connection and us."""

    def __init__(
        self,
        answered: Callable[[str, bytes, bytes | None], None],
        answers: str,
        answers_of_all: str,
        *,
        encrypted: bool = False,
    ) -> None:
        super().__init__()
        self._encrypted = encrypted
        self._answered = answered
        self._answers = answers.encode()
        self._answers_of_all = answers_of_all.encode()
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None
        self._wire = Wire(self.take)
        # nats-py makes a transport where there is none.
        self._transport = self._wire

    def take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Hand a message to whoever subscribed."""
        found: Any = self._subs.get(sid)
        if found is None:
            return
        try:
            if subject.startswith(self._answers):
                self._answered(subject.decode(), data, headers)
            else:
                # Whoever can publish here chooses the subject of the answer: none but one for answers is used.
                answer_to = reply.decode() if reply.startswith(self._answers_of_all) else ""
                found.received(data, answer_to, found.subject)
        except Exception as error:  # noqa: BLE001 - it would end the connection, and all others wait for theirs
            self._loop.call_exception_handler({"message": "an error while a message was taken", "exception": error})

    async def _attempt_reconnect(self) -> None:
        # nats-py closes the old connection and waits for that. Closing waits until what lies unsent has left, and a
        # server that is stopped or behind a broken line does not take it before TCP itself gives up, in a quarter of an
        # hour: until then nobody would be told that the connection is lost, and no other server be tried.
        self._wire.abort()
        try:
            await super()._attempt_reconnect()
        except Exception as error:  # noqa: BLE001 - what a server says can bring about any, and would end all tries
            await self._error_cb(error)
            # As nats-py gives up of itself: in a task, for it ends this one.
            self._ending = self._loop.create_task(self._close(Client.CLOSED))

    async def _process_connect_init(self) -> None:
        # A try may fail after these began, and they would read and ping beside those of the next.
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        await super()._process_connect_init()

    def _connect_command(self) -> bytes:
        # nats-py goes on without TLS, and with our password, if the greeting does not ask for it: anybody on the way
        # can take that out.
        if self._encrypted and not self._wire.encrypted:
            raise nats.errors.Error("nats: TLS is asked for, and the server does not offer it")
        return super()._connect_command()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # nats-py writes what it has first, and waits until that has left: a server that reads nothing would keep us
        # from ever hearing that it is over.
        self._pending, self._pending_data_size = [], 0
        late = self._loop.call_later(_GIVE_UP_WITHIN, self._wire.abort)
        try:
            await super()._close(status, do_cbs)
        finally:
            late.cancel()

    @property
    def backlog(self) -> int:
        """Bytes that have not left."""
        return self._wire.backlog

    def put(self, *parts: bytes) -> None:
        """Send a command, in the order of calls, with all that is sent in this turn."""
        if self.is_connected:
            self._wire.put(parts)

    def add(self, sid: int, subscription: Subscription) -> None:
        """Subscribe now, or with the reconnection."""
        subs: Any = self._subs
        subs[sid] = subscription
        self.put(sub_cmd(subscription.subject, "", sid))

    def remove(self, sid: int) -> None:
        """Take a subscription back."""
        self._subs.pop(sid, None)
        self.put(unsub_cmd(sid, 0))

    def take_over(self, subscriptions: Subscriptions) -> None:
        """Use these from now on, and subscribe to all of them."""
        self._subs = subscriptions
        for sid, subscription in subscriptions.items():
            self.put(sub_cmd(subscription.subject, "", sid))
