"""Completion of contacts in a shell.

What a shell completes it may also run: Typer's script for zsh evaluates what is printed here, and bash puts a word with
a space or a semicolon into the line as it is. Labels come from nicknames, and those from strangers. So a label that is
not made of letters, digits and a few harmless marks is never printed; its id stands in for it.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final

import typer

from peers.profile import Profile, ProfileError

_HARMLESS: Final = re.compile(r"\w[\w.@+-]*")
_NOT_HARMLESS: Final = re.compile(r"[^\w.@+-]+")
_BUSY: Final = 0.5
"""Seconds for which somebody who pressed Tab can be kept waiting."""


def complete_contact(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the words for contacts that begin with `incomplete`, each with what is said beside it."""
    name = ctx.params.get("profile") or ctx.find_root().params.get("profile")
    with suppress(ProfileError, sqlite3.Error, OSError):
        return [(word, note) for word, note in _words(Profile.locate(name)) if word.startswith(incomplete)]
    return []


def _words(profile: Profile) -> Iterator[tuple[str, str]]:
    # Read-only and by itself: to complete a word must neither make a store nor upgrade one.
    path = profile.store_path.absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(path, uri=True, timeout=_BUSY)) as db:
        for label, peer_id in db.execute("SELECT label, peer_id FROM contacts ORDER BY label_key").fetchall():
            if _HARMLESS.fullmatch(label):
                yield label, ""
            else:
                yield peer_id.hex(), _NOT_HARMLESS.sub("_", label)
