"""SIGHUP: the settings are read again, and what can change while the relay runs is changed. Nobody is dropped.

Flags and environment are those of the start; relay.toml and the files of secrets are read anew. If anything is wrong
with them nothing changes. The relay's keys are never read again: they are its identity.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Final, Literal, NamedTuple

import structlog

from relay.limits import Limits
from relay.log import configure, where
from relay.settings import NAMES, BadSettings, Settings

Apply = Callable[[Settings], str | None]
"""Takes new settings; may tell in a few words what it read, without a client or a secret in them."""

APPLIES: Final[dict[str, Literal["at once", "next"]]] = {
    "log_level": "at once",
    **dict.fromkeys(("token", "token_file", "decommission"), "at once"),
    **dict.fromkeys(("name", "operator", "contact", "notice", "docs_url", "drain"), "at once"),
    **dict.fromkeys(("push_kinds", "push_vapid_key"), "at once"),
    **dict.fromkeys((f"limits.{field.name}" for field in fields(Limits)), "at once"),
    "trusted_proxies": "next",
    # Whoever is asked for, waits in line, or is watched already stays so.
    "limits.claim_wait": "next",
    "limits.claim_queue": "next",
    "limits.subscriptions": "next",
    "limits.connections_per_address": "next",
}
"""What SIGHUP does with each setting, by its key; what is not here needs a restart."""

CONTENT: Final[dict[str, Literal["at once", "next"]]] = {
    "allow_file": "at once",
    "deny_file": "at once",
    "tls_cert": "next",
    "tls_key": "next",
}
"""What SIGHUP does with what stands in a file whose path needs a restart, by the key that names it."""


class KeepOld(Exception):
    """What was read anew cannot be used, so the old goes on. The text is logged: it names no client and no secret."""


def refused(problems: list[str], places: list[str]) -> None:
    """Log that nothing was changed, and why."""
    structlog.get_logger().error("reload_refused", problems=problems, where=places)


def _kept_old(part: str, error: Exception) -> None:
    if isinstance(error, KeepOld):
        reason, places = str(error), list[str]()
    elif isinstance(error, OSError) and error.strerror:
        reason, places = f"{error.filename or 'a file'}: {error.strerror}", []
    else:
        # Its own text may hold what stands in a list of clients.
        reason, places = type(error).__name__, where(error)
    structlog.get_logger().error("reload_kept_old", part=part, reason=reason, where=places)


class _Part(NamedTuple):
    name: str
    apply: Apply


class Reload:
    """What SIGHUP does.

    Args:
        settings: those of the start.
        read: reads them again, from the same sources.
    """

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        self._settings = settings
        self._started_with = settings
        self._read = read
        self._parts: list[_Part] = []
        self.register("log_level", lambda new: configure(new.log_level))

    def register(self, name: str, apply: Apply) -> None:
        """Let `apply` be called with the new settings at each SIGHUP, whether they changed or not: its files may have.

        It runs in the event loop, in the order of registering, and either takes the new state whole or raises and goes
        on with the old one: :class:`KeepOld` with the reason, or OSError. What one part refuses keeps no other back.

        Args:
            name: what it is, for the log.
            apply: takes the settings.
        """
        self._parts.append(_Part(name, apply))

    def __call__(self) -> bool:
        """Read and apply; tell whether all of it is in force. Raises nothing: whatever goes wrong is logged."""
        try:
            new = self._read()
        except BadSettings as error:
            refused(list(error.problems), [])
            return False
        except Exception as error:  # noqa: BLE001 - a relay that runs must not end because a file was edited
            refused([type(error).__name__], where(error))
            return False
        kept, read = [], []
        for part in self._parts:
            try:
                told = part.apply(new)
                if told:
                    read.append(told)
            except Exception as error:  # noqa: BLE001 - as above
                kept.append(part.name)
                _kept_old(part.name, error)
        changed = [leaf.key for leaf in NAMES.leaves.values() if leaf.value_of(new) != leaf.value_of(self._settings)]
        # Against the start: what was said at one SIGHUP is still true at the next.
        restart = [
            leaf.key
            for leaf in NAMES.leaves.values()
            if leaf.key not in APPLIES and leaf.value_of(new) != leaf.value_of(self._started_with)
        ]
        self._settings = new
        log = structlog.get_logger()
        if restart:
            log.warning("needs_restart", settings=restart)
        log.info("reloaded", changed=[key for key in changed if key in APPLIES], read=read, kept_old=kept)
        return not kept
