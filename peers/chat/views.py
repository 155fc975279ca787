"""Contacts and messages as they are shown: cleaned lines for people, records for programs (docs/chat.md).

The texts of records are exactly what peers wrote; only their encoding makes them harmless (:mod:`peers.chat.output`).
"""

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from peers.chat.text import clean, clean_line
from peers.store.contacts import ContactRow
from peers.store.file_rows import FileRow
from peers.store.mailboxes import OwnMailbox, Unwelcome
from peers.store.message_rows import MessageRow

LABEL_SHOWN: Final = 40
"""Most characters of a label in a line."""
_INDENT: Final = "    "
_TICKS: Final = {
    "queued": "·",
    "left": "↓ left",
    "sent": "✓",
    "delivered": "✓✓",
    "read": "✓✓ read",
    "failed": "✗",
}


def stamp(at: int | None) -> str | None:
    """Return a time, in milliseconds since 1970, as RFC 3339 in UTC with milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(at: int) -> str:
    """Return a time as people read it here."""
    return datetime.fromtimestamp(at / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def label(contact: ContactRow) -> str:
    """Return the label as it may be shown."""
    return clean_line(contact.label, LABEL_SHOWN)


def whom(contact: ContactRow) -> dict[str, Any]:
    """Return what names a contact in a record."""
    return {"label": contact.label, "peer_id": contact.public.id.hex()}


def contact_record(contact: ContactRow) -> dict[str, Any]:
    """Return a contact for programs."""
    return {
        **whom(contact),
        "nickname": contact.nickname,
        "trust": contact.trust,
        "verified_at": stamp(contact.verified_at),
        "origin": contact.origin,
        "added_at": stamp(contact.added_at),
        "blocked": contact.blocked,
        "online": contact.online,
        "seen_at": stamp(contact.seen_at),
    }


def file_record(file: FileRow) -> dict[str, Any]:
    """Return what there is to say of a message that is a file."""
    return {
        "name": file.name,
        "mime": file.mime,
        "size": file.size,
        "moved": file.moved,
        "state": file.state,
        "reason": file.why or None,
    }


def message_record(message: MessageRow, contact: ContactRow, file: FileRow | None = None) -> dict[str, Any]:
    """Return a message for programs; `file` is what it is, if it is one."""
    record = {
        "id": message.id,
        **whom(contact),
        "direction": "out" if message.outgoing else "in",
        "kind": message.kind,
        "text": message.text,
        "at": stamp(message.at),
        "state": message.standing,
        "mailboxes": message.left,
        "delivered_at": stamp(message.delivered_at),
        "read_at": stamp(message.read_at),
        "edited_at": stamp(message.edited_at),
        "deleted_at": stamp(message.deleted_at),
    }
    return record if file is None else {**record, "file": file_record(file)}


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def mailbox_record(own: OwnMailbox) -> dict[str, Any]:
    """Return one of our mailboxes for programs."""
    return {
        "mailbox": own.id,
        "mailbox_id": own.card.public.id.hex(),
        "url": own.card.url,
        "card": own.card.text,
        "added_at": stamp(own.added_at),
        "looked_at": stamp(own.looked_at),
        "trouble": own.trouble or None,
        "picked_up": own.picked,
        "refused": own.refused,
        "has_token": bool(own.token),  # which, is for contacts alone
    }


def unwelcome(each: Unwelcome) -> str:
    """Return what is wrong at a mailbox of a contact that does not take our token, and what would help."""
    who, where = clean_line(each.label, LABEL_SHOWN), clean_line(urlsplit(each.card.url).netloc)
    wrong = f"does not take the token that {who} told" if each.token_told else f"asks for a token, and {who} told none"
    waits = "1 deposit waits" if each.waiting == 1 else f"{each.waiting} deposits wait"
    return f"{who}'s mailbox at {where} {wrong}: {waits} until {who} gives theirs a valid one (mailbox token)"


def mailboxes(number: int) -> str:
    """Return a number of mailboxes in words."""
    return "1 mailbox" if number == 1 else f"{number} mailboxes"


def file_state(file: FileRow) -> str:
    """Return how far a file is, in a few words."""
    if file.state == "failed":
        return f"failed: {file.why}"
    if file.state == "moving":
        return f"{100 * file.moved // file.size if file.size else 0} %"
    if file.state == "offered":
        return "offered" if file.outgoing else "waits to be accepted"
    return "arrived" if file.outgoing else "here"


def file_line(file: FileRow) -> str:
    """Return a file in one line: its name, its size and how far it is."""
    return f"{clean_line(file.name) or '(without a name)'} ({size(file.size)}, {file_state(file)})"


def content(message: MessageRow, file: FileRow | None = None) -> str:
    """Return what a message says, cleaned; it may have several lines."""
    if message.deleted_at is not None:
        return "(deleted)"
    if message.kind == "call":
        return "(a call, which nothing here can take)"
    if message.kind == "file":
        return f"file {clean_line(message.text) if file is None else file_line(file)}"
    return clean(message.text)


def indented(head: str, text: str) -> str:
    """Return `text` after `head`; further lines of it are indented, so that none of them looks like a line of ours."""
    return f"{head}{text}".replace("\n", f"\n{_INDENT}")


def message_line(message: MessageRow, contact: ContactRow, file: FileRow | None = None, *, named: bool = False) -> str:
    """Return a message for people, with its number and how far it came; with `named`, also to whom it went."""
    who = label(contact) if not message.outgoing else f"me to {label(contact)}" if named else "me"
    marks = " (edited)" if message.edited_at is not None and message.deleted_at is None else ""
    ticks = f"  {_TICKS[message.standing]}" if message.outgoing else ""
    return indented(f"{message.id:>5}  {local(message.at)}  {who}: ", f"{content(message, file)}{marks}{ticks}")


def preview(message: MessageRow | None, limit: int = 60) -> str:
    """Return the beginning of a message, in one line."""
    if message is None:
        return ""
    return clean_line(("me: " if message.outgoing else "") + content(message), limit)
