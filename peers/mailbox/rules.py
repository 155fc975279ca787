"""What a mailbox takes: limits, access, and whether there is room. Pure.

Time in milliseconds unless a name says otherwise; bytes are those of the items themselves.
"""

from dataclasses import dataclass, field
from typing import Final

from keys.deposit import SIZE_CLASSES
from keys.errors import BadKey
from keys.identity import ID_SIZE, SERVER_ID
from keys.primitives import check_x25519_public, constant_time_equal, derive_key
from peers.mailbox.price import PriceList
from peers.mailbox.quotas import Rate
from peers.service.errors import BadValues
from wire.mailbox_codes import ITEM_MAX, Access, ItemKind, Reason

HOUR: Final = 60 * 60 * 1000
DAY: Final = 24 * HOUR
_MIB: Final = 1 << 20
_DEPOSITOR: Final = Rate(items=600, size=64 * _MIB, period=3600.0)
_ADDRESS: Final = Rate(items=3000, size=256 * _MIB, period=3600.0)
_ASKING: Final = Rate(items=1200, size=1, period=60.0)
_TOKEN_CONTEXT: Final = "blindrelay mailbox token 1"  # noqa: S105 - a name of a purpose


class Refused(Exception):
    """A request that is not served, as its sender may be told.

    Attributes:
        reason: which is also the label of its metric.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"refused: {reason.name}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of a mailbox, each with the reason for its default.

    Raises:
        BadValues: they contradict each other; the text says how.
    """

    ttl: int = 14 * DAY
    """Held so long without being told: a holiday."""
    ttl_max: int = 30 * DAY
    """Held at most so long. Past that, whoever sent it should hear that it was not delivered."""
    item_bytes: int = ITEM_MAX
    """Most bytes of one item (256 KiB): three fit the frame of a LEASE."""
    recipient_items: int = 1000
    """Most items for one recipient: two weeks of a talkative friend."""
    recipient_bytes: int = 32 * _MIB
    """Most bytes for one recipient: so much is fetched in a minute over a bad line."""
    total_items: int = 2_000_000
    total_bytes: int = 4096 * _MIB
    """Most items and bytes in all. The file is larger by a tenth, and by what it was at its largest."""
    disk_reserve: int = 64 * _MIB
    """Bytes of the disk that deposits leave free: deleting takes room too, and a disk that is quite full could not be
    emptied any more."""
    markers: int = 100_000
    """Recipients of whom it is written down that something was refused, at most: without a bound, a flood for made-up
    recipients would fill the disk when it is full already."""
    marker_days: int = 30
    """Days after which such a note is erased, if its recipient never asks."""
    lease: float = 60.0
    """Seconds for which what was handed out is not handed out again: a LEASE over a bad line, and its writing down."""
    leased: int = 256
    """Most items handed out to one recipient at a time; whoever acknowledges none of them gets no more."""
    fetch_items: int = 64
    """Most items in one LEASE."""
    app_patience: float = 8.0
    """Seconds in which the web app's next FETCH_NEXT acknowledges a DELIVERY: it waits so long for an answer."""
    app_grace: int = DAY
    """For so long what it acknowledged in that way can be restored: the app may have been closed in between."""
    depositor: Rate = _DEPOSITOR
    """What one session may deposit in an hour: a conversation by one who never sleeps, or a photograph each minute."""
    address: Rate = _ADDRESS
    """The same of one address, behind which there may be a family or an office."""
    asking: Rate = _ASKING
    """Challenges that one address may ask for in a minute; each costs two multiplications, as a handshake does."""
    callers: int = 100_000
    """Depositors and addresses that are remembered at a time."""
    challenge: float = 60.0
    """Seconds in which a challenge can be answered."""
    remembered: int = 100_000
    """Tickets and stamps of which it is remembered that they were used, at a time."""
    prices: PriceList = field(default_factory=PriceList)

    def __post_init__(self) -> None:
        if not 0 < self.ttl <= self.ttl_max:
            raise BadValues("the usual ttl is above 0 and not above the longest", "ttl", "ttl_max")
        if not SIZE_CLASSES[0] <= self.item_bytes <= ITEM_MAX:
            raise BadValues(f"an item may have {SIZE_CLASSES[0]} to {ITEM_MAX} bytes", "item_bytes")
        if self.item_bytes > self.recipient_bytes or self.recipient_bytes > self.total_bytes:
            raise BadValues(
                "an item must fit a recipient's share, and that the whole",
                "item_bytes",
                "recipient_bytes",
                "total_bytes",
            )
        if not 0 < self.recipient_items <= self.total_items:
            raise BadValues(
                "a recipient's share in items is above 0 and not above the whole", "recipient_items", "total_items"
            )
        if not (0 < self.fetch_items <= self.leased and self.lease > 0 and self.app_patience < self.lease):
            raise BadValues(
                "a LEASE holds an item at least, for longer than the app waits for its next",
                *("fetch_items", "leased", "lease", "app_patience"),
            )


