"""What can be done: dialogs, the palette, messages, people, files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import segno
from textual.widgets import Input, OptionList, Static

from keys.identity import Identity
from keys.invite import Invite
from keys.safety import grouped, safety_number
from peers.chat.tui import path_dialog
from peers.store import contacts, file_steps, files, jobs, messages, unsettled
from peers.store.message_rows import State
from tests.peers.tui.scene import DAY, Scene, run
from wire.peer_commands import CancelReason, FileOffer, Pull

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from peers.store.contacts import ContactRow
    from peers.store.files import FileRow
    from tests.peers.tui.scene import View


def read_code(text: str) -> tuple[bytearray, ...]:
    """The modules of a QR code that is drawn in half blocks."""
    rows: list[list[int]] = []
    for line in text.split("\n"):
        rows.append([int(c in "▀█") for c in line])
        rows.append([int(c in "▄█") for c in line])
    filled = [at for at, row in enumerate(rows) if any(row)]
    left = min(row.index(1) for row in rows if any(row))
    width = len(filled)  # it is a square
    return tuple(bytearray(row[left : left + width]) for row in rows[filled[0] : filled[-1] + 1])


def field(view: View) -> Input:
    return view.app.screen.query_one(Input)


async def contact(scene: Scene, row: ContactRow) -> ContactRow:
    return await scene.store.read(contacts.get, row.id)


# --- People -----------------------------------------------------------------------------------------------------------


def test_somebody_is_added_by_their_invite(scene: Scene) -> None:
    async def story() -> None:
        async with scene.screen() as view:
            await view.press("ctrl+n")
            for text, wrong in (("hello", "begins with K0"), (scene.keys.invite.text, "your own invite")):
                field(view).value = text
                await view.press("enter")
                await view.until(lambda wrong=wrong: wrong in view.text(".error"))  # type: ignore[misc]
            invite = Invite(Identity.generate().public, "Bob\x1b[31m [b]")
            field(view).value = f"https://chat.example/#peer={invite.text}"
            await view.press("enter")
            await view.until(lambda: view.chat.current is not None)
            assert "Bob[31m [b]" in view.text("#heading")
            assert view.app.focused is view.chat.composer
            (row,) = await scene.store.read(contacts.everyone)
            assert (row.public, row.origin) == (invite.public, "invite")
            assert [kind for _, _, kind in await scene.store.read(jobs.waiting)] == ["introduce"]

    run(scene, story)


def test_my_invite_is_shown_as_text_and_code_and_copied(scene: Scene) -> None:
    async def story() -> None:
        async with scene.screen(size=(80, 24)) as view:
            await view.press("f3")
            assert scene.keys.invite.text in view.text(".words")
            assert read_code(view.text(".code")) == segno.make(scene.keys.invite.text, error="l", micro=False).matrix
            for part in (".words", ".code"):
                region = view.app.screen.query_one(part).region
                assert view.app.screen.region.contains_region(region)
            await view.press("c")
            assert view.app.clipboard == scene.keys.invite.text
            await view.press("escape")
            assert view.app.screen is view.chat

    run(scene, story)


def test_safety_numbers_are_compared(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob", origin="introduction")
        number = grouped(safety_number(scene.keys.identity.public, bob.public)).split()
        async with scene.screen(bob) as view:
            assert "? unverified" in view.text("#heading")
            await view.press("f4")
            shown = str(view.app.screen.query_one(".body Static", Static).content).split()
            assert [word for word in shown if word.isdigit()] == number
            await view.chooses("It is the same")
            await view.until(lambda: "◆ verified" in view.text("#heading"))
            assert (await contact(scene, bob)).verified
            await view.press("f4")
            await view.chooses("I am not sure")
            await view.until(lambda: "? unverified" in view.text("#heading"))
            await view.press("f4")
            await view.chooses("It differs")
            await view.until(lambda: "numbers differ" in view.text(".title"))
            await view.press("escape")
            assert not (await contact(scene, bob)).verified

    run(scene, story)


def test_people_are_renamed_blocked_and_removed(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.knows("Carol")
        async with scene.screen(bob) as view:
            view.chat.actions.run("rename")
            await view.until(lambda: bool(view.app.screen.query(Input)))
            field(view).value = "carol"
            await view.press("enter")
            await view.until(lambda: "another contact" in view.text(".error"))
            field(view).value = "Robert"
            await view.press("enter")
            await view.until(lambda: "Robert" in view.text("#heading") if view.app.screen is view.chat else False)

            view.chat.actions.run("block")
            await view.until(lambda: view.app.screen is not view.chat)
            await view.chooses("Do not")
            assert not (await contact(scene, bob)).blocked
            view.chat.actions.run("block")
            await view.until(lambda: view.app.screen is not view.chat)
            await view.chooses("Block")
            await view.until(lambda: "blocked" in view.text("#heading"))
            view.chat.actions.run("block")
            await view.until(lambda: "blocked" not in view.text("#heading"))

            view.chat.actions.run("remove")
            await view.until(lambda: view.app.screen is not view.chat)
            await view.press("escape")
            assert view.chat.current == bob.id
            view.chat.actions.run("remove")
            await view.until(lambda: view.app.screen is not view.chat)
            await view.chooses("Remove")
            await view.until(lambda: view.chat.current is None)
            assert len(view.people) == 1

    run(scene, story)


def test_the_palette_offers_all_of_it(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        async with scene.screen(bob) as view:
            names = [name for name, _, _ in view.chat.commands()]
            assert {"Add a contact", "My invite", "Search", "Send a file", "Verify", "Rename", "Keys"} <= set(names)
            await view.press("ctrl+p")
            await view.types("wake")
            await view.until(lambda: view.app.screen.query_one("CommandList").option_count > 0)  # type: ignore[attr-defined]
            await view.press("enter")
            await view.until(lambda: any("push" in notice for notice in view.notices))
            assert [kind for _, _, kind in await scene.store.read(jobs.waiting)] == ["wake"]

    run(scene, story)


def test_without_a_conversation_only_what_needs_none_is_offered(scene: Scene) -> None:
    async def story() -> None:
        await scene.knows("Bob")
        async with scene.screen() as view:
            names = [name for name, _, _ in view.chat.commands()]
            assert "Add a contact" in names
            assert "Verify" not in names
            await view.press("f4")
            assert "Choose a contact first" in view.notices

    run(scene, story)


def test_help_names_every_key_of_the_screen(scene: Scene) -> None:
    async def story() -> None:
        async with scene.screen() as view:
            await view.press("f1")
            text = str(view.app.screen.query_one(".body Static", Static).content)
            for key in ("Ctrl+K", "Ctrl+P", "Ctrl+F", "Ctrl+N", "Ctrl+O", "F2", "F3", "F4", "Ctrl+Q", "Alt+↑"):
                assert key in text
            await view.press("escape")

    run(scene, story)


# --- Messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_deleted_for_both_or_here(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        theirs, mine = await scene.hears(bob, "theirs"), await scene.says(bob, "mine")
        await scene.store.write(unsettled.mark_sent, scene.now, [mine.id])
        async with scene.screen(bob) as view:
            await view.press("shift+tab", "d")
            await view.chooses("Delete for both")
            await view.until(lambda: view.texts[1].startswith("message deleted"))
            changes = await scene.store.read(unsettled.changes_to_send, bob.id, 10)
            assert [change.kind for change in changes if change.message.id == mine.id] == ["delete"]
            await view.press("up", "d")
            options = view.app.screen.query_one(OptionList)
            assert options.option_count == 2  # what they wrote cannot be deleted there
            await view.chooses("Keep")
            assert view.texts[0].startswith("theirs")
            await view.press("d")
            await view.chooses("Delete here")
            await view.until(lambda: view.texts[0].startswith("message deleted"))
            assert (await scene.message(theirs)).deleted_at is not None

    run(scene, story)


def test_the_menu_of_a_message_copies_and_edits(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.hears(bob, "rm -rf /\x1b[8m\r")
        await scene.says(bob, "mine")
        async with scene.screen(bob) as view:
            bubbles = view.chat.conversation.bubbles
            await view.pilot.click(bubbles[0])
            await view.quiet()
            assert view.chat.conversation.selected == bubbles[0].row.id
            await view.press("enter")
            names = [str(o.prompt) for o in view.app.screen.query_one(OptionList).options]
            assert names == ["Copy text  (c)", "Delete…  (d)", "Nothing"]
            await view.chooses("Copy")
            assert view.app.clipboard == "rm -rf /[8m\n"
            await view.pilot.click(bubbles[1], button=3)
            await view.quiet()
            await view.chooses("Edit")
            await view.until(lambda: view.chat.composer.text == "mine")
            assert view.app.focused is view.chat.composer

    run(scene, story)


def test_search_goes_to_the_message(scene: Scene) -> None:
    async def story() -> None:
        bob, carol = await scene.knows("Bob"), await scene.knows("Carol")
        await scene.history(bob, 100)
        needle = await scene.hears(bob, "a Nèedle in [b]hay[/b]", scene.now - DAY)
        await scene.history(bob, 200)
        await scene.hears(carol, "needless")
        async with scene.screen(carol) as view:
            await view.press("ctrl+f")
            await view.types("need")
            results = view.app.screen.query_one(OptionList)
            await view.until(lambda: results.option_count == 2)
            assert "needless" in str(results.get_option_at_index(0).prompt)
            assert "in [b]hay[/b]" in str(results.get_option_at_index(1).prompt)
            await view.press("ctrl+t")
            await view.until(lambda: results.option_count == 1)
            await view.press("ctrl+t")
            await view.until(lambda: results.option_count == 2)
            await view.press("down", "down", "enter")
            await view.until(lambda: view.chat.current == bob.id and view.chat.conversation.selected == needle.id)
            await view.until(lambda: any("Nèedle" in text for text in view.in_view))
            assert len(view.texts) < 100
            # From the middle of the history one's own words still come into view.
            await view.press("escape")
            await view.types("here")
            await view.press("enter")
            await view.until(lambda: view.in_view[-1:] != [] and view.in_view[-1].startswith("here"))

    run(scene, story)


def test_search_for_nothing_and_for_syntax_finds_nothing(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.hears(bob, "hello")
        async with scene.screen(bob) as view:
            await view.press("ctrl+f")
            for words in ('"', "* OR (", "NEAR(", "   "):
                field(view).value = words
                await view.until(lambda: "0 found" in view.text(".keys"))
            field(view).value = "hel"
            await view.until(lambda: "1 found" in view.text(".keys"))
            await view.press("escape")

    run(scene, story)


# --- Files ------------------------------------------------------------------------------------------------------------


def offered(db: Any, now: int, who: int, name: str, size: int, accept: int) -> FileRow:
    offer = FileOffer(b"f" * 16, name, "text/plain", size, Pull(messages.uuid(), 32768, bytes(32)))
    policy = file_steps.Policy(auto_accept=accept, room=1 << 40)
    _, row = file_steps.receive_offer(db, now, who, b"n" * 24, offer, policy)
    assert row is not None
    return row


def test_a_file_is_accepted_watched_and_saved(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        async with scene.screen(bob) as view:
            row = await scene.store.write(offered, scene.now, bob.id, "../[b]a\x1b[2J.txt", 1000, 0)
            await view.until(lambda: len(view.texts) == 1)
            assert view.texts[0].startswith("▤ [b]a[2J.txt\n1000 B · waits for your yes")
            await view.press("shift+tab", "a")
            await view.until(lambda: "0 % of 1000 B" in view.texts[0])
            await scene.store.write(file_steps.came, scene.now, row.message, b"", 500, 32768, tell=True)
            await view.until(lambda: "█" * 8 + "░" * 8 + " 50 % of 1000 B" in view.texts[0])
            path = files.content_path(scene.profile.files_path, row)
            path.write_bytes(b"x" * 1000)
            await scene.store.write(file_steps.whole, scene.now, row.message)
            await view.until(lambda: "here: s saves a copy" in view.texts[0])

            target = tmp_path / "target"
            target.mkdir()
            (target / "below").mkdir()
            await view.press("s")
            await view.until(lambda: bool(view.app.screen.query(Input)))
            field(view).value = str(target)[:-3]
            await view.press("tab")
            await view.until(lambda: field(view).value == f"{target}/")
            await view.press("enter")
            await view.until(lambda: any(notice.startswith("saved as") for notice in view.notices))
            (saved,) = [entry for entry in target.iterdir() if entry.is_file()]
            assert saved.read_bytes() == b"x" * 1000

            await view.until(lambda: view.app.screen is view.chat)
            await view.press("s")
            await view.until(lambda: bool(view.app.screen.query(Input)))
            field(view).value = str(saved)
            await view.press("enter")
            await view.until(lambda: "exists already" in view.text(".error"))

    monkeypatch.chdir(tmp_path)
    run(scene, story)


def test_a_file_is_refused(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        row = await scene.store.write(offered, scene.now, bob.id, "film.mkv", 3 << 30, 0)
        async with scene.screen(bob) as view:
            await view.press("shift+tab", "enter")
            await view.chooses("Refuse")
            await view.until(lambda: "✗" in view.texts[0])
            assert (await scene.store.read(files.get, row.message)).reason == CancelReason.REFUSED
            await view.press("a")
            await view.until(lambda: any("will not come" in notice for notice in view.notices))

    run(scene, story)


def test_a_file_is_sent_by_its_path_and_cancelled(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        async with scene.screen(bob) as view:
            await view.press("ctrl+o")
            await view.until(lambda: field(view).value == f"{tmp_path}/")
            offers = view.app.screen.query_one(OptionList)
            await view.until(lambda: offers.option_count > 0)
            field(view).value = f"{tmp_path}/absent"
            await view.press("enter")
            await view.until(lambda: "there is no file" in view.text(".error"))
            field(view).value = f"{tmp_path}/rep"
            await view.press("tab")
            await view.until(lambda: field(view).value == f"{tmp_path}/report.")
            await view.types("txt")
            await view.press("enter")
            await view.until(lambda: len(view.texts) == 1)
            assert view.texts[0].startswith("▤ report.txt\n5 B · offered")
            (row,) = await scene.store.read(files.list_of, bob.id)
            assert row.source == str(tmp_path / "report.txt")
            await view.press("shift+tab", "x")
            await view.until(lambda: "✗ failed" in view.texts[0])
            assert (await scene.store.read(messages.get, row.message)).state is State.FAILED

    (tmp_path / "report.txt").write_bytes(b"hello")
    (tmp_path / "report.pdf").write_bytes(b"hello")
    monkeypatch.chdir(tmp_path)
    run(scene, story)


def test_paths_are_completed(tmp_path: Path) -> None:
    for name in ("one.txt", "only\x1b[2J", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "onward").mkdir()
    base = f"{tmp_path}/"
    assert path_dialog.complete(base + "on") == [base + "onward/", base + "one.txt", base + "only\x1b[2J"]
    assert path_dialog.complete(base, directories=True) == [base + "onward/"]
    assert path_dialog.complete(base + ".h") == [base + ".hidden"]
    assert path_dialog.complete(base + "absent/x") == []
    assert path_dialog.complete("a\0b") == []
    assert path_dialog.common([base + "onward/", base + "one.txt"]) == base + "on"
    assert path_dialog.common([]) == ""
