"""What carries a store's messages to the relay and back. One process of a profile does it at a time."""

from peers.carrier.carrier import Carrier
from peers.carrier.keeper import Keeper
from peers.carrier.options import CarrierOptions, MailOptions

__all__ = ["Carrier", "CarrierOptions", "Keeper", "MailOptions"]
