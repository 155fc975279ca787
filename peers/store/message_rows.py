"""Messages as they are kept: their states, and what is read of their rows."""

import sqlite3
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

MessageKind = Literal["text", "file", "call"]


class State(IntEnum):
    """How far a message came."""

    QUEUED = 0
    """Ours: to be sent."""
    SENT = 1
    """Ours: given to the relay, and not acknowledged yet."""
    DELIVERED = 2
    """Ours: its recipient has it. Theirs: we have it."""
    READ = 3
    """Its recipient has seen it."""
    FAILED = 4
    """Ours: it will not be delivered (a file that is gone, or was refused)."""


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message as the store has it."""

    id: int
    contact: int
    uuid: bytes
    outgoing: bool
    kind: MessageKind
    text: str
    at: int
    state: State
    delivered_at: int | None
    read_at: int | None
    edited_at: int | None
    deleted_at: int | None
    left: int = 0
    """Ours: in how many mailboxes of its recipient it lies."""

    @property
    def standing(self) -> str:
        """How far it came, in a word: ``queued``, ``left`` (in a mailbox), ``sent``, ``delivered``, ``read`` or
        ``failed``."""
        return "left" if self.left and self.state < State.DELIVERED else self.state.name.lower()

    def __repr__(self) -> str:
        return f"MessageRow({self.id})"


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """What is still to be told about a message."""

    message: MessageRow
    kind: Literal["edit", "delete", "read"]
    revision: int
    tries: int


COLUMNS: Final = (
    "m.id, m.contact, m.uuid, m.outgoing, m.kind, m.text, m.at, m.state,"
    " m.delivered_at, m.read_at, m.edited_at, m.deleted_at,"
    " (SELECT count(*) FROM parcels p WHERE p.message = m.id AND p.what = 'text' AND p.state = 'kept')"
)
"""What is read of `messages m`."""


def message_row(row: sqlite3.Row) -> MessageRow:
    """Return what a query of :data:`COLUMNS` gave."""
    return MessageRow(row[0], row[1], row[2], bool(row[3]), row[4], row[5], row[6], State(row[7]), *row[8:13])
