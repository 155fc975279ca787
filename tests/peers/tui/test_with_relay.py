"""The screen with a real relay, somebody with a carrier at the other end, and a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Final

import pytest

from keys.invite import RelayCard
from peers.chat.exits import Exit
from peers.chat.tui import run as run_screen
from peers.store import contacts, files, messages
from peers.store.message_rows import State
from tests.peers.carrier.conversation import Person
from tests.peers.tui.scene import Scene
from tests.support.relay_process import ROOT, RelayProcess

if TYPE_CHECKING:
    from pathlib import Path

WAIT: Final = 60.0


def test_a_conversation_over_a_relay(relay: RelayProcess, tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path / "alice", relay=RelayCard(relay.public, relay.url))
        bob = Person(tmp_path / "bob", "Bob")
        async with scene.session, bob.store, bob.at(relay):
            await scene.session.carry()
            async with scene.screen(carried=True) as view:
                await view.press("ctrl+n")
                view.app.screen.query_one("Input").value = bob.keys.invite.text  # type: ignore[attr-defined]
                await view.press("enter")
                await view.until(lambda: view.text("#status").startswith("● connected"))
                await view.until(lambda: "● Bob" in view.text("#heading"))
                await view.types("hello")
                await view.press("enter")
                await view.until(lambda: view.texts[-1:] != [] and view.texts[-1].endswith("✓✓"))

                (alice,) = await bob.until(contacts.everyone, bool)
                assert alice.label == "Alice"
                (heard,) = await bob.store.read(messages.history, alice.id)
                await bob.store.write(messages.mark_read, bob.now(), alice.id, heard.id)
                await view.until(lambda: view.texts[-1].endswith("✓✓ read"))

                said = await bob.says(alice, "and hello to you")
                await view.until(lambda: view.texts[-1].startswith("and hello to you"))
                # It is on the screen of somebody who looks, so its author is told.
                await bob.until(messages.get, lambda row: row.state is State.READ, said.id)

                report = tmp_path / "report.bin"
                report.write_bytes(os.urandom(200_000))
                await bob.store.write(files.offer, bob.now(), alice.id, report)
                await view.until(lambda: "report.bin\n195.3 KiB · here" in view.texts[-1])
                (row,) = [row for row in await scene.store.read(files.list_of) if row.name == "report.bin"]
                assert files.content_path(scene.profile.files_path, row).read_bytes() == report.read_bytes()

    asyncio.run(story())


def test_a_relay_with_other_keys_is_named_in_the_status_line(relay: RelayProcess, tmp_path: Path) -> None:
    async def story() -> None:
        scene = Scene(tmp_path, relay=RelayCard(Person(tmp_path / "other", "x").keys.identity.public, relay.url))
        async with scene.session:
            bob = await scene.knows("Bob")
            await scene.session.carry()
            async with scene.screen(bob, carried=True) as view:
                await view.until(lambda: "has other keys than its relay card says" in view.text("#status"))
                await view.types("kept")
                await view.press("enter")
                await view.until(lambda: view.texts[-1:] != [] and view.texts[-1].endswith("·"))

    asyncio.run(story())


def test_without_a_terminal_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def story() -> int:
        scene = Scene(tmp_path)
        async with scene.session:
            return await run_screen(scene.session)

    assert asyncio.run(story()) == Exit.USAGE
    assert "needs a terminal" in capsys.readouterr().err


# --- A real terminal --------------------------------------------------------------------------------------------------


class Terminal:
    """The program in a terminal of 80×24."""

    def __init__(self, home: Path, *arguments: str, **environ: str) -> None:
        self._primary, secondary = pty.openpty()
        fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._before = termios.tcgetattr(secondary)
        self._secondary = secondary
        variables = {
            **os.environ,
            "BLINDRELAY_HOME": str(home),
            "TERM": "xterm-256color",
            "COLUMNS": "80",
            "LINES": "24",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "peers.chat", "--profile", "test", "open", *arguments],
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
            cwd=ROOT,
            env=variables | environ,
            start_new_session=True,
        )
        self.output = b""

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + WAIT
        while text not in self.output:
            assert time.monotonic() < deadline, self.output[-4000:]
            ready, _, _ = select.select([self._primary], [], [], 1.0)
            if ready:
                self.output += os.read(self._primary, 65536)

    def types(self, text: bytes) -> None:
        os.write(self._primary, text)

    def ends(self) -> int:
        """Return the exit status; finds that the terminal is as it was."""
        self.until(b"\x1b[?1049l")
        deadline = time.monotonic() + WAIT
        while (status := self.process.poll()) is None:
            assert time.monotonic() < deadline, "it does not end"
            ready, _, _ = select.select([self._primary], [], [], 0.1)
            if ready:
                self.output += os.read(self._primary, 65536)
        for on, off in (
            (b"\x1b[?1049h", b"\x1b[?1049l"),
            (b"\x1b[?1000h", b"\x1b[?1000l"),
            (b"\x1b[?25l", b"\x1b[?25h"),
        ):
            assert self.output.rfind(on) < self.output.rfind(off), (on, off)
        assert termios.tcgetattr(self._secondary) == self._before
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._primary)
        os.close(self._secondary)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    scene = Scene(tmp_path)

    async def fill() -> None:
        async with scene.session:
            await scene.hears(await scene.knows("Bob"), "good evening \x1b]0;owned\x07")

    asyncio.run(fill())
    return tmp_path


def test_ctrl_q_gives_the_terminal_back(home: Path) -> None:
    terminal = Terminal(home, "Bob")
    try:
        terminal.until(b"good evening")
        terminal.types(b"\x11")
        assert terminal.ends() == Exit.DONE
        assert b"owned\x07" not in terminal.output
        assert b"Traceback" not in terminal.output
    finally:
        terminal.close()


def test_somebody_who_is_not_there_is_named_before_the_screen_comes_up(home: Path) -> None:
    terminal = Terminal(home, "Carol")
    try:
        terminal.until(b"there is no contact of that name")
        assert terminal.process.wait(WAIT) == Exit.NOT_FOUND
        assert b"\x1b[?1049h" not in terminal.output
    finally:
        terminal.close()


def test_what_is_not_for_a_screen_is_refused(home: Path) -> None:
    for arguments, wrong in ((["open"], "needs a terminal"), (["open", "--json"], "listen --json")):
        done = subprocess.run(
            [sys.executable, "-m", "peers.chat", "--profile", "test", *arguments],
            cwd=ROOT,
            env={**os.environ, "BLINDRELAY_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == Exit.USAGE
        assert wrong in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(home: Path, number: signal.Signals) -> None:
    terminal = Terminal(home, "Bob")
    try:
        terminal.until(b"good evening")
        terminal.process.send_signal(number)
        assert terminal.ends() == Exit.INTERRUPTED
    finally:
        terminal.close()


def test_without_colour_there_is_none(home: Path) -> None:
    terminal = Terminal(home, "Bob", NO_COLOR="1", COLORTERM="truecolor")
    try:
        terminal.until(b"good evening")
        terminal.types(b"\x11")
        assert terminal.ends() == Exit.DONE
        colours = [
            tuple(int(value) for value in found.split(b";")[:3])
            for part in terminal.output.split(b"\x1b[")
            for found in [part.partition(b"m")[0].partition(b"38;2;")[2]]
            if found
        ]
        assert colours
        assert all(len(set(colour)) == 1 for colour in colours)  # shades of grey
    finally:
        terminal.close()
