"""What each of several processes may have of the limits that are meant for the whole relay."""

from dataclasses import replace
from typing import TYPE_CHECKING

from relay.limits import Limits, default_connections

if TYPE_CHECKING:
    from relay.settings import Settings


def share(settings: "Settings", workers: int) -> "Settings":
    """Return the settings of one process out of `workers`.

    Memory is one for all of them, and so are the operator's own service and a number of connections that was set.
    Open files are each process's own, so that number is left alone where it is what they allow. What bounds one client
    or one address is not divided: a client is in one process, and addresses the cluster counts together.
    """
    return settings.model_copy(update={"limits": _share(settings.limits, workers)})


def _share(limits: Limits, workers: int) -> Limits:
    def part(total: int) -> int:
        return -(-total // workers)

    connections = limits.connections
    return replace(
        limits,
        connections=connections if connections == default_connections() else part(connections),
        queue_total=max(part(limits.queue_total), limits.queue_size),
        partial_total=part(limits.partial_total),
        subscriptions_total=part(limits.subscriptions_total),
        callout_parallel=part(limits.callout_parallel),
        callout_waiting=part(limits.callout_waiting),
    )
