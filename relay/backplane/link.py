"""A stream of records from one node to another: in order, each once, bounded at the sender. Pure: `now` is passed in.

The bus below may lose messages. A *stream* lives as long as both nodes think each other alive, and its records are
counted. It goes over one *link* after another: a link has fresh keys and counts its messages, so a lost one shows as a
gap. Then both sides say hello, each tells how many records it has, and on the next link the rest is sent again.

    hello        the newest and the oldest version of this that we speak; drawn by us, drawn by you (as far as known),
                 our stream, your stream (as far as known), what we have of it. A nonce serves for one link: whoever
                 hears its own newest nonce come back knows that the other is there now, and the link is up. A repeated
                 hello therefore brings at most an answer. What a later version adds stands behind, and is ignored by
                 who does not know it; so are kinds of records.
    data         records acknowledged, in the first message of a link the number of its first record, and bytes of
                 records.

A node that was not heard for `GONE_AFTER` is gone, and what it did not acknowledge is dropped: frames are answered 0x03
to their senders. They may have arrived, as those may have under which a socket dies (PROTOCOL.md §8.7). Should that
node come back it learns from the hello that its stream is forgotten, and begins anew.

At most `WINDOW` bytes are on their way unacknowledged, so neither NATS nor the other node's buffers hold more of ours.
What comes beyond that waits here, frames up to a bound that their senders are told of.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from keys.errors import OpenError
from relay.backplane.outgoing import FRAME, RECORD, WINDOW, Outgoing
from relay.backplane.owner import Owner
from relay.backplane.seals import HELLO, LINK_NONCE, LinkKeys, link_of
from wire.limits import MAX_FRAME

CHUNK: Final = 256 * 1024
"""Bytes of records in one message, where NATS takes that much."""
ACK_AT: Final = 512 * 1024
"""Bytes received after which they are acknowledged at once; less is told with the next message, or at the next beat."""
GONE_AFTER: Final = 5.0
"""Seconds after which a node that was not heard is gone."""
PING_AFTER: Final = 0.9
"""Seconds without a message to a node after which it gets an empty one."""
HELLO_AGAIN: Final = 0.4
"""Seconds after which a hello that brought no link is said again."""
VERSIONS: Final = (1, 1)
"""The newest and the oldest version of what goes between nodes that this one speaks. The first goes up by one with what
an older node would misread (what it may ignore needs no number), the second when an older one is spoken no more."""

_MAX_RECORD: Final = MAX_FRAME + 4096
_STREAM: Final = 8
_HELLO: Final = Struct(f">BB{LINK_NONCE}s{LINK_NONCE}s{_STREAM}s{_STREAM}sQB16s")
_UNKNOWN: Final = bytes(LINK_NONCE)
_NO_STREAM: Final = bytes(_STREAM)
_EMPTY: Final = 1
_ACK: Final = 8


class Peer(Outgoing):
    """Another node, as this one sees it.

    Args:
        owner: this node.
        number: the other's.
        now: seconds on a clock that only goes forward.
        bound: bytes of frames that may wait for it, those on their way included.
    """

    def __init__(self, owner: Owner, number: bytes, now: float, bound: int) -> None:
        super().__init__(bound)
        self._owner = owner
        self.number = number
        self.subject = owner.seals.node_subject(number)
        self.known = False
        """Whether there was a link at any time."""
        self.heard = now
        self._said = float("-inf")
        self._hello_at = float("-inf")
        self._offer = owner.random(LINK_NONCE)
        # The stream to them.
        self._stream = owner.random(_STREAM)
        # The stream from them.
        self._their_stream = _NO_STREAM
        self._have = 0
        self._told = 0
        self._unacknowledged = 0
        # The link.
        self._keys: LinkKeys | None = None
        self._closed = False
        self._sequence_out = 0
        self._sequence_in = 0
        self._start = 0
        self._skip = 0
        self._rest = b""

    # --- Sending -----------------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether there is a link."""
        return self._keys is not None and not self._closed

    @property
    def flows(self) -> bool:
        """Whether there is a link, and room for what is to be sent again."""
        return self.up and self.waiting <= self.bound // 2

    def wanted(self) -> None:
        """Let it be flushed at the end of the turn."""
        self._owner.dirty(self)

    def flush(self, now: float) -> None:
        """Send what may be sent; at least what is to be acknowledged."""
        if self._keys is None or self._closed:
            return
        owner, chunk = self._owner, self._owner.chunk
        sent = False
        while self._origins and self._sent_bytes < WINDOW:
            before = self._sent_count
            parts = self.take(chunk)
            owner.records_out += self._sent_count - before
            if self._sent[-1].cost <= chunk or sum(map(len, parts)) <= chunk:
                self._message(parts, now)
            else:
                data = b"".join(parts)
                for start in range(0, len(data), chunk):
                    self._message([data[start : start + chunk]], now)
            sent = True
        if not sent and self._told != self._acknowledgeable():
            self._message([], now)

    def _acknowledgeable(self) -> int:
        # Who does not take what its frames cause (refusals, bounces) is to send no more of them. Not both may ask that
        # of each other: neither would ever send again. To the one that never does `MOST_NEWS` (`node`) is the bound.
        if self._waiting_bytes <= self.bound or self._owner.seals.number < self.number:
            return self._have
        return self._told

    def _message(self, parts: list[bytes], now: float) -> None:
        keys = self._keys
        if keys is None:
            raise AssertionError("nothing is sent without a link")
        self._sequence_out += 1
        self._told = self._acknowledgeable()
        head = self._told.to_bytes(_ACK, "big")
        if self._sequence_out == 1:
            head += self._start.to_bytes(_ACK, "big")
        owner = self._owner
        plain = b"".join((head, *parts))
        data = owner.seals.seal_data(keys, self._sequence_out, plain, self.number, self.subject)
        # What cannot leave now shows as a gap later, and comes again with the next link.
        if owner.send(self.subject, *data):
            self._said = now

    def beat(self, now: float) -> None:
        """Do what is due: give a sign of life, or try again to get a link."""
        if self.up:
            if now - self._said >= PING_AFTER:
                self._message([], now)
        elif now - self._hello_at >= HELLO_AGAIN:
            self.hello(now)

    # --- Receiving ---------------------------------------------------------------------------------------------------

    def received(self, data: bytes, now: float) -> None:
        """Take data that came for us from this node, or says so."""
        owner, keys = self._owner, self._keys
        link, sequence = link_of(data)
        if keys is None or self._closed or link != keys.id:
            owner.count("old_link")
            if now - self._hello_at >= HELLO_AGAIN:
                self.hello(now)
            return
        if sequence <= self._sequence_in:
            owner.count("old_sequence")
            return
        try:
            plain = owner.seals.open_data(keys, data)
        except OpenError:
            owner.count("not_sealed")
            return
        self.heard = now
        if sequence != self._sequence_in + 1:
            owner.count("gap")
            self.suspect(now)
            return
        self._sequence_in = sequence
        start = _ACK if sequence > 1 else 2 * _ACK
        if len(plain) < start or not self.acknowledge(int.from_bytes(plain[:_ACK], "big")):
            self._malformed(now)
            return
        if sequence == 1:
            first = int.from_bytes(plain[_ACK:start], "big")
            if first > self._have:
                self._malformed(now)
                return
            self._skip = self._have - first
        if len(plain) > start:
            self._parse(self._rest + plain[start:] if self._rest else plain, 0 if self._rest else start, now)
            self._unacknowledged += len(plain)
            if self._unacknowledged >= ACK_AT:
                self._unacknowledged = 0
                owner.dirty(self)
            else:
                owner.owes(self)

    def _parse(self, data: bytes, position: int, now: float) -> None:
        owner, keys = self._owner, self._keys
        end = len(data)
        self._rest = b""
        try:
            while end - position >= RECORD.size:
                kind, size = RECORD.unpack_from(data, position)
                start = position + RECORD.size
                if size > _MAX_RECORD:
                    self._malformed(now)
                    return
                if start + size > end:
                    break
                position = start + size
                if kind == FRAME and not self._skip:
                    # Many of them stand one after another, and each is to cost little.
                    position, count = owner.frames(self, data, position - size - RECORD.size)
                    self._have += count
                    owner.records_in += count
                    continue
                if self._skip:
                    # It came by the link before, whose acknowledgement did not arrive.
                    self._skip -= 1
                    continue
                self._have += 1
                owner.records_in += 1
                owner.record(self, kind, data[start:position])
                if not self.alive or self._keys is not keys:
                    return
        finally:
            # Also after an error in one record: the others are somebody's too.
            if self._keys is keys:
                self._rest = data[position:]

    def _malformed(self, now: float) -> None:
        self._owner.count("malformed")
        self.suspect(now)

    def suspect(self, now: float) -> None:
        """Take nothing more from this link: something is missing, or we were away for so long that it may be old."""
        if self._keys is not None and not self._closed:
            self._closed = True
            self.hello(now)

    # --- Hello -------------------------------------------------------------------------------------------------------

    def hello(self, now: float, theirs: bytes = _UNKNOWN, mine: bytes | None = None) -> None:
        """Ask for a link, or answer who asks."""
        owner = self._owner
        self._hello_at = now
        # Said here, and so the least that the first message of the next link may say.
        self._told = self._have
        body = _HELLO.pack(
            *owner.versions,
            self._offer if mine is None else mine,
            theirs,
            self._stream,
            self._their_stream,
            self._have,
            _EMPTY if owner.is_empty() else 0,
            owner.digest,
        )
        owner.send(self.subject, owner.seals.seal_call(HELLO, body, self.subject, self.number))

    def greeted(self, body: bytes, now: float) -> None:
        """Take a hello."""
        owner = self._owner
        if len(body) < _HELLO.size:
            owner.count("malformed")
            return
        newest, oldest, theirs, echo, stream, ours_known, have, flags, digest = _HELLO.unpack_from(body)
        if newest < owner.versions[1] or oldest > owner.versions[0]:
            # First of all: nothing else in it need mean what it means here.
            owner.misfit(self, newest, oldest)
            return
        if digest != owner.digest:
            owner.stranger(self)
            return
        keys = self._keys
        if keys is not None and theirs == keys.theirs and echo == keys.mine:
            return  # the last word of those that made this link
        if echo != self._offer:
            # With a link that works only who has none is answered: an answer to a repeated hello ends here.
            if not self.up or echo == _UNKNOWN:
                self.hello(now, theirs)
            return
        mine, self._offer = self._offer, owner.random(LINK_NONCE)
        self._establish(owner.seals.link(mine, self.number, theirs), now)
        fresh = self._resume(stream, ours_known, have)
        self._start = self._base
        self.hello(now, theirs, mine)
        silent, self.heard = now - self.heard, now
        first, self.known = not self.known, True
        owner.established(
            self, fresh=fresh or first, empty=bool(flags & _EMPTY), silent=float("inf") if first else silent
        )
        # The first message tells where our stream goes on.
        self._message([], now)
        self.flush(now)

    def _establish(self, keys: LinkKeys, now: float) -> None:
        self._keys = keys
        self._closed = False
        self._sequence_out = self._sequence_in = 0
        self._skip = 0
        self._rest = b""
        self._said = now

    def _resume(self, stream: bytes, ours_known: bytes, have: int) -> bool:
        """Go on where the other says that we were; tell whether it begins anew."""
        fresh = stream != self._their_stream
        if fresh:
            self._their_stream = stream
            self._have = self._told = 0
        if ours_known == self._stream and self.acknowledge(have):
            self.again()
        else:
            self._report(self.lose_sent())
        return fresh

    def _report(self, lost: Iterator[tuple[bytes, object]]) -> None:
        for record, origin in lost:
            self._owner.dropped(record, origin)

    def gone(self) -> None:
        """Give the node up; what it did not acknowledge is dropped."""
        self._keys = None
        self._report(self.lose_all())
