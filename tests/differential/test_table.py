"""RFC 6455 case by case: what each stream must come to is written out, and both sides are held to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import pytest
import websockets.utils

import relay.websocket
from tests.differential.raw import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, payload, pieces, raw, steps
from tests.differential.sides import Event, ours, theirs

LIMIT: Final = 70_000
OPEN: Final = None


@dataclass(frozen=True)
class Case:
    """A stream and what it comes to."""

    name: str
    frames: list[bytes]
    messages: list[bytes] = field(default_factory=list)
    code: int | None = OPEN
    """The code of our Close frame; 1005: one without a code; None: the connection stays open."""
    closed: bool = False
    """Whether the Close frame is the echo of the client's."""
    pongs: list[bytes] = field(default_factory=list)
    """What we answer pings with."""
    limit: int = LIMIT

    @property
    def stream(self) -> bytes:
        """All bytes."""
        return b"".join(self.frames)


def lengths() -> Iterator[Case]:
    """§5.2: every way to state a length, the minimal and the others."""
    for size in (0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 255, 256, 65_534, 65_535, 65_536, 65_537, LIMIT - 1, LIMIT):
        for form in (7, 16, 64):
            if size > 125 > form or size > 0xFFFF > 1 << form:
                continue
            data = payload(size, form)
            frame = raw(BINARY, data, form=form)
            yield Case(f"{size} bytes, length in {form} bits", [frame], [data])
            yield Case(f"{size} bytes, length in {form} bits, twice", [frame, frame], [data, data])
    for size in (LIMIT + 1, LIMIT + 6, LIMIT + 14, 1 << 17):
        yield Case(f"{size} bytes, beyond the limit", [raw(BINARY, payload(size))], code=1009)
    for limit in (0, 1, 125, 126, 65_535, 65_536):
        name = f"limit of {limit} bytes"
        data = payload(limit)
        yield Case(f"{name}, reached", [raw(BINARY, data)] * 2, [data] * 2, limit=limit)
        yield Case(f"{name}, passed", [raw(BINARY, payload(limit + 1))], code=1009, limit=limit)
        for form in (16, 64):
            yield Case(
                f"{name}, passed, in {form} bits", [raw(BINARY, payload(limit + 1), form=form)], code=1009, limit=limit
            )
    for claim in (LIMIT + 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 63) + 5, (1 << 64) - 1):
        yield Case(f"length of {claim:#x} stated", [raw(BINARY, b"data", claim=claim)], code=1009)
        # Nothing after the length is needed to refuse it.
        yield Case(f"length of {claim:#x} stated, nothing after it", [raw(BINARY, claim=claim)[:10]], code=1009)
    yield Case("limit passed by a text", [raw(TEXT, b"12345678901")], code=1009, limit=10)
    yield Case("limit passed by a ping", [raw(PING, b"12345678901")], code=1009, limit=10)
    yield Case("limit passed by a pong", [raw(PONG, b"12345678901")], code=1009, limit=10)
    yield Case("limit passed by a Close frame", [raw(CLOSE, b"\x03\xe8reason...")], code=1009, limit=10)


def masks() -> Iterator[Case]:
    """§5.1, §5.3: the client masks."""
    for size in (0, 1, 5, 126, 65_536):
        for form in (7, 64):
            bare = raw(BINARY, payload(size), key=None, form=form)
            yield Case(f"{size} bytes not masked, at least {form} bits", [bare], code=1002)
    for opcode in (CONT, TEXT, CLOSE, PING, PONG):
        yield Case(f"opcode {opcode} not masked", [raw(opcode, b"\x03\xe8", key=None)], code=1002)
    yield Case("not masked and beyond the limit", [raw(BINARY, payload(LIMIT + 1), key=None)], code=1002)
    yield Case("not masked after a right one", [raw(BINARY, b"1"), raw(BINARY, b"2", key=None)], [b"1"], 1002)
    for key in (bytes(4), b"\xff" * 4, b"\0\0\0\1", b"\1\0\0\0", KEY):
        yield Case(f"mask {key.hex()}", [raw(BINARY, b"abcdefg", key=key), raw(BINARY, b"h")], [b"abcdefg", b"h"])


