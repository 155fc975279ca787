"""Profiles with something in them, and what commands print."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from keys.files import ClientKeys
from keys.identity import Identity
from keys.invite import RelayCard
from keys.passphrase import Cost
from peers.profile import Profile
from peers.store import contacts, messages, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest

CHEAP: Final = Cost(opslimit=1, memlimit=8192)
PASSPHRASE: Final = "correct horse battery staple"


def environment(directory: Path, passphrase: str | None = PASSPHRASE) -> dict[str, str]:
    """The environment of somebody whose profiles lie in `directory`, with a passphrase in a file."""
    directory.mkdir(exist_ok=True)
    variables = {"BLINDRELAY_HOME": str(directory)}
    if passphrase is not None:
        path = directory / "passphrase"
        path.write_text(passphrase + "\n")
        variables["BLINDRELAY_PASSPHRASE_FILE"] = str(path)
    return variables


def card(url: str = "wss://relay.example/ws") -> RelayCard:
    return RelayCard(Identity.generate().public, url)


def make_profile(
    environ: Mapping[str, str], name: str = "default", nickname: str = "Alice", relay: RelayCard | None = None
) -> Profile:
    return Profile.create(name, ClientKeys(Identity.generate(), nickname), relay or card(), environ=environ)


def in_store(profile: Profile, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run one function of the store in a transaction."""

    async def run() -> Any:
        async with open_store(profile.store_path) as store:
            return await store.write(function, *arguments, **named)

    return asyncio.run(run())


def said(profile: Profile) -> list[tuple[str, str, bool]]:
    """All that was said: to or from whom, what, and whether it is ours."""

    def read(db: Any) -> list[tuple[str, str, bool]]:
        return [
            (contact.label, row.text, row.outgoing)
            for contact in contacts.everyone(db)
            for row in messages.history(db, contact.id)
        ]

    found: list[tuple[str, str, bool]] = in_store(profile, read)
    return found


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The JSON objects on stdout and on stderr since the last look."""
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines()], [json.loads(line) for line in err.splitlines()]
