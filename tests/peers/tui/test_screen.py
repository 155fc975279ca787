"""The screen: contacts, the open conversation, what counts as read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events

from peers.store import contacts, messages, unsettled
from peers.store.message_rows import State
from tests.peers.tui.scene import DAY, MINUTE, Scene, run

if TYPE_CHECKING:
    from pathlib import Path


# --- Contacts ---------------------------------------------------------------------------------------------------------


def test_contacts_are_sorted_by_what_was_said_last_and_marked(scene: Scene) -> None:
    async def story() -> None:
        bob, carol = await scene.knows("Bob"), await scene.knows("Carol", origin="introduction")
        await scene.hears(carol, "first", scene.now - 2 * MINUTE)
        await scene.says(bob, "second", scene.now - MINUTE)
        async with scene.screen() as view:
            first, second = view.people
            assert first.startswith("○ Bob ◇")
            assert "You: second" in first
            assert second.startswith("○ Carol ?")
            assert second.split("\n")[1].startswith("  first")
            assert second.endswith(" 1 ")
            await scene.hears(carol, "third [b]bold[/b]\x1b[2J")
            await scene.store.write(contacts.set_online, scene.now, (carol.public.x_pub,), online=True)
            await view.until(lambda: view.people[0].startswith("● Carol ?"))
            assert "third [b]bold[/b][2J" in view.people[0]
            assert view.people[0].endswith(" 2 ")

    run(scene, story)


def test_a_profile_without_contacts_says_what_to_do(scene: Scene) -> None:
    async def story() -> None:
        async with scene.screen(size=(80, 24)) as view:
            assert "Ctrl+N adds somebody" in view.text("#empty")
            bob = await scene.knows("Bob", origin="introduction")
            await view.until(lambda: len(view.people) == 1)
            assert any("Bob introduced themselves" in notice for notice in view.notices)
            assert "Choose somebody" in view.text("#empty")
            await view.press("enter")
            assert view.chat.current == bob.id
            assert view.app.focused is view.chat.composer

    run(scene, story)


def test_the_mouse_opens_a_conversation(scene: Scene) -> None:
    async def story() -> None:
        bob, carol = await scene.knows("Bob"), await scene.knows("Carol")
        await scene.hears(bob, "hi", scene.now + MINUTE)
        async with scene.screen() as view:
            await view.pilot.click("#people", offset=(3, 2))
            await view.quiet()
            assert view.chat.current == carol.id
            await view.pilot.click("#people", offset=(3, 0))
            await view.quiet()
            assert view.chat.current == bob.id
            assert view.texts == [view.texts[0]]

    run(scene, story)


def test_alt_arrows_and_quick_switch(scene: Scene) -> None:
    async def story() -> None:
        people = {}
        for minute, name in enumerate(("Carol", "[i]Dave", "Bob")):
            people[name] = await scene.knows(name)
            await scene.hears(people[name], "hi", scene.now + minute * MINUTE)
        async with scene.screen(people["Bob"]) as view:
            await view.press("alt+down")
            assert view.chat.current == people["[i]Dave"].id
            await view.press("alt+up", "alt+up")
            assert view.chat.current == people["Carol"].id
            await view.press("ctrl+k")
            await view.types("dav")
            await view.until(lambda: view.app.screen.query_one("CommandList").option_count == 1)  # type: ignore[attr-defined]
            await view.press("enter")
            await view.until(lambda: view.chat.current == people["[i]Dave"].id)
            assert "[i]Dave" in view.text("#heading")

    run(scene, story)


def test_a_contact_who_is_removed_elsewhere_is_gone(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.hears(bob, "hi")
        async with scene.screen(bob) as view:
            await scene.store.write(contacts.remove, scene.now, bob.id)
            await view.until(lambda: view.chat.current is None)
            assert view.people == []
            assert view.texts == []

    run(scene, story)


# --- The conversation -------------------------------------------------------------------------------------------------


def test_a_conversation_shows_days_times_and_states(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        old = await scene.says(bob, "old", scene.now - 3 * DAY)
        await scene.store.write(unsettled.acknowledged, scene.now, bob.id, old.uuid, read=True)
        new = await scene.says(bob, "new [red]not red[/red]")
        async with scene.screen(bob) as view:
            assert len(view.lines) == 2
            assert view.lines[-1] == "Today"
            assert view.texts[0].endswith("✓✓ read")
            assert view.texts[1].startswith("new [red]not red[/red]")
            assert view.texts[1].endswith(" ·")
            for state, mark in (("sent", " ✓"), ("delivered", " ✓✓"), ("read", " ✓✓ read")):
                if state == "sent":
                    await scene.store.write(unsettled.mark_sent, scene.now, [new.id])
                else:
                    read = state == "read"
                    await scene.store.write(unsettled.acknowledged, scene.now, bob.id, new.uuid, read=read)
                await view.until(lambda mark=mark: view.texts[1].endswith(mark))  # type: ignore[misc]

    run(scene, story)


def test_ours_stand_at_the_right_and_theirs_at_the_left(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.hears(bob, "theirs")
        await scene.says(bob, "ours")
        async with scene.screen(bob) as view:
            theirs, ours = (bubble.region for bubble in view.chat.conversation.bubbles)
            inner = view.chat.conversation.scrollable_content_region
            assert theirs.x == inner.x
            assert ours.right == inner.right
            assert theirs.right < ours.x + ours.width

    run(scene, story)


def test_what_they_edit_and_delete_is_shown(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        one, two = await scene.hears(bob, "one"), await scene.hears(bob, "two")
        async with scene.screen(bob) as view:
            await scene.store.write(messages.receive_edit, scene.now, bob.id, b"n" * 24, one.uuid, "uno")
            await scene.store.write(messages.receive_delete, scene.now, bob.id, b"m" * 24, two.uuid)
            await view.until(lambda: view.texts[1].startswith("message deleted"))
            assert view.texts[0].startswith("uno ")
            assert view.texts[0].endswith("edited")

    run(scene, story)


def test_pages_are_read_as_one_scrolls_and_others_dropped(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.history(bob, 260)
        async with scene.screen(bob, size=(80, 24)) as view:
            history = view.chat.conversation
            assert view.in_view[-1].startswith("number 259")
            assert len(view.texts) < 100
            most = 0
            while not view.texts[0].startswith("number 0 "):
                before = view.in_view
                await view.press("pageup")
                await view.until(lambda before=before: view.in_view != before)  # type: ignore[misc]
                # What was at the top of the view is still in it, however much was mounted above.
                assert before[0] in view.in_view
                most = max(most, len(view.texts))
            assert most <= 160
            assert not view.texts[-1].startswith("number 259")
            await view.press("shift+tab", "home")
            await view.until(lambda: view.in_view[0].startswith("number 0 "))
            assert history.scroll_y == 0
            while not view.in_view[-1].startswith("number 259"):
                before = view.in_view
                await view.press("pagedown")
                await view.until(lambda before=before: view.in_view != before)  # type: ignore[misc]
                assert before[-1] in view.in_view
                assert len(view.texts) <= 160
            await view.press("home", "end")
            await view.until(lambda: view.in_view[-1].startswith("number 259"))

    run(scene, story)


def test_a_reader_of_old_messages_is_not_moved_by_new_ones(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.history(bob, 100)
        async with scene.screen(bob, size=(80, 24)) as view:
            await scene.hears(bob, "at the end")
            await view.until(lambda: view.in_view[-1].startswith("at the end"))
            await view.press("pageup")
            before = view.in_view
            await scene.hears(bob, "while reading")
            await view.until(lambda: view.texts[-1].startswith("while reading"))
            assert view.in_view == before
            # One's own words are shown in any case.
            await scene.says(bob, "mine")
            await view.until(lambda: view.in_view[-1].startswith("mine"))

    run(scene, story)


def test_the_view_stays_when_the_window_changes(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.history(bob, 100)
        long = await scene.says(bob, "word " * 60)
        await scene.history(bob, 30)
        async with scene.screen(bob, size=(100, 30)) as view:
            for _ in range(2):
                await view.pilot.resize_terminal(72, 20)
                await view.until(lambda: view.chat.size.width == 72)
                assert view.in_view[-1].startswith("number 29")
                await view.pilot.resize_terminal(120, 40)
                await view.until(lambda: view.chat.size.width == 120)
                assert view.in_view[-1].startswith("number 29")
            await view.chat.go_to(bob.id, long.id)
            await view.quiet()
            assert any(text.startswith("word") for text in view.in_view)
            top = view.in_view[0]
            await view.pilot.resize_terminal(80, 24)
            await view.until(lambda: view.chat.size.width == 80)
            assert view.in_view[0] == top

    run(scene, story)


def test_a_very_long_message_is_cut_and_can_be_read_whole(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.hears(bob, "\x1b[31m" + "word " * 13000 + "the end")
        async with scene.screen(bob) as view:
            assert "… show all (63.5 KiB)" in view.texts[0]
            await view.press("shift+tab", "enter")
            await view.chooses("Show all")
            await view.until(lambda: bool(view.app.screen.query(".reader")))
            text = view.app.screen.query_one(".reader").text  # type: ignore[attr-defined]
            assert text.endswith("the end")
            assert "\x1b" not in text
            await view.press("escape")
            assert view.app.screen is view.chat

    run(scene, story)


# --- What was read ----------------------------------------------------------------------------------------------------


def test_only_what_somebody_can_see_is_marked_as_read(scene: Scene) -> None:
    async def story() -> None:
        bob, carol = await scene.knows("Bob"), await scene.knows("Carol")
        async with scene.screen(bob) as view:
            seen = await scene.hears(bob, "seen")
            await view.until(lambda: view.texts != [] and view.chat.people[bob.id].unread == 0)
            while (await scene.message(seen)).state is not State.READ:
                await view.quiet()
            elsewhere = await scene.hears(carol, "elsewhere")

            view.app.post_message(events.AppBlur())
            await view.quiet()
            unseen = await scene.hears(bob, "unseen")
            await view.until(lambda: view.texts[-1].startswith("unseen"))
            assert view.lines[-1] == "unread"
            assert (await scene.message(unseen)).read_at is None

            view.app.post_message(events.AppFocus())
            await view.until(lambda: not view.chat.people[bob.id].unread)
            assert (await scene.message(unseen)).state is State.READ
            assert (await scene.message(elsewhere)).read_at is None

            await view.press("f1")
            behind = await scene.hears(bob, "behind a dialog")
            await view.until(lambda: view.texts[-1].startswith("behind"))
            assert (await scene.message(behind)).read_at is None
            await view.press("escape")
            await view.until(lambda: not view.chat.people[bob.id].unread)

    run(scene, story)


def test_the_unread_are_read_as_one_comes_by_them(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.history(bob, 300, unread=100)
        async with scene.screen(bob, size=(80, 24)) as view:
            assert "unread" in view.lines
            assert any(text.startswith("number 200 ") for text in view.in_view)
            await view.until(lambda: view.chat.people[bob.id].unread < 100)
            while True:
                # Not one more than was in view counts as read.
                last = int(view.in_view[-1].split()[1])
                await view.until(lambda last=last: view.chat.people[bob.id].unread <= 300 - last)  # type: ignore[misc]
                assert view.chat.people[bob.id].unread >= 299 - last
                if last == 299:
                    break
                await view.press("pagedown")
            assert not view.chat.people[bob.id].unread

    run(scene, story)


def test_read_receipts_are_a_matter_of_the_settings(tmp_path: Path) -> None:
    for told in (True, False):
        scene = Scene(tmp_path / str(told), read_receipts=told)

        async def story(scene: Scene = scene, told: bool = told) -> None:
            bob = await scene.knows("Bob")
            await scene.hears(bob, "hello")
            async with scene.screen(bob) as view:
                await view.until(lambda: not view.chat.people[bob.id].unread)
            waiting = await scene.store.read(unsettled.changes_to_send, bob.id, 10)
            assert [change.kind for change in waiting] == (["read"] if told else [])

        run(scene, story)
