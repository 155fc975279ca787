"""A profile, opened by a program: its store, and whoever carries its messages."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self, TypeVar

from keys.files import ClientKeys
from peers.carrier import Carrier, CarrierOptions, Keeper, MailOptions
from peers.client import ClientOptions
from peers.database import Database
from peers.dropping import DroppingOptions
from peers.profile import Profile, ProfileSettings, ask_passphrase
from peers.store import Connection, contacts, feed, messages, open_store
from peers.store.contacts import ContactRow
from peers.store.feed import EventRow
from peers.store.message_rows import MessageRow

T = TypeVar("T")


class Session:
    """A profile, opened. Made by :meth:`open`, used as ``async with``.

    Attributes:
        profile: where it lies.
        settings: what its owner set.
        keys: who they are.
        store: what was said. Everything is done by writing to it.
    """

    def __init__(self, profile: Profile, settings: ProfileSettings, keys: ClientKeys, store: Database) -> None:
        self.profile = profile
        self.settings = settings
        self.keys = keys
        self.store = store
        self._stack = AsyncExitStack()
        self._keeper: Keeper | None = None

    @classmethod
    def open(cls, name: str | None = None, environ: Mapping[str, str] = os.environ) -> Self:
        """Open a profile; asks for its passphrase if its keys are sealed. Blocks, so before an event loop runs or in a
        thread.

        Raises:
            ProfileError: there is none, or it cannot be used.
            DatabaseError: its store cannot be used.
        """
        profile = Profile.locate(name, environ)
        settings = profile.settings()
        keys = profile.read_keys(lambda: ask_passphrase(f"Passphrase of the profile {profile.name}: ", environ))
        return cls(profile, settings, keys, open_store(profile.store_path))

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self.store.close)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    # --- Carrying -----------------------------------------------------------------------------------------------------

    async def carry(self, options: CarrierOptions | None = None) -> Keeper:
        """Have the messages carried from now on until the session ends: by this process, or by the one that does.

        Args:
            options: instead of those that the profile's settings make; then no token is read from the profile.
        """
        if self._keeper is None:
            if options is None:
                token = await asyncio.get_running_loop().run_in_executor(None, self.profile.read_token)
                options = CarrierOptions(
                    client=ClientOptions(token=token),
                    wake=self.settings.wake,
                    read_receipts=self.settings.read_receipts,
                    auto_accept=self.settings.auto_accept,
                    mail=MailOptions(dropping=DroppingOptions(stamp_bits=self.settings.stamp_bits)),
                )
            make = partial(
                Carrier, self.store, self.keys, self.settings.relay, options, files_dir=self.profile.files_path
            )
            self._keeper = await self._stack.enter_async_context(Keeper(self.profile.lock(), make))
        return self._keeper

    @property
    def carrying(self) -> bool:
        """Whether it is this process that carries."""
        return self._keeper is not None and self._keeper.carrying is not None

    async def failure(self) -> None:
        """Wait until nothing can be carried any more, and raise why: see :meth:`peers.carrier.Carrier.failure`.

        To be called after :meth:`carry`. Where another process carries, its failure is not ours.
        """
        if self._keeper is None:
            raise RuntimeError("nothing is carried before carry()")
        await self._keeper.failure()

    # --- What programs do --------------------------------------------------------------------------------------------

    @staticmethod
    def now() -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    async def contact(self, name: str) -> ContactRow:
        """Return the contact that a person means: see :func:`peers.store.contacts.find`."""
        return await self.store.read(contacts.find, name)

    async def say(self, contact: int, text: str) -> MessageRow:
        """Write a text: see :func:`peers.store.messages.compose`."""
        return await self.store.write(messages.compose, self.now(), contact, text)

    async def read_up_to(self, contact: int, message: int) -> int:
        """Mark what a contact wrote as read, up to a message; returns how many were new."""
        tell = self.settings.read_receipts
        return await self.store.write(messages.mark_read, self.now(), contact, message, tell=tell)

    async def until(self, message: int, reached: Callable[[MessageRow], bool]) -> MessageRow:
        """Return a message as soon as it is as `reached` wants it; for as long as that takes.

        Raises:
            NoSuchMessage: it is gone.
            RelayRefused, DatabaseError: nothing is carried any more.
        """
        return await self.until_store(lambda db: messages.get(db, message), reached)

    async def until_store(self, read: Callable[[Connection], T], holds: Callable[[T], bool]) -> T:
        """Return what `read` gives of the store as soon as it is as wanted; for as long as that takes.

        Raises:
            StoreError: `read` does.
            RelayRefused, DatabaseError: nothing is carried any more.
        """
        return await self.unless_failing(self._until_store(read, holds))

    async def follow(self, after: int) -> AsyncIterator[EventRow]:
        """Yield what happens after a number of the feed, for ever.

        Raises:
            DatabaseError: the store cannot be read.
        """
        version = -1
        while True:
            version = await self.store.changed(version)
            while events := await self.store.read(feed.read, after):
                for event in events:
                    yield event
                after = events[-1].seq

    async def unless_failing(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns; if nothing is carried any more before it does, cancel it and raise why.

        Raises:
            RelayRefused, DatabaseError: as :meth:`failure`.
        """
        wanted = asyncio.create_task(coroutine)
        failing = None if self._keeper is None else asyncio.create_task(self._keeper.failure())
        tasks = [task for task in (wanted, failing) if task is not None]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if failing is not None and failing.done() and not wanted.done():
                failing.result()
            return await wanted
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_store(self, read: Callable[[Connection], T], holds: Callable[[T], bool]) -> T:
        version = -1
        while True:
            version = await self.store.changed(version)
            value = await self.store.read(read)
            if holds(value):
                return value
