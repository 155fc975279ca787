"""``export`` and ``import``: a profile to a file and back, and accounts of the telefon web app both ways."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import time_ns

from keys import passphrase as pw
from keys.errors import KeyFileError, KeysError
from keys.private_file import make_directories, read_private, sync_directory
from peers.chat.accounts import export_account, import_account, writing
from peers.chat.backup import IDENTITY, SETTINGS, STORE, TOKEN, BackupWriter, BadBackup, Note, restore, stored_files
from peers.chat.exits import Exit
from peers.chat.output import Output
from peers.chat.report import Failure, counted, failed, rfc3339
from peers.database import DatabaseError, copy_database
from peers.profile import NoSuchProfile, Profile, ProfileError, ProfileSettings, ask_passphrase
from peers.profile.settings import write_settings
from peers.sealed_archive import ArchiveError, OpeningReader, SealingWriter
from peers.store.errors import StoreError
from peers.store.examined import Examined, examine
from peers.store.restored import Restored, settle
from peers.telefon import AccountError

ONE_CONNECTION = (
    "One identity has one connection: let the old profile rest from now on. Used in two places, the two push each other"
    ' out of the relay ("id in use"), and what one of them receives the other never gets.'
)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What ``export`` is asked for.

    Attributes:
        path: the file to write; nothing may have that name.
        profile: the name of the profile; None for the one of the environment, or ``default``.
        telefon: write an account for the telefon web app instead of a backup.
        plain: with `telefon`: not sealed under a passphrase.
        json: print objects instead of lines.
        environ: the environment.
        cost: what a guess at the passphrase of a backup shall cost.
    """

    path: Path
    profile: str | None = None
    telefon: bool = False
    plain: bool = False
    json: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    cost: pw.Cost = pw.DEFAULT_COST


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What ``import`` is asked for.

    Attributes:
        path: the file to read.
        profile: the name of the profile to make (with `contacts_only`: to add to); None as for export.
        telefon: the file is an account of the telefon web app.
        relay: with `telefon`, for a new profile: the relay card, since such an account names no relay.
        contacts_only: with `telefon`: add the contacts to a profile that exists, and leave its keys as they are.
        seal: with `telefon`, for a new profile: seal the keys under a passphrase.
        json: print objects instead of lines.
        environ: the environment.
        cost: what a guess at the passphrase of the keys shall cost.
    """

    path: Path
    profile: str | None = None
    telefon: bool = False
    relay: str | None = None
    contacts_only: bool = False
    seal: bool = False
    json: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    cost: pw.Cost = pw.DEFAULT_COST


def export(options: ExportOptions) -> int:
    """Write a backup of a profile, or its account for the telefon web app. Blocks; returns the exit status.

    A backup may be made while other programs use the profile. The file has mode 0600 and is there only once it is
    whole; what exists is not overwritten.
    """
    return _guarded(options.json, lambda out: _export(options, out))


def import_(options: ImportOptions) -> int:
    """Make a profile of a backup or of an account of the telefon web app. Blocks; returns the exit status.

    A profile that exists is never changed, except by `contacts_only`, which adds to it.
    """
    return _guarded(options.json, lambda out: _import(options, out))


def _guarded(json: bool, work: Callable[[Output], None]) -> int:
    try:
        work(Output(json=json))
    except Failure as error:
        return failed(str(error), error.exit_status, json=json)
    except NoSuchProfile as error:
        return failed(str(error), Exit.NOT_FOUND, json=json)
    except (
        ProfileError,
        ArchiveError,
        BadBackup,
        AccountError,
        StoreError,
        DatabaseError,
        KeyFileError,
        KeysError,
    ) as error:
        return failed(str(error), Exit.USAGE, json=json)
    except KeyboardInterrupt:
        return failed("interrupted: nothing was left behind", Exit.INTERRUPTED, json=json)
    return Exit.DONE


# --- Out --------------------------------------------------------------------------------------------------------------


def _export(options: ExportOptions, out: Output) -> None:
    profile = Profile.locate(options.profile, options.environ)
    settings = profile.settings()
    if os.path.lexists(options.path):  # before a person is asked for anything
        raise Failure(f"{options.path} exists and is not overwritten: name another file")
    if options.plain and not options.telefon:
        raise Failure("only an account for telefon (--telefon) can be plain: a backup is always sealed")
    if options.telefon:
        export_account(profile, options.path, options.environ, out, plain=options.plain)
    else:
        _export_backup(profile, settings, options, out)


def _export_backup(profile: Profile, settings: ProfileSettings, options: ExportOptions, out: Output) -> None:
    passphrase = ask_passphrase("Passphrase for the backup: ", options.environ, confirm=True)
    with writing(options.path) as file:
        with SealingWriter(file, passphrase, options.cost) as archive:
            backup = BackupWriter(archive)
            examined, files = _write_members(profile, settings, backup, out)
            backup.finish()
        size = file.tell()
    out.show(
        {
            "exported": str(options.path),
            "profile": profile.name,
            "contacts": examined.contacts,
            "messages": examined.messages,
            "files": files,
            "bytes": size,
        },
        f"The profile {profile.name} is in {options.path}: {_counts(examined.contacts, examined.messages, files)}, "
        f"{size} bytes, sealed under the passphrase. There is no way to it without that.",
    )


def _write_members(
    profile: Profile, settings: ProfileSettings, backup: BackupWriter, out: Output
) -> tuple[Examined, int]:
    backup.add("backup.json", Note(datetime.now(UTC), _program(), profile.name).encode())
    backup.add(IDENTITY, read_private(profile.identity_path))
    token = _token(profile, settings, out)
    with _scratch(profile) as scratch:
        settings_path = scratch / SETTINGS
        write_settings(settings_path, replace(settings, token_file=None if token is None else Path(TOKEN)))
        backup.add(SETTINGS, settings_path.read_bytes())
        if token is not None:
            backup.add(TOKEN, f"{token}\n".encode())
        examined = Examined(0, 0, 0)
        if profile.store_path.exists():
            copy = scratch / STORE
            copy_database(profile.store_path, copy)
            # A damaged store in a backup would be found when it is needed most.
            examined = examine(copy)
            with copy.open("rb") as opened:
                copy.unlink()  # what is in it is in clear: should we be killed now, it is gone
                backup.add_file(STORE, opened)
    # After the store: what it knows of as whole is there by now, and what came since is not missed by it.
    files = 0
    for name, file in stored_files(profile.files_path):
        backup.add_file(f"files/{name}", file)
        files += 1
    return examined, files


def _token(profile: Profile, settings: ProfileSettings, out: Output) -> str | None:
    if settings.token_file is None:
        return None
    try:
        return profile.read_token()
    except ProfileError as error:
        out.warn(f"the backup has no admission token of the relay: {error}")
        return None


@contextmanager
def _scratch(profile: Profile) -> Iterator[Path]:
    """A directory within the profile, closed to others as that is, which goes away with all that is in it."""
    path = profile.directory / f".export.{secrets.token_hex(8)}.tmp"
    path.mkdir(0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path)


# --- In ---------------------------------------------------------------------------------------------------------------


def _import(options: ImportOptions, out: Output) -> None:
    profile = Profile.locate(options.profile, options.environ)
    if not options.telefon and (options.relay or options.contacts_only or options.seal):
        raise Failure("a relay, contacts alone and a seal are for accounts of telefon (--telefon); a backup has it all")
    if not options.contacts_only:
        _refuse_existing(profile)
    if not options.path.is_file():
        raise Failure(f"there is no file {options.path}", Exit.NOT_FOUND)
    if options.telefon:
        import_account(
            profile,
            options.path,
            options.environ,
            out,
            relay=options.relay,
            contacts_only=options.contacts_only,
            seal=options.seal,
            cost=options.cost,
        )
    else:
        _import_backup(profile, options, out)


def _refuse_existing(profile: Profile) -> None:
    if profile.exists:
        raise Failure(f"the profile {profile.name} exists and is not changed: name another with --profile")
    directory = profile.directory
    if os.path.lexists(directory) and not (directory.is_dir() and next(directory.iterdir(), None) is None):
        raise Failure(f"{directory} exists and is no whole profile: look at it, and move it away")


def _import_backup(profile: Profile, options: ImportOptions, out: Output) -> None:
    parent = profile.directory.parent
    temporary = parent / f".{profile.name}.{secrets.token_hex(8)}.tmp"  # begins with a dot, so it is no profile
    try:
        make_directories(parent)
        size, free = options.path.stat().st_size, shutil.disk_usage(parent).free
        if size > free:
            raise Failure(f"there is no room for the profile in {parent}: it takes {size} bytes, and {free} are free")
        passphrase = ask_passphrase("Passphrase of the backup: ", options.environ)
        try:
            temporary.mkdir(0o700)
            temporary.chmod(0o700)
            with options.path.open("rb") as file, OpeningReader(file, passphrase) as archive:
                note = restore(archive, temporary)
            sealed, restored = _make_whole(Profile(profile.name, temporary))
            sync_directory(temporary / "files")
            sync_directory(temporary)
            files = sum(1 for _ in (temporary / "files").iterdir())
            temporary.rename(profile.directory)  # onto nothing, or an empty directory: anything else is an error
            sync_directory(parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise Failure(f"cannot make the profile in {profile.directory}: {error.strerror or error}") from None
    _tell(profile, note, restored, files, sealed=sealed, out=out)


def _make_whole(profile: Profile) -> tuple[bool, Restored]:
    """Check what was restored as the parts that use it would, before it becomes a profile. Returns whether its keys are
    sealed, and what its store holds."""
    try:
        settings = profile.settings()
    except NoSuchProfile:
        raise BadBackup(f"{IDENTITY} in the backup is empty") from None
    token_there = (profile.directory / TOKEN).exists()
    # A backup that could name any file as the token would have its first line sent to the relay that it names.
    if settings.token_file is not None and settings.token_file != Path(TOKEN):
        raise BadBackup("the settings in the backup name a file outside of it: it was not made by blindrelay")
    if token_there != (settings.token_file is not None):
        raise BadBackup("the admission token in the backup and its settings do not agree")
    profile.read_token()
    try:
        profile.read_keys(_no_passphrase)
        sealed = False
    except _Sealed:
        sealed = True
    path = profile.store_path
    return sealed, settle(path, time_ns() // 1_000_000) if path.exists() else Restored(0, 0, 0)


class _Sealed(Exception):
    """The keys are sealed, and it is not our task to open them."""


def _no_passphrase() -> str:
    raise _Sealed


def _tell(profile: Profile, note: Note, restored: Restored, files: int, *, sealed: bool, out: Output) -> None:
    day = note.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"The profile {profile.name} is as it was on {day}: {_counts(restored.contacts, restored.messages, files)}."
    ]
    if sealed:
        lines.append("Its keys are sealed under the passphrase that they had then, not under that of the backup.")
    if restored.unsent_files:
        unsent = counted(restored.unsent_files, "file")
        lines.append(f"Not arrived at their recipients, and failed now: {unsent}. Send them again.")
    lines.append(ONE_CONNECTION)
    out.show(
        {
            "imported": profile.name,
            "made_at": rfc3339(note.made_at),
            "contacts": restored.contacts,
            "messages": restored.messages,
            "files": files,
            "unsent_files": restored.unsent_files,
            "keys_sealed": sealed,
            "note": ONE_CONNECTION,
        },
        "\n".join(lines),
    )


def _counts(people: int, said: int, files: int) -> str:
    return ", ".join((counted(people, "contact"), counted(said, "message"), counted(files, "received file")))


def _program() -> str:
    try:
        return f"blindrelay {version('blindrelay')}"
    except PackageNotFoundError:  # run from its sources
        return "blindrelay"