def opcodes() -> Iterator[Case]:
    """§5.2: reserved bits and opcodes."""
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", [raw(opcode, b"data")], code=1002)
        yield Case(f"opcode {opcode}, two bytes of it", [raw(opcode, b"data")[:2]], code=1002)
        yield Case(f"opcode {opcode}, not final", [raw(opcode, fin=False)], code=1002)
    for rsv in range(1, 8):
        for opcode in (CONT, TEXT, BINARY, CLOSE, PING, PONG):
            yield Case(f"reserved bits {rsv:03b}, opcode {opcode}", [raw(opcode, rsv=rsv)], code=1002)
        frames = [raw(BINARY, b"a", fin=False), raw(CONT, b"b", rsv=rsv)]
        yield Case(f"reserved bits {rsv:03b} in the second fragment", frames, code=1002)
    yield Case("reserved bit, beyond the limit", [raw(BINARY, payload(LIMIT + 1), rsv=4)], code=1009)


def fragments() -> Iterator[Case]:
    """§5.4."""
    yield Case("two fragments", [raw(BINARY, b"ab", fin=False), raw(CONT, b"cd")], [b"abcd"])
    yield Case(
        "three fragments and a message",
        [raw(BINARY, b"a", fin=False), raw(CONT, b"b", fin=False), raw(CONT, b"c"), raw(BINARY, b"d")],
        [b"abc", b"d"],
    )
    yield Case("empty fragments", [raw(BINARY, fin=False), raw(CONT, fin=False), raw(CONT)], [b""])
    yield Case("no end", [raw(BINARY, b"a", fin=False), raw(CONT, b"b", fin=False)])
    yield Case(
        "long fragments",
        [
            raw(BINARY, payload(200), fin=False),
            raw(CONT, payload(66_000, 200), fin=False),
            raw(CONT, payload(9, 66_200)),
        ],
        [payload(66_209)],
    )
    yield Case(
        "control frames between",
        [
            raw(BINARY, b"a", fin=False),
            raw(PING, b"one"),
            raw(PONG, b"two"),
            raw(CONT, b"b", fin=False),
            raw(PING, payload(125)),
            raw(CONT, b"c"),
            raw(PING),
        ],
        [b"abc"],
        pongs=[b"one", payload(125), b""],
    )
    yield Case("continuation of nothing", [raw(CONT, b"a")], code=1002)
    yield Case("continuation of nothing, not final", [raw(CONT, b"a", fin=False)], code=1002)
    yield Case("continuation of a whole message", [raw(BINARY, b"a"), raw(CONT, b"b")], [b"a"], 1002)
    ended = [raw(BINARY, b"a", fin=False), raw(CONT, b"b"), raw(CONT, b"c")]
    yield Case("continuation of an ended message", ended, [b"ab"], 1002)
    for opcode in (TEXT, BINARY):
        for fin in (False, True):
            frames = [raw(BINARY, b"a", fin=False), raw(opcode, b"b", fin=fin)]
            yield Case(f"opcode {opcode} instead of a continuation, final {fin}", frames, code=1002)
            frames = [raw(TEXT, b"a", fin=False), raw(opcode, b"b", fin=fin)]
            yield Case(f"opcode {opcode} within a text, final {fin}", frames, code=1002)
    yield Case(
        "limit reached in fragments", [raw(BINARY, b"12345", fin=False), raw(CONT, b"67890")], [b"1234567890"], limit=10
    )
    yield Case(
        "limit passed in fragments", [raw(BINARY, b"12345", fin=False), raw(CONT, b"678901")], code=1009, limit=10
    )
    yield Case(
        "limit passed in the third",
        [raw(BINARY, b"12345", fin=False), raw(CONT, b"67890", fin=False), raw(CONT, b"1")],
        code=1009,
        limit=10,
    )
    yield Case(
        "limit reached, an empty end",
        [raw(BINARY, b"1234567890", fin=False), raw(CONT), raw(BINARY, b"1234567890")],
        [b"1234567890"] * 2,
        limit=10,
    )
    # A control frame counts against what is left as well: a limit near 125 would be of no use otherwise.
    yield Case(
        "what is left passed by a ping", [raw(BINARY, b"12345", fin=False), raw(PING, b"678901")], code=1009, limit=10
    )
    yield Case(
        "what is left passed by a pong", [raw(BINARY, b"12345", fin=False), raw(PONG, b"678901")], code=1009, limit=10
    )
    yield Case(
        "closing between fragments", [raw(BINARY, b"a", fin=False), raw(CLOSE, b"\x03\xe8"), raw(CONT, b"b")], code=1002
    )


