"""docs/mailbox.md says what the code says, and shows what is in the database: the dump is made here."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import fields
from typing import TYPE_CHECKING

from keys.contact import Contact
from keys.deposit import DROP_SECRET_SIZE, PACKET_MAX, SIZE_CLASSES, drop_digest, seal_deposit
from keys.identity import Identity
from keys.stamp import BITS_MAX, WINDOW
from peers.mailbox.app import AppSession
from peers.mailbox.arguments import FLAGS
from peers.mailbox.commands import COMMANDS
from peers.mailbox.core import Caller
from peers.mailbox.http_face import BODY_MAX
from peers.mailbox.http_protocol import HEAD_MAX
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import DAY, AccessRule, Limits, token_digest
from peers.mailbox.settings_limits import LimitSettings
from tests.docs import markdown
from tests.peers.mailbox.lab import ALICE, BOB, BOX, CAROL, Box
from tests.support.clients import run_async
from wire import mailbox_commands as asks
from wire import mailbox_http as framing
from wire.mailbox_answers import Delivery
from wire.mailbox_codes import ACK_MAX, MailboxCommand, Reason, Word

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = (markdown.ROOT / "docs" / "mailbox.md").read_text()
CODES = (markdown.ROOT / "wire" / "mailbox_codes.py").read_text()


def test_codes_and_their_ways() -> None:
    rows = markdown.rows(PAGE, "code", "name", "way", "body")
    told = {markdown.code(row["name"]): (int(markdown.code(row["code"]), 16), row["way"]) for row in rows}
    ways = dict(re.findall(r"^    (\w+) = 0x\w+  # (c→m|m→c)  ", CODES, re.MULTILINE))
    assert told == {command.name: (command.value, ways[command.name]) for command in MailboxCommand}


def test_reasons() -> None:
    rows = markdown.rows(PAGE, "reason", "code", "what the depositor does")
    assert {markdown.code(row["reason"]): int(row["code"]) for row in rows} == {
        reason.name: reason.value for reason in Reason
    }


def test_limits() -> None:
    limits = Limits()
    told = {
        markdown.code(row["limit"]): float(row["default"])
        for row in markdown.rows(PAGE, "limit", "default", "what happens beyond")
    }
    in_milliseconds = {"ttl", "ttl_max", "app_grace"}
    expected = {
        field.name: getattr(limits, field.name) / (1000 if field.name in in_milliseconds else 1)
        for field in fields(limits)
        if field.name not in {"callers", "remembered", "prices"} and not isinstance(getattr(limits, field.name), Rate)
    }
    expected["marker_days"] *= DAY / 1000
    assert told == expected


def test_sizes_in_the_text() -> None:
    assert f"{', '.join(f'{size:,}' for size in SIZE_CLASSES[:-1])} or {SIZE_CLASSES[-1]:,} bytes" in PAGE
    assert f"at most {PACKET_MAX:,}" in PAGE
    assert f"n at most {ACK_MAX:,}" in PAGE
    assert f"no more than {BITS_MAX} are" in PAGE
    assert WINDOW == 10 * 60 * 1000
    assert "ten minutes" in PAGE


# --- The dump ---------------------------------------------------------------------------------------------------------


def dump(path: Path) -> str:
    """Every row of every table. What is drawn at random is not printed: the first of a recipient's numbers."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        first = db.execute("SELECT min(number) FROM items").fetchone()[0]
        lines = []
        for table in tables:
            for row in db.execute(f"SELECT * FROM {table} ORDER BY 1"):  # noqa: S608 - names from the schema
                lines.append(table)
                lines += [f"    {name} = {shown(row[name], first)}" for name in row.keys()]  # noqa: SIM118 - no dict
        return "\n".join(lines)


def shown(value: object, first: int) -> str:
    if isinstance(value, bytes):
        return f"{value[:4].hex()}… ({len(value):,} bytes)"
    if isinstance(value, int) and 0 <= value - first < 10:
        return f"random + {value - first}"
    return str(value)


