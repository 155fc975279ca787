"""What `scripts/screenshot` runs: a profile with some conversations, the screen on it, and a picture of that.

Textual draws an SVG whose text asks for a font from the network; here it gets one that is at hand, and resvg makes the
PNG of it.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import resvg_py

from keys.files import ClientKeys
from keys.identity import Identity
from keys.invite import RelayCard
from peers.chat.session import Session
from peers.chat.tui import ChatApp
from peers.profile import Profile
from peers.store import contacts, feed, file_steps, messages, open_store, unsettled
from wire.peer_commands import FileOffer, Pull

if TYPE_CHECKING:
    import sqlite3

SIZE: Final = (104, 32)
WIDTH: Final = 1280
"""Pixels of the picture."""
FONT: Final = "DejaVu Sans Mono"
MIDNIGHT: Final = int(datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)
DAY: Final = 24 * 3600 * 1000

TALK: Final = (
    (-1, "21:40", False, "Are you still going to the coast on Saturday?"),
    (-1, "21:52", True, "Yes, if the weather holds. The ferry leaves at 8:15."),
    (
        0,
        "09:03",
        False,
        "Good morning! I have the photos of the old lighthouse.\nTwo of them are huge, tell me if you want all.",
    ),
    (0, "09:05", True, "All, please. Send them here, nothing of it goes through anybody's cloud."),
    (0, "09:06", False, "They are on their way"),
    (0, "09:11", True, "It comes in nicely. And you verified me on the phone, so I know it is you"),
    (0, "09:12", True, "Shall I bring the tripod?"),
)


class PictureSession(Session):
    """A session that looks as if it were connected."""

    @property
    def carrying(self) -> bool:
        return True


def at(days: int, clock: str) -> int:
    hour, minute = clock.split(":")
    return MIDNIGHT + days * DAY + (int(hour) * 60 + int(minute)) * 60_000


def person(db: sqlite3.Connection, name: str, *, online: bool = False, **options: Any) -> int:
    row = contacts.add(db, at(-30, "12:00"), Identity.generate().public, nickname=name, **options)
    contacts.set_online(db, at(0, "09:10"), (row.public.x_pub,), online=online)
    return row.id


def heard(db: sqlite3.Connection, contact: int, days: int, clock: str, text: str, *, read: bool = True) -> None:
    row = messages.receive(db, at(days, clock), contact, messages.uuid(), text)
    assert row is not None  # noqa: S101
    if read:
        messages.mark_read(db, at(days, clock), contact, row.id)


def said(db: sqlite3.Connection, contact: int, days: int, clock: str, text: str, state: str) -> None:
    row = messages.compose(db, at(days, clock), contact, text)
    if state in ("delivered", "read"):
        unsettled.acknowledged(db, at(days, clock), contact, row.uuid, read=state == "read")
    elif state == "sent":
        unsettled.mark_sent(db, at(days, clock), [row.id])


def story(db: sqlite3.Connection) -> int:
    """Write what is to be seen; returns whose conversation is shown."""
    mira = person(db, "Mira", online=True)
    contacts.set_verified(db, at(0, "08:00"), mira, verified=True)
    for days, clock, ours, text in TALK:
        if ours:
            said(db, mira, days, clock, text, "delivered" if clock == "09:12" else "read")
        else:
            heard(db, mira, days, clock, text)
        if clock == "09:06":
            size = 186 << 20
            offer = FileOffer(
                b"f" * 16, "lighthouse-raw.tiff", "image/tiff", size, Pull(messages.uuid(), 32768, bytes(32))
            )
            policy = file_steps.Policy(auto_accept=1 << 40, room=1 << 40)
            _, row = file_steps.receive_offer(db, at(0, "09:07"), mira, b"n" * 24, offer, policy)
            assert row is not None  # noqa: S101
            file_steps.came(db, at(0, "09:08"), row.message, b"", int(size * 0.62), 32768, tell=False)
            messages.mark_read(db, at(0, "09:08"), mira, row.message)
    jonas = person(db, "Jonas", online=True)
    heard(db, jonas, 0, "08:47", "The backup job is green again", read=False)
    heard(db, jonas, 0, "08:48", "and the new disk is in", read=False)
    build = person(db, "build-agent", online=True)
    heard(db, build, 0, "07:30", "nightly: 1482 passed, 0 failed. Deploy to staging? yes/no")
    said(db, build, 0, "07:41", "yes", "read")
    eva = person(db, "Eva Lindqvist")
    said(db, eva, -1, "18:20", "The keys are with the neighbour", "sent")
    heard(db, person(db, "Dr. Okafor"), -3, "11:02", "Results are in, call me when you can")
    heard(db, person(db, "Sam", origin="introduction"), -4, "16:45", "Hi, I got your id from Jonas")
    feed.set_connection(db, at(0, "09:00"), "connected")
    return mira


async def draw(directory: Path) -> str:
    """Return the screen as SVG."""
    keys = ClientKeys(Identity.generate(), "Alice")
    card = RelayCard(Identity.generate().public, "wss://relay.example/ws")
    profile = Profile.create("alice", keys, card, environ={"BLINDRELAY_HOME": str(directory)})
    async with PictureSession(profile, profile.settings(), keys, open_store(profile.store_path)) as session:
        contact = await session.store.write(story)
        app = ChatApp(session, contact, carried=False)
        async with app.run_test(size=SIZE) as pilot:
            while app.chat is None or not app.chat.conversation.rows:
                await pilot.pause()
            app.chat.composer.write("The weather report says sun from ten on, so")
            app.chat.composer.cursor_blink = False
            for _ in range(3):
                await pilot.pause()
            return app.export_screenshot(title="blindrelay-chat open Mira")


def picture(svg: str) -> bytes:
    """Return a PNG of a screen."""
    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    svg = re.sub(r"@font-face\s*{[^}]*}", "", svg).replace("Fira Code", FONT).replace("arial", FONT)
    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg,
            width=WIDTH,
            skip_system_fonts=True,
            font_files=[
                str(fonts / f"{FONT.replace(' ', '')}{style}.ttf")
                for style in ("", "-Bold", "-Oblique", "-BoldOblique")
            ],
            font_family=FONT,
            monospace_family=FONT,
            sans_serif_family=FONT,
        )
    )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: scripts/screenshot [PATH]")
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        svg = asyncio.run(draw(Path(directory)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(svg))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
