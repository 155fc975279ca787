"""Mailboxes above streams, for the tests of the JetStream store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keys.deposit import drop_digest
from peers.mailbox.store import NewItem
from tests.peers.mailbox.lab import BOB, START, Box, content, secret
from wire.mailbox_codes import ItemKind

if TYPE_CHECKING:
    from pathlib import Path

    from keys.identity import Identity
    from peers.mailbox.jetstream_store import JetStreamStore
    from peers.mailbox.rules import Limits
    from tests.peers.mailbox.nats import Nats


def a_box(nats: Nats, path: Path, bounds: Limits | None = None, **changed: Any) -> Box:
    box = Box(path, bounds)

    async def open_store() -> JetStreamStore:
        return await nats.open(path, box.limits, **changed)

    box.open_store = open_store  # type: ignore[method-assign]
    return box


def secret_file(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)


def item(number: int, to: Identity = BOB, expires: int = START + 3_600_000) -> NewItem:
    return NewItem(to.public.x_pub, ItemKind.DEPOSIT, expires, drop_digest(secret(number)), content(number))
