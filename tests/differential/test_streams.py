"""Whatever comes, cut however: our class and `websockets` hear the same and say the same, in the same order."""

from hypothesis import event, example, given, settings

from tests.differential.raw import BINARY, CONT, PING, payload, pieces, raw, steps
from tests.differential.sides import Outcome, ours, theirs
from tests.differential.strategies import LARGE, PATIENT, SMALL, Stream, damaged, noise, streams


def compare(stream: Stream) -> None:
    """Compare the two sides on a stream: as it is cut, at once, frame by frame, and in steps where it is short."""
    data = stream.data
    expected = theirs(data, stream.limit)
    describe(expected)
    assert ours(pieces(data, stream.cuts), stream.limit) == expected
    assert ours([data] if data else [], stream.limit) == expected
    assert ours(stream.frames, stream.limit) == expected
    if len(data) <= 3000:
        for size in (1, 2, 3, 7):
            assert ours(steps(data, size), stream.limit) == expected


def describe(outcome: Outcome) -> None:
    """Tell hypothesis what a stream came to (shown by --hypothesis-show-statistics)."""
    event(f"messages: {min(len(outcome.messages), 3)}")
    ending = next((one.kind for one in outcome.events if one.kind in ("closed", "violation")), "still open")
    code = ""
    if ending == "violation":
        close = [one.data for one in outcome.events if one.kind == "sent"][-1]
        code = f" {int.from_bytes(close[2:4], 'big')}"
    event(f"ending: {ending}{code}")


@given(stream=streams(SMALL))
@settings(PATIENT, max_examples=800)
@example(Stream(10, [raw(BINARY, b"12345", fin=False), raw(PING, b"123456")], []))
@example(Stream(10, [raw(BINARY, b"12345", fin=False), raw(CONT, b"123456")], []))
@example(Stream(0, [raw(BINARY), raw(BINARY, fin=False), raw(CONT), raw(BINARY, b"1")], []))
def test_frames_of_every_kind(stream: Stream) -> None:
    compare(stream)


@given(stream=streams(LARGE))
@settings(PATIENT, max_examples=150)
@example(Stream(65_536, [raw(BINARY, payload(65_536)), raw(BINARY, payload(65_537))], [1, 2, 9, 10, 13, 14, 15]))
def test_frames_around_the_largest_lengths(stream: Stream) -> None:
    compare(stream)


@given(stream=damaged())
@settings(PATIENT, max_examples=300)
def test_damaged_frames(stream: Stream) -> None:
    compare(stream)


@given(stream=noise)
@settings(PATIENT, max_examples=300)
def test_bytes_that_are_no_frames(stream: Stream) -> None:
    compare(stream)
