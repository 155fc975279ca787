"""A mailbox's client (docs/mailbox.md): leaves deposits for others and picks up one's own, by a relay or over HTTP.

errors      what goes wrong, as a caller has to tell it apart
client      the operations, whatever way they take: Depositor, Collector
minting     stamps, beside the event loop
by_http     the way to a mailbox with an address of its own
by_packets  the way to one that is a peer of a relay, over a connection that somebody else has
by_relay    the same over a connection of its own
web         HTTP exchanges with bounds
places      where an address leads that somebody else has chosen
"""

from peers.dropping.client import Collector, Depositor, Way
from peers.dropping.errors import MailboxError, MailboxRefused, NotAMailbox, TooDear, Unreachable
from peers.dropping.options import DroppingOptions

__all__ = [
    "Collector",
    "Depositor",
    "DroppingOptions",
    "MailboxError",
    "MailboxRefused",
    "NotAMailbox",
    "TooDear",
    "Unreachable",
    "Way",
]