def texts() -> Iterator[Case]:
    """Text is no message of ours; what stands in it does not matter."""
    yield Case("text", [raw(TEXT, b"hello"), raw(BINARY, b"a")], [b"a"])
    yield Case("text that is no UTF-8", [raw(TEXT, b"\xff\xfe"), raw(BINARY, b"a")], [b"a"])
    yield Case(
        "text in fragments",
        [
            raw(TEXT, b"he", fin=False),
            raw(PING, b"x"),
            raw(CONT, b"llo", fin=False),
            raw(CONT, b"\xff"),
            raw(BINARY, b"a"),
        ],
        [b"a"],
        pongs=[b"x"],
    )
    frames = [raw(TEXT, b"12345", fin=False), raw(CONT, b"678901")]
    yield Case("text beyond the limit in fragments", frames, code=1009, limit=10)


def controls() -> Iterator[Case]:
    """§5.5."""
    for size in (0, 1, 4, 124, 125):
        for form in (7, 16, 64):
            data = payload(size)
            yield Case(f"ping of {size} bytes, length in {form} bits", [raw(PING, data, form=form)], pongs=[data])
            yield Case(f"pong of {size} bytes, length in {form} bits", [raw(PONG, data, form=form)])
    yield Case(
        "pings are answered in order", [raw(PING, b"1"), raw(PING, b"2"), raw(PING, b"1")], pongs=[b"1", b"2", b"1"]
    )
    for opcode in (CLOSE, PING, PONG):
        yield Case(f"opcode {opcode}, not final", [raw(opcode, b"\x03\xe8", fin=False)], code=1002)
        for size in (126, 127, 65_535, 65_536):
            yield Case(f"opcode {opcode}, {size} bytes", [raw(opcode, payload(size))], code=1002)
        yield Case(f"opcode {opcode}, beyond the limit", [raw(opcode, payload(LIMIT + 1))], code=1009)
        frames = [raw(BINARY, b"a", fin=False), raw(opcode, b"\x03\xe8", fin=False), raw(CONT, b"b")]
        yield Case(f"opcode {opcode}, not final, between fragments", frames, code=1002)


def closings() -> Iterator[Case]:
    """§5.5.1, §7.4."""
    yield Case("Close without a code", [raw(CLOSE)], code=1005, closed=True)
    yield Case("Close of one byte", [raw(CLOSE, b"\x03")], code=1002)
    for code in (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999):
        yield Case(f"Close {code}", [raw(CLOSE, code.to_bytes(2, "big"))], code=code, closed=True)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield Case(f"Close {code}, which is none", [raw(CLOSE, code.to_bytes(2, "big") + b"why")], code=1002)
    for reason in ("why", "warum nicht: ä€𝄞", "x" * 123):
        frames = [raw(CLOSE, b"\x03\xe8" + reason.encode())]
        yield Case(f"Close with a reason of {len(reason)} characters", frames, code=1000, closed=True)
    for reason_bytes in (b"\xff", b"ok \xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"):
        frames = [raw(CLOSE, b"\x03\xe8" + reason_bytes)]
        yield Case(f"Close with a reason that is no UTF-8, {reason_bytes.hex()}", frames, code=1007)
    for form in (16, 64):
        yield Case(f"Close, length in {form} bits", [raw(CLOSE, b"\x03\xe8", form=form)], code=1000, closed=True)
    after = [raw(BINARY, b"b"), raw(PING, b"c"), raw(CLOSE, b"\x03\xe9"), b"\xff" * 20]
    yield Case("nothing after a Close", [raw(BINARY, b"a"), raw(CLOSE, b"\x03\xe8"), *after], [b"a"], 1000, True)
    yield Case("nothing after a violation", [raw(BINARY, b"a"), raw(3), *after], [b"a"], 1002)
    frames = [raw(PING, b"p"), raw(CLOSE, b"\x03\xe8")]
    yield Case("a pong goes before the Close", frames, code=1000, closed=True, pongs=[b"p"])


