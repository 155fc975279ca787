"""Streams of frames, drawn at random: mostly right, so that they are read on, with every kind of wrong one between."""

from dataclasses import dataclass
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.differential.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, payload, raw

PATIENT: Final = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
"""No judgement by the clock: a loaded machine never makes a test fail."""

SMALL: Final = (400, 127, 126, 125, 10, 1, 0)
LARGE: Final = (70_000, 65_536, 65_535)

keys: Final = st.binary(min_size=4, max_size=4)
salts: Final = st.integers(0, 1000)
forms: Final = st.sampled_from((7, 16, 64))
seldom: Final = st.sampled_from((*(False,) * 11, True))


@dataclass(frozen=True)
class Stream:
    """What a client sends, and where it is cut."""

    limit: int
    frames: list[bytes]
    cuts: list[int]

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self.frames)


def sizes(limit: int) -> st.SearchStrategy[int]:
    """Payload sizes: small ones, and those around every border that there is up to the limit, and one beyond it."""
    borders = {border + more for border in (0, 125, 126, 65_535, 65_536, limit) for more in (-1, 0, 1)}
    return st.integers(0, min(limit + 1, 16)) | st.sampled_from(
        sorted(size for size in borders if 0 <= size <= limit + 1)
    )


def right_sizes(limit: int) -> st.SearchStrategy[int]:
    return sizes(limit).map(lambda size: min(size, limit))


@st.composite
def right(draw: st.DrawFn, limit: int) -> list[bytes]:
    """One whole message that keeps to the rules and the limit, of either kind."""
    data = payload(draw(right_sizes(limit)), draw(salts))
    return [raw(draw(st.sampled_from((BINARY, BINARY, TEXT))), data, key=draw(keys), form=draw(forms))]


@st.composite
def control(draw: st.DrawFn, limit: int) -> list[bytes]:
    """A ping or a pong."""
    data = payload(draw(right_sizes(min(limit, 125))), draw(salts))
    return [raw(draw(st.sampled_from((PING, PONG))), data, key=draw(keys), form=draw(forms))]


@st.composite
def fragmented(draw: st.DrawFn, limit: int) -> list[bytes]:
    """A message in fragments with control frames between them; now and then beyond the limit, or with no end."""
    frames = []
    opcode = draw(st.sampled_from((BINARY, BINARY, TEXT)))
    left = limit
    for _ in range(draw(st.integers(1, 4))):
        size = draw(sizes(left) if draw(seldom) else right_sizes(left))
        frames.append(raw(opcode, payload(size, draw(salts)), fin=False, key=draw(keys), form=draw(forms)))
        if draw(st.integers(0, 2)) == 0:
            frames += draw(control(max(0, left - size)))
        opcode, left = CONT, max(0, left - size)
    if not draw(seldom):
        size = draw(sizes(left))
        frames.append(raw(CONT, payload(size, draw(salts)), key=draw(keys), form=draw(forms)))
    return frames


@st.composite
def wrong(draw: st.DrawFn, limit: int) -> list[bytes]:
    """Any frame at all: every opcode, fin and reserved bit, masked or not; seldom with a length that is not its own."""
    data = payload(draw(sizes(max(limit, 126))), draw(salts))
    claims = st.sampled_from((limit + 1, 1 << 16, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1))
    return [
        raw(
            draw(st.integers(0, 15)),
            data,
            fin=draw(st.booleans()),
            rsv=draw(st.sampled_from((0, 0, 0, 1, 2, 4, 7))),
            key=None if draw(seldom) else draw(keys),
            form=draw(forms),
            claim=draw(claims) if draw(seldom) else None,
        )
    ]


codes: Final = st.sampled_from(
    (0, 999, *range(1000, 1017), 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65_535)
).map(lambda code: code.to_bytes(2, "big"))
reasons: Final = st.one_of(
    st.text(max_size=20).map(str.encode), st.binary(max_size=20), st.sampled_from((121, 122, 123, 124)).map(bytes)
)
closing: Final = st.builds(
    lambda data, key, form: [raw(CLOSE, data, key=key, form=form)],
    st.one_of(st.just(b""), st.binary(min_size=1, max_size=1), st.builds(bytes.__add__, codes, reasons)),
    keys,
    forms,
)
"""Close frames, right and wrong."""


@st.composite
def streams(draw: st.DrawFn, limits: tuple[int, ...]) -> Stream:
    """Frames, and cuts of which many are in or near their heads."""
    limit = draw(st.sampled_from(limits))
    often = st.one_of(right(limit), control(limit), fragmented(limit))
    rarely = st.one_of(wrong(limit), closing)
    units = draw(st.lists(often, min_size=1, max_size=4)) + draw(st.lists(rarely, max_size=1))
    if draw(st.booleans()):
        units += draw(st.lists(often | rarely, max_size=4))
    frames = [frame for unit in units for frame in unit]
    return Stream(limit, frames, draw(cuts(frames)))


def cuts(frames: list[bytes]) -> st.SearchStrategy[list[int]]:
    """Positions at which to cut these frames."""
    starts = [0]
    for frame in frames:
        starts.append(starts[-1] + len(frame))
    near = st.builds(int.__add__, st.sampled_from(starts), st.integers(-3, 15))
    return st.lists(near | st.integers(0, starts[-1]), max_size=12)


@st.composite
def damaged(draw: st.DrawFn) -> Stream:
    """A stream in which a few bytes were changed, lost or put in."""
    stream = draw(streams(SMALL))
    data = bytearray(stream.data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        change = draw(st.integers(0, 3))
        if change == 0:
            data[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif change == 1:
            del data[at : at + draw(st.integers(1, 16))]
        elif at < len(data):
            data[at] = data[at] ^ 1 << draw(st.integers(0, 7)) if change == 2 else draw(st.integers(0, 255))
    return Stream(stream.limit, [bytes(data)], stream.cuts)


telling: Final = st.sampled_from((0x00, 0x01, 0x02, 0x7E, 0x80, 0x81, 0x82, 0x83, 0x88, 0x89, 0x8A, 0xFE, 0xFF))
noise: Final = st.builds(
    lambda limit, data, cut: Stream(limit, [data], cut),
    st.sampled_from(SMALL),
    st.binary(max_size=300) | st.lists(telling | st.integers(0, 255), max_size=300).map(bytes),
    st.lists(st.integers(0, 300), max_size=12),
)
"""Bytes that nobody meant to be frames, some of them made of what heads are made of."""
