"""Accounts of the telefon web app: identity, nickname and contacts of a profile, to its file and from it."""

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time_ns
from typing import BinaryIO, Final

from keys import passphrase as pw
from keys.errors import BadInvite
from keys.files import ClientKeys
from keys.invite import TYPE_MARK, Invite, RelayCard
from peers import telefon
from peers.chat.exits import Exit
from peers.chat.output import Output
from peers.chat.report import Failure, counted
from peers.new_file import new_file
from peers.profile import Profile, ProfileError, ask_passphrase
from peers.store import contacts, open_store
from peers.store.contacts import ContactRow
from peers.store.errors import BadLabel, KeysDiffer
from peers.telefon import Account, AccountContact, AccountError

_NOT_IN_AN_ACCOUNT: Final = "messages, files, settings, and which contacts were verified"


def export_account(profile: Profile, path: Path, environ: Mapping[str, str], out: Output, *, plain: bool) -> None:
    """Write the account of a profile.

    Raises:
        ProfileError, DatabaseError, AccountError: the profile cannot be read, or does not fit an account.
        Failure: the file cannot be written.
    """
    keys = profile.read_keys(lambda: ask_passphrase(f"Passphrase of the profile {profile.name}: ", environ))
    rows = asyncio.run(_everyone(profile)) if profile.store_path.exists() else []
    left_out = [row.label for row in rows if row.blocked]  # there they could write again
    unverified = [row.label for row in rows if row.origin == "introduction" and not row.verified and not row.blocked]
    account = Account(keys.nickname, keys.identity, tuple(_contact(row) for row in rows if not row.blocked))
    passphrase = None if plain else ask_passphrase("Passphrase for the account: ", environ, confirm=True)
    written = telefon.write(account, passphrase)
    with writing(path) as file:
        file.write(written)
    if plain:
        out.warn(f"{path} holds the secret keys in clear: whoever reads it can pose as you. Remove it after use")
    lines = [f"The account of the profile {profile.name} is in {path}: {counted(len(account.contacts), 'contact')}."]
    lines.append(f"Not in it: {_NOT_IN_AN_ACCOUNT}.")
    if left_out:
        lines.append(f"Left out, for they are blocked: {', '.join(left_out)}.")
    if unverified:
        lines.append(f"Known by introduction alone, which the file cannot say: {', '.join(unverified)}.")
    out.show(
        {
            "exported": str(path),
            "profile": profile.name,
            "contacts": len(account.contacts),
            "sealed": not plain,
            "left_out": left_out,
            "unverified": unverified,
        },
        "\n".join(lines),
    )