CASES: Final = [
    *lengths(),
    *masks(),
    *opcodes(),
    *fragments(),
    *texts(),
    *controls(),
    *closings(),
    Case("nothing", []),
    Case("one byte", [b"\x82"]),
]


def named(case: Case) -> str:
    return case.name


def server_frame(opcode: int, data: bytes) -> bytes:
    return raw(opcode, data, key=None)


def check(case: Case, events: list[Event]) -> None:
    """Hold what happened to what the case says."""
    assert [event.data for event in events if event.kind == "message"] == case.messages
    pongs = [Event("sent", server_frame(PONG, data)) for data in case.pongs]
    sent = [event for event in events if event.kind == "sent"]
    ending = [event.kind for event in events if event.kind in ("eof", "closed", "violation")]
    if case.code is None:
        assert sent == pongs
        assert ending == []
        return
    assert sent[:-1] == pongs
    close = sent[-1].data
    assert close[0] == 0x88
    assert close[1] == len(close) - 2 <= 125
    assert close[2:4] == (b"" if case.code == 1005 else case.code.to_bytes(2, "big"))
    assert ending == ["eof", "closed" if case.closed else "violation"]
    if case.closed:
        echoed = next(frame for frame in case.frames if frame[0] == 0x88)
        assert len(close) == 2 + len(echoed) - {0xFE: 8, 0xFF: 14}.get(echoed[1], 6)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_the_reference_agrees_with_the_table(case: Case) -> None:
    check(case, theirs(case.stream, case.limit).events)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_at_once_and_frame_by_frame(case: Case) -> None:
    expected = theirs(case.stream, case.limit)
    outcome = ours(pieces(case.stream, []), case.limit)
    check(case, outcome.events)
    assert outcome == expected
    assert ours(case.frames, case.limit) == expected


def near_heads(frames: list[bytes], within: int = 16) -> list[int]:
    """Positions in the first bytes of each frame, and around its end."""
    positions = set()
    start = 0
    for frame in frames:
        positions |= {start + more for more in range(-1, within)}
        start += len(frame)
    return sorted(position for position in positions | {start - 1} if 0 < position < start)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_cut_in_two(case: Case) -> None:
    expected = theirs(case.stream, case.limit)
    for cut in near_heads(case.frames):
        assert ours(pieces(case.stream, [cut]), case.limit) == expected, f"cut at {cut}"


@pytest.mark.parametrize("case", [case for case in CASES if len(case.stream) <= 2000], ids=named)
def test_byte_by_byte_and_in_steps(case: Case) -> None:
    expected = theirs(case.stream, case.limit)
    for size in (1, 2, 3, 5):
        assert ours(steps(case.stream, size), case.limit) == expected, f"in steps of {size}"


@pytest.mark.parametrize("case", [case for case in CASES if len(case.stream) <= 40], ids=named)
def test_cut_in_three(case: Case) -> None:
    expected = theirs(case.stream, case.limit)
    for cuts in combinations(range(1, len(case.stream)), 2):
        assert ours(pieces(case.stream, cuts), case.limit) == expected, f"cut at {cuts}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_without_the_compiled_mask(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.websocket, "apply_mask", websockets.utils.apply_mask)
    assert ours(pieces(case.stream, []), case.limit) == theirs(case.stream, case.limit)
    assert ours(pieces(case.stream, near_heads(case.frames, 3)), case.limit) == theirs(case.stream, case.limit)
