"""Lanes: what a carrier knows, for the time of a connection, about the way to one contact."""

import math
from typing import Final, NamedTuple

from keys.contact import Contact
from keys.identity import Identity
from peers.store.contacts import ContactRow


class Sent(NamedTuple):
    """A message on its way: its uuid, and when (event loop time) it is sent again unless it was acknowledged."""

    uuid: bytes
    again_at: float


class Lane:
    """The way to one contact.

    Attributes:
        row: the contact as the store had it last.
        online: the relay says that they are connected, and has refused nothing for them since.
        came_at: when it last said so (event loop time).
        introduced: they were given our keys since they came online.
        on_way: messages that were sent and are not acknowledged, by row.
        changes: edits, deletions and read marks that were sent: by message the revision, and when to try again.
        patience: seconds until what is not acknowledged is sent again.
        probe_at: when to try although they are not online (event loop time).
        wake_at: before that there is no other wake (event loop time).
        woken_for: the newest message for which they were woken.
    """

    __slots__ = (
        "_message_id",
        "came_at",
        "changes",
        "contact",
        "introduced",
        "on_way",
        "online",
        "patience",
        "probe_at",
        "row",
        "wake_at",
        "woken_for",
    )

    def __init__(self, ours: Identity, row: ContactRow, patience: float) -> None:
        self.row = row
        self.contact = Contact(ours, row.public, row.nickname)
        self._message_id = 0
        self.came_at = 0.0
        self.wake_at = 0.0
        self.woken_for = 0
        self.reset(patience, 0.0)

    def reset(self, patience: float, probe_at: float) -> None:
        """Forget what was on its way: the connection is another one, or theirs is."""
        self.online = False
        self.introduced = False
        self.on_way: dict[int, Sent] = {}
        self.changes: dict[int, tuple[int, float]] = {}
        self.patience = patience
        self.probe_at = probe_at

    def next_message_id(self) -> int:
        """Count our messages to them, modulo 2¹⁶."""
        message_id, self._message_id = self._message_id, (self._message_id + 1) & 0xFFFF
        return message_id

    @staticmethod
    def taken(uuid: bytes) -> Sent:
        """What :attr:`on_way` has for a file whose offer arrived: it is not offered again on this connection."""
        return Sent(uuid, math.inf)

    def acknowledged(self, uuid: bytes) -> bool:
        """Take a message off the way; tells whether it was on it."""
        for message, sent in self.on_way.items():
            if sent.uuid == uuid:
                del self.on_way[message]
                return True
        return False


class MessageTag(NamedTuple):
    """A packet that carries a message."""

    message: int


class ChangeTag(NamedTuple):
    """A packet that carries a change of a message."""

    message: int
    revision: int


class FileTag(NamedTuple):
    """A packet that carries something about a file: the chunk with this index, or (-2) the end of a file sent unasked,
    or (-1) anything else."""

    file_id: bytes
    chunk: int


class CardsTag(NamedTuple):
    """A packet that carries the list of our mailboxes with this number."""

    serial: int


Tag = MessageTag | ChangeTag | FileTag | CardsTag

TAGS_MAX: Final = 8192
"""Packets whose refusal can still be told from the nonce: far more than can be on their way to a relay."""
