"""The notifier's limits, each with the reason for its default. Times are in seconds."""

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from peers.notifier import registry

Seconds = Annotated[float, Field(gt=0, le=7 * 86400, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, config=ConfigDict(use_attribute_docstrings=True))
class Limits:
    """Limits of pushes, of what waits for them, and of the registry."""

    message_window: Seconds = 30.0
    """From one message push to the next for the same device. A wake in between has its push at the end."""
    covered_for: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 10.0
    """After a message push that was taken: wakes within it need none of their own, for the device is just coming and
    gets all that waits. With the same value as message_window no wake within the window has a push of its own."""
    calls_per_minute: Annotated[int, Field(ge=1, le=600)] = 10
    """Call pushes for one device: every call rings, and nobody makes a phone ring without end."""
    message_ttl: Annotated[int, Field(ge=0, le=28 * 86400)] = 86400
    """How long a push service is to keep a message push for a device that is off: a day, then its owner looks."""
    call_ttl: Annotated[int, Field(ge=1, le=600)] = 30
    """The same for a call, and how long we try: longer than that nobody lets it ring."""
    retry_for: Seconds = 600.0
    """How long a message push is tried when a push service fails. In memory only: a restart forgets it, and the sender
    of the message wakes again."""
    attempt: Seconds = 30.0
    """The longest that one attempt may take, whatever the channel itself allows."""
    concurrency: Annotated[int, Field(ge=4, le=4096)] = 128
    """Pushes under way at once, shared out evenly among the channels: a dead one takes nothing of the others."""
    queue: Annotated[int, Field(ge=16, le=10_000_000)] = 20_000
    """Pushes that wait, of each channel, some 20 MB in all. Beyond it the oldest message gives way, and never a call
    while there is a message."""
    server_rate: Annotated[float, Field(ge=0.1, le=10_000, allow_inf_nan=False)] = 50.0
    """Pushes a second to one push server of Web Push or UnifiedPush that took some before, and ten seconds' worth at
    once: strangers choose it, and must not make us their weapon. Servers of allow_host have no such limit."""
    new_server_rate: Annotated[float, Field(ge=0.1, le=600, allow_inf_nan=False)] = 6.0
    """Pushes a minute to a server that never took one, beyond the first five."""
    devices: Annotated[int, Field(ge=1, le=100)] = registry.DEVICES
    """Tokens of one id; of more the one goes that was not registered again for longest."""
    registrations: Annotated[int, Field(ge=1)] = registry.REGISTRATIONS
    """Tokens in all, some 250 MB on disk: ids cost nothing, so that strangers could fill it."""
    forget_after_days: Annotated[int, Field(ge=1, le=3650)] = registry.PRUNE_DAYS
    """Days after which a token is forgotten that its client did not register again."""
    stop: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 5.0
    """After SIGTERM: for what is under way."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.covered_for > self.message_window:
            raise ValueError("covered_for is at most message_window")
        return self
