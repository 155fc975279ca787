"""Where a bridge keeps what must survive it: in the profile that it is given, or in a directory of its own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keys.private_file import make_directories
from peers.carrier import CarrierOptions
from peers.chat.bridge import environment
from peers.chat.bridge.environment import Surroundings
from peers.chat.session import Session
from peers.profile import Profile, ProfileError, ProfileLock, ProfileSettings, data_home
from peers.store import Connection, contacts, open_store
from peers.store.contacts import ContactRow
from peers.store.errors import Blocked, NoSuchContact

_UNSENT: Final = "bridge-unsent.txt"
_LOCK: Final = "bridge.lock"


@dataclass(frozen=True, slots=True)
class Place:
    """An opened profile, and what the bridge does with it.

    Attributes:
        session: the profile.
        given: what the environment says, if the identity came from there. Then nobody but the bridge uses the profile.
    """

    session: Session
    given: Surroundings | None

    @property
    def unsent(self) -> Path:
        """The file for lines that cannot be sent."""
        return self.session.profile.directory / _UNSENT

    def lock(self) -> ProfileLock:
        """The lock of the bridge: of two that read one profile, each would print some of the messages."""
        return ProfileLock(self.session.profile.directory / _LOCK)

    @property
    def carrier_options(self) -> CarrierOptions | None:
        """How to carry; None for as the profile says. A bridge of the environment has no use for files."""
        return None if self.given is None else CarrierOptions(auto_accept=0)


def open_place(environ: Mapping[str, str], profile: str | None) -> Place:
    """Open what the environment names, or else a profile; blocks, and may ask for a passphrase.

    Raises:
        ProfileError, DatabaseError: it cannot be used.
    """
    if not environment.is_given(environ):
        return Place(Session.open(profile, environ), None)
    if profile is not None:
        raise ProfileError("the environment (WSCHAT_…) names one identity and --profile another: remove one of them")
    given = environment.read(environ)
    if any(peer.public.id == given.keys.identity.id for peer in given.peers):
        raise ProfileError(f"{environment.PEERS} holds our own invite: name the peers")
    name = given.keys.identity.id.hex()
    own = Profile(name, data_home(environ) / "bridge" / name)
    try:
        make_directories(own.files_path)
    except OSError as error:
        raise ProfileError(f"cannot make {own.directory}: {error.strerror}") from None
    own.check_closed()
    return Place(Session(own, ProfileSettings(given.relay), given.keys, open_store(own.store_path)), given)


async def peers_of(place: Place, names: tuple[str, ...]) -> list[ContactRow]:
    """Return the contacts that the bridge talks with, each once.

    Raises:
        StoreError: one of them is not there, cannot be added, or is blocked.
    """
    session = place.session
    if place.given is not None:
        return await session.store.write(_added, session.now(), place.given)
    return await session.store.read(_named, names)


def keep(path: Path, raw: bytes) -> None:
    """Add a line that cannot be sent to the file for such lines; blocks.

    Raises:
        OSError: it cannot be written.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        rest = memoryview(raw)
        while rest:
            rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)


def _added(db: Connection, now: int, given: Surroundings) -> list[ContactRow]:
    rows = [contacts.add(db, now, peer.public, nickname=peer.nickname) for peer in given.peers]
    for row in rows:
        if row.blocked:  # somebody who introduced themselves before they were named
            contacts.set_blocked(db, now, row.id, blocked=False)
    return [contacts.get(db, row.id) for row in rows]


def _named(db: Connection, names: tuple[str, ...]) -> list[ContactRow]:
    if names:
        found = {row.id: row for row in (contacts.find(db, name) for name in names)}
        if any(row.blocked for row in found.values()):
            raise Blocked("a peer that was named is blocked: unblock them first")
        return list(found.values())
    # Not those who introduced themselves: whoever knows our id can, and a program would talk with them.
    rows = [row for row in contacts.everyone(db) if row.trust != "unverified" and not row.blocked]
    if not rows:
        raise NoSuchContact("there is nobody to talk with: add a contact, or name one by --peer")
    return rows