async def scenario(path: Path) -> str:
    """Two deposits by Alice with a throwaway session, one envelope by Carol. Returns the dump.

    What the page says is not written down is looked for in the bytes of the database's files."""
    throwaway, packets = Identity(b"t" * 32, b"T" * 32), []
    bounds, token = Limits(disk_reserve=0), b"a token of sixteen"
    secret = b"the secret of a deletion".ljust(DROP_SECRET_SIZE, b".")
    async with Box(path, bounds, AccessRule()) as box:
        for at in range(2):
            packets.append(Contact(ALICE, BOB.public).seal(f"hello {at}".encode(), fixed(at)))
            deposit = seal_deposit(ALICE.public, BOB.public.x_pub, BOX, packets[-1], fixed(10 + at))
            request = asks.Deposit(1, BOB.public.x_pub, 0, drop_digest(secret[at:] + secret[:at]), deposit, token=token)
            await box.deposit(request, Caller(throwaway.public.x_pub, "192.0.2.77"))
        carol, bob = AppSession(box.mailbox, CAROL.public.x_pub), AppSession(box.mailbox, BOB.public.x_pub)
        env = CAROL.public.x_pub + Contact(CAROL, BOB.public).seal(b"hi", fixed(20))
        assert await carol.serve(asks.Store(BOB.public.x_pub, env), b"1" * 24, box.at) == Word(0x14)
        assert isinstance(await bob.serve(Word(0x02), b"2" * 24, box.at), Delivery)
        assert await bob.serve(Word(0x02), b"3" * 24, box.at) == Word(0x11)
        lease = await box.fetch(limit=1)
        assert len(lease.items) == 1
        await box.says(asks.List(1), CAROL)
        await box.tend()
        challenge = box.mailbox.challenge(CAROL.public.x_pub, Caller(address="198.51.100.9"), box.at)
        files = b"".join(file.read_bytes() for file in sorted(path.parent.glob("box.db*")))
        page = dump(path)
    hidden = {
        "the sender's keys": ALICE.public.x_pub,
        "the sender's signing key": ALICE.public.ed_pub,
        "the depositing session": throwaway.public.x_pub,
        "a depositor's address": b"192.0.2.77",
        "a packed address": bytes((192, 0, 2, 77)),
        "the address of one who asks": b"198.51.100.9",
        "the packet": packets[0],
        "its nonce": packets[1][:24],
        "the plaintext": b"hello",
        "the token": token,
        "what is kept of a token": token_digest(token),
        "the secret": secret,
        "who was only asked for": challenge[-48:],
        "the recipient's signing key": BOB.public.ed_pub,
    }
    for what, piece in hidden.items():
        assert piece not in files, what
    # The search finds what is there.
    assert BOB.public.x_pub in files
    assert CAROL.public.x_pub in files
    return page


def fixed(number: int) -> Callable[[int], bytes]:
    """Randomness that is the same each time."""
    return lambda size: bytes((number + 1,)) * size


@run_async
async def test_the_dump_is_the_one_on_the_page(tmp_path: Path) -> None:
    page = await scenario(tmp_path / "box.db")
    told = re.search(r"<!-- dump -->\n```\n(.*?)\n?```", PAGE, re.DOTALL)
    assert told is not None
    assert told[1] == page


@run_async
async def test_every_field_is_explained(tmp_path: Path) -> None:
    async with Box(tmp_path / "box.db") as box:
        await box.tend()
    with closing(sqlite3.connect(tmp_path / "box.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {f"{table}.{row[1]}" for table in tables for row in db.execute(f"PRAGMA table_info({table})")}
    rows = markdown.rows(PAGE, "field", "what it is", "why it is kept", "when it is erased")
    assert {markdown.code(row["field"]) for row in rows} == columns
    assert len(rows) == len(columns)
    assert all(all(cell.strip() for cell in row.values()) for row in rows)


# --- The program ------------------------------------------------------------------------------------------------------


def test_the_table_of_settings_is_current() -> None:
    assert FLAGS.table() in PAGE, "renew it: .venv/bin/python -m peers.mailbox config doc"


def test_the_http_interface() -> None:
    rows = markdown.rows(PAGE, "request", "body", "most bytes", "answer")
    told = {markdown.code(row["request"]).partition(" ")[2]: row for row in rows}
    assert set(told) == {*BODY_MAX, framing.INFO_PATH}
    for path, most in BODY_MAX.items():
        assert told[path]["most bytes"] == f"{most:,}", path
    for path, commands in framing.PATHS.items():
        named = set(re.findall(r"\b[A-Z]{3,}\b", told[path]["body"]))
        assert named == {MailboxCommand(command).name for command in commands}


def test_the_statuses() -> None:
    rows = markdown.rows(PAGE, "status", "reason")
    told = {(int(row["status"]), Reason[name]) for row in rows for name in re.findall(r"`([A-Z_]+)`", row["reason"])}
    # 408 is one of our own: the request never came as far as the mailbox.
    assert told - {(408, Reason.FAILED)} == {(status, reason) for reason, status in framing.STATUS.items()}


def test_commands_and_figures_of_the_text() -> None:
    blocks = re.findall(r"blindrelay-mailbox ((?:token |config )?[a-z]+)", PAGE)
    assert {"keygen", "run", "card", "stats", "prune", "backup", "token new", "config check"} <= set(blocks)
    assert set(blocks) - {"token"} <= set(COMMANDS)
    limits = LimitSettings()
    rules = limits.rules()
    for text in (
        f"{limits.connections:,} connections, {limits.address_connections} of one address",
        f"{limits.request:g} s for a request to arrive",
        f"{limits.session_in_progress} requests may be under way",
        f"some {limits.known:,} clients",
        f"is under way, for {limits.stop:g} s",
        f"{HEAD_MAX >> 10} KiB of headers",
        f"{rules.total_bytes >> 30} GiB in all by default, {rules.recipient_bytes >> 20} MiB and",
        f"{rules.disk_reserve >> 20} MiB left",
    ):
        assert text in " ".join(PAGE.split()), text