@dataclass(frozen=True, slots=True)
class AccessRule:
    """For whom, and by whom, deposits are taken. What is picked up needs the recipient's key in any case.

    Attributes:
        recipients: X25519 keys of those that are served; None serves everybody.
        tokens: digests (:func:`token_digest`) of the tokens of which a depositor has to show one; none: no token.
    """

    recipients: frozenset[bytes] | None = None
    tokens: tuple[bytes, ...] = ()

    @property
    def kind(self) -> Access:
        """What ABOUT tells. Of a list and tokens together it tells the tokens: those are what a depositor can show."""
        if self.tokens:
            return Access.TOKEN
        return Access.OPEN if self.recipients is None else Access.RECIPIENTS

    def check(self, recipient: bytes, token: bytes) -> None:
        """Check that a deposit is for somebody and by somebody whom the mailbox serves.

        Raises:
            Refused: TOKEN or NOT_SERVED; the list is not told to those without a token.
        """
        if self.tokens:
            digest = token_digest(token)
            # All of them, so that the time taken does not tell which one it was.
            if not sum(constant_time_equal(digest, ours) for ours in self.tokens):
                raise Refused(Reason.TOKEN)
        if self.recipients is not None and recipient not in self.recipients:
            raise Refused(Reason.NOT_SERVED)


def token_digest(token: bytes) -> bytes:
    """Return what a mailbox keeps of a token (32 bytes), so that its settings name no secret.

    A digest hides only what cannot be guessed: tokens are to be made at random, 16 bytes or more.
    """
    return derive_key(_TOKEN_CONTEXT, token)


@dataclass(frozen=True, slots=True)
class Usage:
    """What is held: of one recipient, and in all."""

    items: int
    size: int
    total_items: int
    total_size: int

    def has_room(self, size: int, limits: Limits) -> bool:
        """Tell whether one more item of `size` bytes stays within every bound."""
        return (
            self.items < limits.recipient_items
            and self.size + size <= limits.recipient_bytes
            and self.total_items < limits.total_items
            and self.total_size + size <= limits.total_bytes
        )


def fullness(total_items: int, total_size: int, limits: Limits) -> float:
    """Return the fuller one of the two shares (0 to 1 and a little more) of what may be held in all."""
    return max(total_items / limits.total_items, total_size / limits.total_bytes)


def check_recipient(x_pub: bytes) -> None:
    """Check that a key can be a recipient's.

    Raises:
        Refused: BAD_DEPOSIT.
    """
    try:
        check_x25519_public(x_pub)
    except BadKey:
        raise Refused(Reason.BAD_DEPOSIT) from None
    if x_pub[:ID_SIZE] == SERVER_ID:
        raise Refused(Reason.BAD_DEPOSIT)


def check_size(kind: ItemKind, size: int, limits: Limits) -> None:
    """Check the size of an item.

    Raises:
        Refused: TOO_BIG, or BAD_DEPOSIT for a deposit of no size class: were it taken, its length would tell what the
            classes hide.
    """
    if size > limits.item_bytes:
        raise Refused(Reason.TOO_BIG)
    if kind is ItemKind.DEPOSIT and size not in SIZE_CLASSES:
        raise Refused(Reason.BAD_DEPOSIT)


def expiry(now: int, ttl: int, limits: Limits) -> int:
    """Return when an item ends whose depositor asks for `ttl` (0: the usual one), in milliseconds since 1970.

    Rounded up to the full hour: with the exact time, whoever reads the database later would know to the second when
    each item came, for most ask for the usual ttl.
    """
    ends = now + min(ttl or limits.ttl, limits.ttl_max)
    return -(-ends // HOUR) * HOUR
