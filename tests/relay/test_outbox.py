"""The queue of one recipient: order, sizes, who sent what, and how old the oldest byte is."""

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.outbox import Outbox, frame_head, from_peers, nonce_of

FLUSH: Final = 1000


def outbox(flush_size: int = FLUSH) -> Outbox[str]:
    return Outbox(flush_size)


def frame(payload_size: int, number: int = 0) -> bytes:
    """Return a queued frame whose packet's nonce holds a number."""
    nonce = number.to_bytes(24, "big")
    return frame_head(payload_size) + b"headhead" + nonce + bytes(payload_size - 32)


# --- Frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x00"),
        (112, b"\x82\x70"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (1 << 20, b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x00"),
    ],
)
def test_frame_head(size: int, head: bytes) -> None:
    assert frame_head(size) == head


@pytest.mark.parametrize("size", [112, 125, 126, 65535, 65536, 1 << 20])
def test_the_nonce_is_found_behind_each_of_the_three_heads(size: int) -> None:
    assert nonce_of(frame(size, 0x0102030405)) == (0x0102030405).to_bytes(24, "big")


# --- Order and room ---------------------------------------------------------------------------------------------------


def test_frames_leave_in_the_order_they_came() -> None:
    box = outbox()
    assert box.put(b"one", "a")
    assert box.put(b"two", None)
    box.force(b"three", "b")
    assert (box.size, len(box)) == (11, 3)
    frames, senders = box.take(FLUSH)
    assert frames == [b"one", b"two", b"three"]
    assert senders == ["a", None, "b"]
    assert (box.size, len(box), box.handed) == (0, 0, 11)


def test_put_fills_the_room_to_the_last_byte() -> None:
    box = outbox(10)
    assert box.put(bytes(10), "a")
    assert not box.put(b"x", "a")
    assert (box.size, len(box)) == (10, 1)


def test_what_does_not_fit_leaves_no_trace() -> None:
    box = outbox(10)
    assert not box.put(bytes(11), "a")
    assert (box.size, len(box)) == (0, 0)


def test_force_asks_for_no_room() -> None:
    box = outbox(10)
    box.force(bytes(11), "a")
    assert (box.size, len(box)) == (11, 1)


def test_a_frame_larger_than_everything_is_taken_whole_and_alone() -> None:
    box = outbox(10)
    box.force(bytes(50), "a")
    box.force(b"x", "b")
    assert box.take(10)[0] == [bytes(50)]
    assert box.take(10)[0] == [b"x"]


def test_batches_hold_what_fits_and_one_frame_at_least() -> None:
    box = outbox(100)
    for size in (4, 6, 1, 20, 3):
        box.force(bytes(size), "a")
    sizes = []
    while box.size:
        sizes.append([len(each) for each in box.take(10)[0]])
    assert sizes == [[4, 6], [1], [20], [3]]
    assert box.handed == 34


def test_a_single_frame_is_not_copied() -> None:
    box = outbox()
    whole = frame(200)
    box.put(whole, "a")
    assert box.take(FLUSH)[0][0] is whole


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(1, 40))
@settings(deadline=None)
def test_batches_together_are_everything_in_order(sizes: list[int], most: int) -> None:
    box = outbox()
    frames = [bytes([at % 256]) * size for at, size in enumerate(sizes)]
    for at, each in enumerate(frames):
        box.force(each, str(at) if at % 3 else None)
    taken: list[bytes] = []
    senders: list[str | None] = []
    while box.size:
        batch, their_senders = box.take(most)
        assert sum(map(len, batch)) <= most or len(batch) == 1
        taken += batch
        senders += their_senders
    assert taken == frames
    assert senders == [str(at) if at % 3 else None for at in range(len(frames))]
    assert box.handed == sum(sizes)
    assert len(box) == 0


# --- Who is to be told -----------------------------------------------------------------------------------------------


def test_a_batch_knows_who_sent_what() -> None:
    box = outbox(1 << 20)
    for number, (size, sender) in enumerate([(112, "a"), (126, None), (70000, "b"), (300, "a")]):
        assert box.put(frame(size, number), sender)
    taken = box.take(1 << 20)
    assert list(from_peers(*taken)) == [("a", bytes(24)), ("b", bytes(23) + b"\x02"), ("a", bytes(23) + b"\x03")]


def test_dropping_leaves_what_the_server_said() -> None:
    box = outbox(1 << 20)
    box.put(frame(112, 1), "a")
    box.put(b"ours", None)
    box.put(frame(70000, 2), "b")
    dropped = list(box.drop_peer_frames())
    assert [(sender, nonce[-1]) for sender, nonce in dropped] == [("a", 1), ("b", 2)]
    assert (box.size, len(box)) == (4, 1)
    assert box.take(FLUSH)[0] == [b"ours"]


def test_dropping_takes_effect_at_once() -> None:
    box = outbox()
    box.put(frame(112, 1), "a")
    dropped = box.drop_peer_frames()
    assert (box.size, len(box)) == (0, 0)
    box.put(frame(112, 2), "b")
    assert [sender for sender, _ in dropped] == ["a"]


