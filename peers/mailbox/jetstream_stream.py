"""The stream of a mailbox: made as it must be, and refused if it is kept in another way."""

import asyncio
import json
import urllib.request
from typing import Any, Final
from urllib.error import URLError

from peers.mailbox.jetstream_link import ApiError, Link
from peers.mailbox.jetstream_rows import SEAL_SIZE, record_size
from peers.mailbox.jetstream_settings import JetStreamSettings
from peers.mailbox.rules import Limits
from peers.mailbox.store import StoreError

_HEADERS: Final = 4096
"""Bytes of a message that headers may take, and more than they do."""
_MISSING: Final = {"compression": "none", "persist_mode": "default", "no_ack": False, "deny_delete": False}
"""What NATS means where it names none."""


async def prepare(link: Link, limits: Limits) -> None:
    """Make the stream if it is missing, and check it.

    Raises:
        StoreError: it is kept in another way, the servers are too old, or do not sync what they confirm.
    """
    settings = link.settings
    await _check_sync(settings)
    _check_sizes(link, limits)
    wanted = configuration(settings)
    found = await link.info()
    if found is None:
        try:
            found = await link.api(f"STREAM.CREATE.{settings.stream}", wanted)
        except ApiError as error:
            raise StoreError(f"cannot make the stream {settings.stream}: {error}") from error
    has = found["config"]
    wrong = [
        f"{name} is {_shown(has.get(name))} and must be {_shown(value)}"
        for name, value in wanted.items()
        if has.get(name, _MISSING.get(name)) != value
    ]
    wrong += [
        f"{name} must not be set"
        for name in ("mirror", "sources", "republish", "subject_transform", "sealed")
        if has.get(name)
    ]
    if wrong:
        raise StoreError(
            f"the stream {settings.stream} is not kept as a mailbox needs it: {'; '.join(wrong)}."
            " Change it (nats stream edit), or name another stream"
        )


def configuration(settings: JetStreamSettings) -> dict[str, Any]:
    """Return what the stream is made with, in the words of JetStream's interface."""
    return {
        "name": settings.stream,
        "subjects": [f"{settings.prefix}.>"],
        # Nothing goes because something new comes; a record alone takes the place of the one before.
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_bytes": settings.max_bytes or -1,
        "storage": "file",
        "num_replicas": settings.replicas,
        # Commits, and the safety net of what a mailbox never erased.
        "allow_atomic": True,
        "allow_msg_ttl": True,
        "allow_direct": True,
        "deny_delete": False,
        "no_ack": False,
        # Else PubAck would be said before the file is written.
        "persist_mode": "default",
        # Contents are noise.
        "compression": "none",
    }


def _shown(value: object) -> str:
    return "unset" if value is None else json.dumps(value)


def _check_sizes(link: Link, limits: Limits) -> None:
    needed = max(limits.item_bytes + SEAL_SIZE, record_size(limits.recipient_items)) + _HEADERS
    if needed > link.max_payload:
        raise StoreError(
            f"NATS takes messages of {link.max_payload} bytes, and these limits need {needed}: raise max_payload of"
            " the servers, or lower item_bytes or recipient_items"
        )


async def _check_sync(settings: JetStreamSettings) -> None:
    if not settings.require_sync:
        return
    if len(settings.monitoring_urls) < settings.replicas:
        raise StoreError(
            "it is not known whether NATS syncs what it confirms: set `sync_interval: always` in the jetstream block"
            f" of the servers, and name the monitoring URLs of {settings.replicas} (or turn require_sync off)"
        )
    for url, config in zip(
        settings.monitoring_urls,
        await asyncio.gather(*(asyncio.to_thread(_jsz, url, settings.timeout) for url in settings.monitoring_urls)),
        strict=True,
    ):
        if config.get("sync_always") is not True:
            raise StoreError(
                f"the NATS server at {url} confirms what a power cut takes away: set `sync_interval: always` in its"
                " jetstream block (or turn require_sync off)"
            )


def _jsz(url: str, timeout: float) -> dict[str, Any]:
    # The schemes were checked with the settings.
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/jsz", timeout=timeout) as answer:  # noqa: S310
            found = json.loads(answer.read(1 << 20)).get("config", {})
    except (URLError, OSError, ValueError, AttributeError) as error:
        raise StoreError(f"NATS' monitoring at {url} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
