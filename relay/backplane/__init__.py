"""Many relays that are one to their clients: what goes between them, over NATS. Loaded only where a cluster is wanted.

- `options`: what a relay has to know to join.
- `seals`: every message is sealed; ids appear to NATS as keyed hashes.
- `link`: a reliable, ordered, bounded stream of records between two nodes, over messages that may be lost; `outgoing`:
  its queue.
- `records`: what those streams carry.
- `router`: where an id is, and frames that wait until that is known.
- `parcels`: what happens to them where they arrive, and to those that do not.
- `pressure`: senders that wait until another node took what waits for it.
- `recovery`: whom to tell that it is time to send again.
- `claims`: who may have an id. `holdings`: who has it, and that only one does.
- `presence`: who is online. `shares`: limits. `nonces`: replay memory.
- `node`: this relay as one of many, which puts these together; `dispatch`: who takes a record; `flushing`: when what
  waits leaves; `barriers`: word that what was sent to an id was taken; `joining`: how it becomes one; `outsiders`: who
  cannot.
- `bus`, `nats_bus`, `nats_client`, `nats_wire`: what lies below; `permissions`: whether it lets us; `lookup`: questions
  over it.
"""

from typing import TYPE_CHECKING

from relay.backplane.options import ClusterError, ClusterOptions

if TYPE_CHECKING:
    from relay.backplane.node import Backplane
    from relay.core import Core

__all__ = ["ClusterError", "ClusterOptions", "join"]


async def join(core: "Core", options: ClusterOptions) -> "Backplane":
    """Make a relay one of a cluster; before it listens, so that nobody is let in whom another node knows.

    Raises:
        ClusterError: it cannot be; the text tells an operator what to do.
    """
    # Only here: a relay that is alone needs neither NATS' client nor what is built on it.
    from relay.backplane.joining import find_others
    from relay.backplane.nats_bus import NatsBus
    from relay.backplane.node import Backplane
    from relay.backplane.permissions import check, try_all

    bus = NatsBus(options)
    await bus.connect()
    try:
        await try_all(bus, options.prefix)
    except ClusterError:
        await bus.close()
        raise
    backplane = Backplane(core, options, bus)
    await find_others(backplane)
    try:
        check(bus.forbidden, options.prefix)
    except ClusterError:
        await backplane.close()
        raise
    return backplane
