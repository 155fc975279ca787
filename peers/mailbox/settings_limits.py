"""The limits of a mailbox as an operator sets them: flat, in bytes and seconds. `rules.Limits` has the reasons."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from peers.mailbox.price import PriceList
from peers.mailbox.quotas import Rate
from peers.mailbox.rules import Limits
from peers.service.errors import BadValues

_DEFAULT: Final = Limits()

Count = Annotated[int, Field(ge=1, le=2**53)]
Free = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
LongSeconds = Annotated[int, Field(ge=1, le=10 * 366 * 86400)]


@dataclass(frozen=True, slots=True, config=ConfigDict(use_attribute_docstrings=True))
class LimitSettings:
    """What is held and for how long, what one may cause, what a deposit costs, and what is under way at once."""

    ttl: LongSeconds = _DEFAULT.ttl // 1000
    """Seconds for which a deposit is held whose depositor does not say."""
    ttl_max: LongSeconds = _DEFAULT.ttl_max // 1000
    """Seconds for which one is held at most."""
    item_bytes: Count = _DEFAULT.item_bytes
    """Most bytes of one deposit, 1024 to 262144."""
    recipient_items: Count = _DEFAULT.recipient_items
    """Most items held for one recipient."""
    recipient_bytes: Count = _DEFAULT.recipient_bytes
    """Most bytes held for one recipient."""
    total_items: Count = _DEFAULT.total_items
    """Most items held in all."""
    total_bytes: Count = _DEFAULT.total_bytes
    """Most bytes held in all. The file is larger by a tenth, and by what it was at its largest."""
    disk_reserve: Free = _DEFAULT.disk_reserve
    """Bytes of the disk that stay free: deposits are refused before."""
    markers: Free = _DEFAULT.markers
    """Recipients of whom it is written down that something was refused, at most."""
    marker_days: LongSeconds = _DEFAULT.marker_days
    """Days after which that is erased if they never ask."""
    lease: Seconds = _DEFAULT.lease
    """Seconds for which what was handed out is not handed out again."""
    leased: Count = _DEFAULT.leased
    """Most items handed out to one recipient at a time."""
    fetch_items: Count = _DEFAULT.fetch_items
    """Most items in one answer."""
    app_patience: Seconds = _DEFAULT.app_patience
    """Seconds in which the web app's next request acknowledges what it was handed."""
    app_grace: LongSeconds = _DEFAULT.app_grace // 1000
    """Seconds for which what it acknowledged in that way can be restored."""
    depositor_items: Free = _DEFAULT.depositor.items
    """Deposits of one session in an hour; 0 for no bound."""
    depositor_bytes: Free = _DEFAULT.depositor.size
    """Their bytes in an hour."""
    address_items: Free = _DEFAULT.address.items
    """Deposits of one address over HTTP in an hour; 0 for no bound."""
    address_bytes: Free = _DEFAULT.address.size
    """Their bytes in an hour."""
    asking: Free = _DEFAULT.asking.items
    """Challenges that one address may ask for in a minute; 0 for no bound."""
    callers: Count = _DEFAULT.callers
    """Sessions and addresses that are counted at a time."""
    challenge: Seconds = _DEFAULT.challenge
    """Seconds in which a challenge can be answered."""
    remembered: Count = _DEFAULT.remembered
    """Tickets and stamps that are known as used, at a time."""
    price_base: Annotated[int, Field(ge=0, le=30)] = _DEFAULT.prices.base
    """Bits of a stamp that a deposit costs when nothing is going on; 0 asks for none."""
    price_most: Annotated[int, Field(ge=0, le=30)] = _DEFAULT.prices.most
    """Bits that are never exceeded; 0 for no stamps at all."""
    price_busy: Count = _DEFAULT.prices.busy
    """Deposits in a minute from which on the price rises."""
    in_progress: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Requests under way at once, by each way in. Beyond it the relay is not read, and HTTP is refused."""
    in_progress_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 64 << 20
    """Their bytes, by each way in."""
    session_in_progress: Annotated[int, Field(ge=1, le=65536)] = 128
    """Requests of one session at the relay under way at once; more are refused as too fast."""
    known: Annotated[int, Field(ge=16, le=10_000_000)] = 20_000
    """Clients at the relay whose keys are kept, about 1 KiB each; of more, those not heard for longest go."""
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 2048
    """HTTP connections at once."""
    address_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Of one address that is no trusted proxy."""
    request: Seconds = 30.0
    """Seconds in which an HTTP request has to arrive, and as long again for its answer to be taken."""
    idle: Seconds = 15.0
    """Seconds for which an HTTP connection is kept between requests."""
    stop: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 5.0
    """Seconds after SIGTERM for what is under way."""

    def __post_init__(self) -> None:
        self.rules()  # says what contradicts what

    def rules(self) -> Limits:
        """Return the limits as the core takes them.

        Raises:
            BadValues: they contradict each other; the text says how.
        """
        try:
            prices = PriceList(self.price_base, self.price_most, self.price_busy)
        except BadValues as error:
            raise BadValues(error.reason, *(f"price_{key}" for key in error.keys)) from None
        return Limits(
            ttl=self.ttl * 1000,
            ttl_max=self.ttl_max * 1000,
            item_bytes=self.item_bytes,
            recipient_items=self.recipient_items,
            recipient_bytes=self.recipient_bytes,
            total_items=self.total_items,
            total_bytes=self.total_bytes,
            disk_reserve=self.disk_reserve,
            markers=self.markers,
            marker_days=self.marker_days,
            lease=self.lease,
            leased=self.leased,
            fetch_items=self.fetch_items,
            app_patience=self.app_patience,
            app_grace=self.app_grace * 1000,
            depositor=Rate(self.depositor_items, self.depositor_bytes, _DEFAULT.depositor.period),
            address=Rate(self.address_items, self.address_bytes, _DEFAULT.address.period),
            asking=Rate(self.asking, _DEFAULT.asking.size, _DEFAULT.asking.period),
            callers=self.callers,
            challenge=self.challenge,
            remembered=self.remembered,
            prices=prices,
        )