def test_peers_are_named_once_each_in_order() -> None:
    box = outbox()
    for sender in ("b", None, "a", "b", "c", "a"):
        box.put(b"x", sender)
    assert box.peers() == ["b", "a", "c"]


# --- Age --------------------------------------------------------------------------------------------------------------


def stalled(box: Outbox[str], in_transport: int) -> None:
    box.stalled = True
    box.in_transport = in_transport


def test_untaken_is_what_waits_here_and_in_the_transport() -> None:
    box = outbox()
    box.put(bytes(100), "a")
    box.take(FLUSH)
    box.put(bytes(30), "a")
    stalled(box, 80)
    assert box.untaken == 110


def test_what_was_never_marked_has_no_age() -> None:
    box = outbox()
    box.put(bytes(100), "a")
    assert box.age(50.0) == 0.0


def test_the_age_is_that_of_the_oldest_byte() -> None:
    box = outbox()
    box.put(bytes(100), "a")
    box.take(FLUSH)
    stalled(box, 100)
    box.mark(10.0)
    box.force(bytes(500), "a")
    box.mark(20.0)
    assert box.age(30.0) == 20.0


def test_a_reader_that_takes_single_bytes_gains_nothing() -> None:
    box = outbox()
    box.put(bytes(100), "a")
    box.take(FLUSH)
    stalled(box, 100)
    box.mark(10.0)
    for second in range(30):
        box.in_transport -= 1
        box.force(bytes(10), "a")
        box.mark(10.0 + second)
    assert box.age(40.0) == 30.0


def test_the_age_moves_on_with_the_bytes_taken() -> None:
    box = outbox()
    box.put(bytes(100), "a")
    box.take(FLUSH)
    stalled(box, 100)
    box.mark(10.0)
    box.force(bytes(50), "a")
    box.mark(20.0)
    box.in_transport = 1
    assert box.age(21.0) == 11.0
    box.in_transport = 0
    assert box.age(21.0) == 1.0
    box.take(FLUSH)
    assert box.age(21.0) == 0.0


def test_marks_of_bytes_that_were_taken_are_forgotten() -> None:
    box = outbox(1 << 30)
    stalled(box, 0)
    for second in range(1000):
        box.put(bytes(10), "a")
        box.mark(float(second))
        if second >= 5:
            box.in_transport = 0
            box.take(10)
    assert box._marks is not None
    assert len(box._marks) <= 7
    box.clear_marks()
    assert box._marks is None


def test_nothing_new_makes_no_mark() -> None:
    box = outbox()
    stalled(box, 0)
    box.put(bytes(10), "a")
    for second in range(100):
        box.mark(float(second))
    assert box._marks == [(10, 0.0)]


def test_what_comes_after_a_drop_does_not_inherit_the_age_of_what_was_dropped() -> None:
    box = outbox()
    box.put(bytes(100), "a")
    box.take(FLUSH)
    stalled(box, 100)
    box.force(frame(900), "a")
    box.mark(10.0)
    box.drop_peer_frames()
    assert box.age(40.0) == 30.0  # what the transport has is as old as it was
    box.force(frame(200), "b")
    box.mark(39.0)
    box.in_transport = 0
    assert box.age(40.0) == 1.0


class Seen:
    """When a frame came, and at which mark it was first there."""

    def __init__(self, came: float) -> None:
        self.came = came
        self.marked: float | None = None


STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(33, 90)),
        st.tuples(st.just("ours"), st.integers(33, 90)),
        st.tuples(st.just("taken"), st.integers(1, 120)),
        st.tuples(st.just("hand over"), st.integers(1, 200)),
        st.tuples(st.just("mark"), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
@settings(deadline=None, max_examples=400)
def test_the_age_against_a_model_of_single_bytes(steps: list[tuple[str, int]]) -> None:
    """The age counts from the mark that first saw the oldest byte, and is never more than that byte's own age."""
    box = outbox(1 << 30)
    stalled(box, 0)
    queue: list[tuple[int, bool, Seen]] = []
    transport: list[Seen] = []  # one for each byte
    now, dropped = 100.0, False
    for what, size in steps:
        now += 1.0
        if what in ("put", "ours"):
            whole = frame(size)
            box.force(whole, "a" if what == "put" else None)
            queue.append((len(whole), what == "put", Seen(now)))
        elif what == "taken":
            del transport[:size]
            box.in_transport = len(transport)
        elif what == "hand over" and queue and not transport:
            for _ in box.take(size)[0]:
                length, _, seen = queue.pop(0)
                transport += [seen] * length
            box.in_transport = len(transport)
        elif what == "drop":
            box.drop_peer_frames()
            queue = [each for each in queue if not each[1]]
            dropped = True
        elif what == "mark":
            box.mark(now)
            for seen in (*transport, *(seen for _, _, seen in queue)):
                seen.marked = seen.marked or now
        waiting = transport + [seen for _, _, seen in queue]
        if not waiting:
            assert box.age(now) == 0.0
            continue
        oldest = waiting[0]
        known = now - oldest.marked if oldest.marked else 0.0
        assert box.age(now) <= known <= now - oldest.came
        if not dropped:
            assert box.age(now) == known