def import_account(
    profile: Profile,
    path: Path,
    environ: Mapping[str, str],
    out: Output,
    *,
    relay: str | None,
    contacts_only: bool,
    seal: bool,
    cost: pw.Cost,
) -> None:
    """Make a profile of an account, or add its contacts to one that exists.

    Raises:
        ProfileError, DatabaseError, AccountError: the profile cannot be made or changed, or the file not be read.
        Failure: what is asked for makes no sense.
    """
    if contacts_only and (relay is not None or seal):
        raise Failure("a relay and a seal are for a new profile: with contacts alone the present ones stay")
    if contacts_only:
        profile.settings()  # says why there is none, if so
    card = None if contacts_only else _card(relay)
    outcome = _Outcome()
    account = _read(path, environ, outcome)
    if not contacts_only:
        _make_profile(profile, account, card, environ, seal=seal, cost=cost)
    asyncio.run(_add(profile, account, outcome))
    made = "" if contacts_only else f"The profile {profile.name} has the keys of the account. "
    lines = [f"{made}New contacts: {outcome.added}; known before: {outcome.kept}.", *outcome.lines()]
    if not contacts_only:
        lines.append("The web app has the same identity: close it before you connect, or the two push each other out.")
    out.show(
        {
            "imported": profile.name,
            "new_profile": not contacts_only,
            "added": outcome.added,
            "kept": outcome.kept,
            "skipped": [{"contact": what, "reason": why} for what, why in outcome.skipped],
            "relabelled": [{"from": was, "to": now} for was, now in outcome.relabelled],
            "types_lost": outcome.types_lost,
        },
        "\n".join(lines),
    )


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for what is exported (see :func:`peers.new_file.new_file`).

    Raises:
        Failure: it exists, or cannot be written.
    """
    try:
        with new_file(path) as file:
            yield file
    except FileExistsError:
        raise Failure(f"{path} exists and is not overwritten: name another file") from None
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror or error}; nothing was left behind") from None


@dataclass(slots=True)
class _Outcome:
    """What became of the contacts of an account."""

    added: int = 0
    kept: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    relabelled: list[tuple[str, str]] = field(default_factory=list)
    types_lost: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        lines = [f"Skipped {what}: {why}." for what, why in self.skipped]
        lines += [f"{was} is called {now} here, for the label was taken or unfit." for was, now in self.relabelled]
        if self.types_lost:
            lines.append(f"The kind of contact that the web app shows has no place here: {', '.join(self.types_lost)}.")
        return lines


def _card(relay: str | None) -> RelayCard:
    if relay is None:
        raise Failure("an account of telefon names no relay: give its card with --relay R0…, or use --contacts-only")
    try:
        return RelayCard.parse(relay)
    except BadInvite as error:
        raise Failure(f"--relay: {error}") from None


def _read(path: Path, environ: Mapping[str, str], outcome: _Outcome) -> Account:
    try:
        with path.open("rb") as file:
            raw = file.read(telefon.SIZE_MAX + 1)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", Exit.NOT_FOUND) from None

    def bad(error: AccountError) -> None:
        outcome.skipped.append(("a contact that cannot be read", str(error)))

    return telefon.read(raw, lambda: ask_passphrase("Passphrase of the account: ", environ), bad)


def _make_profile(
    profile: Profile,
    account: Account,
    card: RelayCard | None,
    environ: Mapping[str, str],
    *,
    seal: bool,
    cost: pw.Cost,
) -> None:
    if account.identity is None or card is None:
        raise Failure("the file has contacts and no keys: add them to a profile with --contacts-only")
    passphrase = None
    if seal:
        passphrase = ask_passphrase(f"Passphrase for the profile {profile.name}: ", environ, confirm=True)
    keys = ClientKeys(account.identity, account.nickname)
    Profile.create(profile.name, keys, card, passphrase, environ=environ, cost=cost)


async def _everyone(profile: Profile) -> list[ContactRow]:
    async with open_store(profile.store_path) as store:
        return await store.read(contacts.everyone)


async def _add(profile: Profile, account: Account, outcome: _Outcome) -> None:
    own = _own_keys(profile, account)
    async with open_store(profile.store_path) as store:
        await store.write(_add_all, time_ns() // 1_000_000, account, own, outcome)


def _own_keys(profile: Profile, account: Account) -> set[bytes]:
    """The public keys of whoever has the account and the profile, as far as nobody has to be asked for a passphrase: a
    carrier passes over a contact with our keys in any case."""
    identities = [] if account.identity is None else [account.identity]
    with suppress(ProfileError):  # sealed
        identities.append(profile.read_keys().identity)
    return {key for each in identities for key in (each.public.x_pub, each.public.ed_pub)}


def _add_all(db: sqlite3.Connection, now: int, account: Account, own: set[bytes], outcome: _Outcome) -> None:
    """All of them or, if something is wrong with the store, none."""
    known = {row.public for row in contacts.everyone(db)}
    for contact in account.contacts:
        public, nickname = contact.invite.public, contact.invite.nickname
        name = contacts.shown_label(contact.label) or contacts.shown_label(nickname) or public.id.hex()
        if public.x_pub in own or public.ed_pub in own:
            outcome.skipped.append((name, "these are your own keys"))
            continue
        if public in known:
            contacts.add(db, now, public, nickname=nickname, origin="import")
            outcome.kept += 1
            continue
        try:
            row = _add_one(db, now, contact)
        except KeysDiffer as error:
            outcome.skipped.append((name, str(error)))
            continue
        known.add(public)
        outcome.added += 1
        if contact.label.strip() and row.label != name:
            outcome.relabelled.append((name, row.label))
        if contact.type and not nickname.endswith(TYPE_MARK + contact.type):
            outcome.types_lost.append(row.label)


def _add_one(db: sqlite3.Connection, now: int, contact: AccountContact) -> ContactRow:
    public, nickname = contact.invite.public, contact.invite.nickname
    label = contact.label if contact.label.strip() else None
    try:
        return contacts.add(db, now, public, nickname=nickname, label=label, origin="import")
    except BadLabel:
        # Taken, too long or not to be seen: they get a label like it, and that is told.
        label = contacts.free_label(db, contact.label, public)
        return contacts.add(db, now, public, nickname=nickname, label=label, origin="import")


def _contact(row: ContactRow) -> AccountContact:
    _, mark, kind = row.nickname.rpartition(TYPE_MARK)
    return AccountContact(Invite(row.public, row.nickname), row.label, kind if mark and kind else None)
