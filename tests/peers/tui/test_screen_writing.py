"""The screen: the composer, narrow terminals, and the state of things."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from textual import events

from peers.store import contacts, feed, messages, unsettled
from peers.store.message_rows import State
from tests.peers.tui.scene import Scene, run

if TYPE_CHECKING:
    from collections.abc import Awaitable


# --- Writing ----------------------------------------------------------------------------------------------------------


def test_enter_sends_and_ctrl_j_begins_a_line(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        async with scene.screen(bob) as view:
            await view.types("two")
            await view.press("ctrl+j")
            await view.types("lines")
            await view.press("enter")
            await view.until(lambda: len(view.texts) == 1)
            assert view.texts[0].startswith("two\nlines")
            assert view.chat.composer.text == ""
            (row,) = await scene.store.read(messages.history, bob.id)
            assert (row.text, row.state) == ("two\nlines", State.QUEUED)
            await view.press("space", "enter")
            assert len(await scene.store.read(messages.history, bob.id)) == 1

    run(scene, story)


def test_drafts_are_kept_for_each_contact(scene: Scene) -> None:
    async def story() -> None:
        bob, carol = await scene.knows("Bob"), await scene.knows("Carol")
        async with scene.screen(bob) as view:
            await view.types("for bob")
            await view.chat.go_to(carol.id)
            await view.quiet()
            assert view.chat.composer.text == ""
            await view.types("for carol")
            await view.chat.go_to(bob.id)
            await view.quiet()
            assert view.chat.composer.text == "for bob"
            await scene.hears(bob, "meanwhile")
            await view.until(lambda: len(view.texts) == 1)
            assert view.chat.composer.text == "for bob"
            assert view.app.focused is view.chat.composer

    run(scene, story)


def test_what_cannot_be_sent_stays_in_the_composer(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        async with scene.screen(bob) as view:
            view.chat.composer.write("ü" * 40000)
            await view.press("enter")
            await view.until(lambda: any("65536 are the most" in notice for notice in view.notices))
            assert view.chat.composer.text == "ü" * 40000
            await scene.store.write(contacts.set_blocked, scene.now, bob.id, blocked=True)
            await view.until(lambda: "blocked" in view.text("#heading"))
            view.chat.composer.write("hello")
            await view.press("enter")
            await view.until(lambda: any("unblock them first" in notice for notice in view.notices))
            assert view.chat.composer.text == "hello"

    run(scene, story)


def test_up_edits_the_last_message(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        mine = await scene.says(bob, "helo")
        await scene.hears(bob, "what?")
        async with scene.screen(bob) as view:
            await view.press("up")
            await view.until(lambda: view.chat.composer.text == "helo")
            assert view.chat.query_one("#editing").display
            await view.press("escape")
            assert view.chat.composer.text == ""
            assert not view.chat.query_one("#editing").display
            await view.press("up")
            await view.until(lambda: view.chat.composer.text == "helo")
            await view.press("backspace")
            await view.types("lo")
            await view.press("enter")
            await view.until(lambda: "edited" in view.texts[0])
            assert (await scene.message(mine)).text == "hello"
            assert len(view.texts) == 2

    run(scene, story)


# --- Room -------------------------------------------------------------------------------------------------------------


def test_in_a_narrow_terminal_contacts_and_conversation_take_turns(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        unread = await scene.hears(bob, "hello")
        async with scene.screen(size=(50, 20)) as view:
            side, right = view.chat.query_one("#side"), view.chat.query_one("#right")
            assert side.region.width == 50
            assert right.region.width == 0
            await view.press("enter")
            await view.until(lambda: right.region.width == 50)
            assert side.region.width == 0
            await view.until(lambda: not view.chat.people[bob.id].unread)
            assert (await scene.message(unread)).state is State.READ
            await view.press("f2")
            assert side.region.width == 50
            hidden = await scene.hears(bob, "not seen")
            await view.until(lambda: view.chat.people[bob.id].unread == 1)
            assert (await scene.message(hidden)).read_at is None
            await view.press("escape")
            await view.until(lambda: not view.chat.people[bob.id].unread)
            await view.pilot.resize_terminal(80, 24)
            await view.until(lambda: view.chat.size.width == 80)
            assert side.region.width == 30
            assert right.region.width == 50

    run(scene, story)


# --- The state of things ----------------------------------------------------------------------------------------------


def test_the_status_line_follows_the_connection_and_leaves_the_composer_alone(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        async with scene.screen(bob) as view:
            await view.types("wri")
            await scene.store.write(feed.set_connection, scene.now, "connected")
            await view.until(lambda: view.text("#status").startswith("● connected"))
            await view.types("ting")
            await scene.store.write(feed.set_connection, scene.now, "refused", text="the relay\x1b[2J asks for a token")
            await view.until(lambda: view.text("#status").startswith("✗ the relay[2J asks for a token"))
            assert view.chat.composer.text == "writing"
            assert view.app.focused is view.chat.composer

    run(scene, story)


def test_a_notice_of_the_relay_is_shown_as_text(scene: Scene) -> None:
    async def story() -> None:
        async with scene.screen() as view:
            await scene.store.write(feed.add, scene.now, feed.Kind.NOTICE, detail="the relay says: [b]restart\x07[/b]")
            await view.until(lambda: "the relay says: [b]restart[/b]" in view.notices)

    run(scene, story)


def test_ctrl_q_ends_it_and_keeps_what_waits(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        async with scene.screen(bob) as view:
            await view.types("bye")
            await view.press("enter")
            await view.press("ctrl+q")
            assert view.app.return_code == 0
        (row,) = await scene.store.read(unsettled.to_send, bob.id, 10)
        assert row.text == "bye"

    run(scene, story)


def test_without_its_store_the_program_ends_and_says_why(scene: Scene) -> None:
    async def story() -> None:
        await scene.knows("Bob")
        async with scene.screen() as view:
            await scene.store.close()
            await view.until(lambda: view.app.error is not None)
            assert "store.db" in str(view.app.error)
            assert view.app.return_code == 1

    run(scene, story)


def test_a_burst_while_nobody_looks_is_marked_where_it_begins(scene: Scene) -> None:
    async def story() -> None:
        bob = await scene.knows("Bob")
        await scene.history(bob, 30)
        async with scene.screen(bob) as view:
            view.app.post_message(events.AppBlur())
            await view.quiet()
            await scene.store.write(burst, scene.now, bob.id, 90)
            await view.until(lambda: view.in_view[-1:] != [] and view.in_view[-1].startswith("burst 89 "))
            assert view.chat.people[bob.id].unread == 90
            while "unread" not in view.lines:
                before = view.in_view
                await view.press("pageup")
                await view.until(lambda before=before: view.in_view != before)  # type: ignore[misc]
            (marked,) = [b for b in view.chat.conversation.bubbles if any(line.text == "unread" for line in b.lines)]
            assert marked.content.plain.startswith("burst 0 ")

    run(scene, story)


def burst(db: Any, now: int, who: int, count: int) -> None:
    for number in range(count):
        messages.receive(db, now, who, messages.uuid(), f"burst {number}")


def test_many_events_at_once_come_out_right(scene: Scene) -> None:
    async def story() -> None:
        people = [await scene.knows(f"P{n}") for n in range(12)]
        async with scene.screen(people[0]) as view:
            waiting: list[Awaitable[object]] = [
                scene.hears(people[n % 12], f"message {n}", scene.now + n) for n in range(1200)
            ]
            await asyncio.gather(*waiting)
            await view.until(lambda: view.texts[-1:] != [] and view.texts[-1].startswith("message 1188"))
            await view.until(lambda: sum(p.unread for p in view.chat.people.values()) == 1100)
            assert len(view.texts) <= 160
            assert view.people[0].startswith("○ P11")

    run(scene, story)
