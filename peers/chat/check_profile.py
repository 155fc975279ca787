"""Checks of what is on this machine: the profile, its store, the disk, the environment. All of it blocks."""

import os
import shlex
import shutil
import sqlite3
import ssl
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from keys.files import ClientKeys
from peers.chat.exits import Exit
from peers.chat.findings import Finding, fail, ok, warn
from peers.chat.report import counted
from peers.chat.text import clean_line
from peers.database import DatabaseError
from peers.profile import NoSuchProfile, Profile, ProfileError, ProfileSettings, WrongProfilePassphrase, ask_passphrase
from peers.store import feed
from peers.store.examined import examine
from peers.store.mailboxes import OwnMailbox, Unwelcome

_FREE_LEAST: Final = 16 << 20
_FREE_FEW: Final = 256 << 20
"""Bytes: below the first the store cannot grow by a day, below the second not by a few photographs."""
_OTHERS: Final = 0o077
_PACKAGES: Final = ("blindrelay", "websockets", "pynacl", "cryptography", "blake3", "textual", "typer")
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "no_proxy")


@dataclass(slots=True)
class Local:
    """What the checks of this machine give to those of the relay, as far as it could be had."""

    settings: ProfileSettings | None = None
    keys: ClientKeys | None = None
    token: str | None = None
    contacts: int = 0
    mailboxes: tuple[OwnMailbox, ...] = ()
    unwelcome: tuple[Unwelcome, ...] = ()


def check_profile(profile: Profile, environ: Mapping[str, str], local: Local) -> Iterator[Finding]:
    """Look at the files of a profile; what is needed later goes into `local`."""
    try:
        profile.check_closed()
        local.settings = profile.settings()
        local.token = profile.read_token()
    except NoSuchProfile as error:
        yield fail(
            "profile", str(error), "make one with init or import, or name another with --profile", Exit.NOT_FOUND
        )
        return
    except ProfileError as error:
        yield fail("profile", str(error), "see the text", Exit.USAGE)
        return
    yield from _files(profile)
    yield _keys(profile, environ, local)
    yield _store(profile, local)


def _files(profile: Profile) -> Iterator[Finding]:
    where = str(profile.directory)
    found = [profile.directory, *profile.directory.iterdir(), *_within(profile.files_path)]
    # One whose name ends so is written and then renamed, or removed. (Of a program that runs it may be here just now.)
    left = sorted(path.name for path in found if path.name.endswith(".tmp"))
    open_, foreign = [], []
    for path in found:
        try:
            there = path.lstat()
        except FileNotFoundError:
            continue
        if there.st_uid != os.geteuid():
            foreign.append(path)
        elif there.st_mode & _OTHERS and not stat.S_ISLNK(there.st_mode):
            open_.append(path)
    if foreign:
        yield warn("profile", f"{len(foreign)} files in {where} belong to another user", f"sudo chown -R $USER {where}")
    elif open_:
        # Within a directory that is closed itself, so that nobody gets there.
        command = f"chmod -R go= {shlex.quote(where)}"
        yield warn("profile", f"{len(open_)} files in {where} have modes that are open to others", command)
    elif left:
        yield warn(
            "profile",
            f"{len(left)} temporary files lie in {where}: a program was killed while it wrote, or writes just now",
            f"if none of your programs runs, remove them: {', '.join(left[:3])}",
        )
    else:
        yield ok("profile", f"{profile.name} in {where}", name=profile.name, directory=where)


def _within(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _keys(profile: Profile, environ: Mapping[str, str], local: Local) -> Finding:
    asked = []

    def ask() -> str:
        asked.append(True)
        return ask_passphrase(f"Passphrase of the profile {profile.name}: ", environ)

    try:
        local.keys = profile.read_keys(ask)
    except WrongProfilePassphrase as error:
        return fail("keys", str(error), "try again; if it is lost, so are these keys", Exit.USAGE)
    except ProfileError as error:
        if asked:  # there are keys, and nobody who could open them
            return warn("keys", f"they are sealed and were not opened: {error}", "the relay is tried as a stranger")
        return fail("keys", str(error), "see the text; or import a backup", Exit.USAGE)
    return ok("keys", "they can be read, and are sealed" if asked else "they can be read", sealed=bool(asked))


def _store(profile: Profile, local: Local) -> Finding:
    path = profile.store_path
    if not path.exists():
        return ok("store", "there is none yet: it is made at first use", messages=0)
    try:
        examined = examine(path)
    except DatabaseError as error:
        return fail("store", str(error), "end all programs of the profile, then import a backup as another", Exit.USAGE)
    local.contacts = examined.contacts
    local.mailboxes, local.unwelcome = examined.mailboxes, examined.unwelcome
    size = path.stat().st_size
    return ok(
        "store",
        f"whole: {counted(examined.contacts, 'contact')}, {counted(examined.messages, 'message')}, {size >> 10} KiB",
        version=examined.version,
        contacts=examined.contacts,
        messages=examined.messages,
        bytes=size,
    )


def check_disk(profile: Profile) -> Finding:
    """Look at the room on the disk of a profile."""
    free = shutil.disk_usage(profile.directory).free
    text = f"{free >> 20} MiB free"
    if free < _FREE_LEAST:
        return fail("disk", text, "make room: nothing can be received without", Exit.USAGE, free=free)
    if free < _FREE_FEW:
        return warn("disk", text, "make room: files will not fit", free=free)
    return ok("disk", text, free=free)


def check_environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look at variables that change how programs connect. Their values are not shown: some hold passwords."""
    oddities = []
    proxies = sorted(name for name in environ if name.lower() in PROXIES and environ[name])
    if proxies:
        oddities.append(f"connections may go by a proxy ({', '.join(proxies)})")
    if environ.get("SSLKEYLOGFILE"):
        oddities.append("the secrets of TLS sessions are written to a file (SSLKEYLOGFILE)")
    trust = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if environ.get(name)]
    if trust:
        oddities.append(f"other certificates are trusted than those of the system ({', '.join(trust)})")
    if "BLINDRELAY_PASSPHRASE" in environ:
        oddities.append("BLINDRELAY_PASSPHRASE is set: others can read it, and no program of ours does")
    if sys.getfilesystemencoding().lower() != "utf-8" or (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8"):
        oddities.append("the locale is not UTF-8: not all letters can be shown")
    if oddities:
        fix = "unset what you did not mean to set"
        yield warn("environment", "; ".join(oddities), fix, variables=sorted({*proxies, *trust}))
    else:
        yield ok("environment", "nothing that stands out")


def check_versions() -> Finding:
    """Tell what runs here."""
    found = {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version, "openssl": ssl.OPENSSL_VERSION}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return ok("versions", ", ".join(f"{name} {value}" for name, value in found.items()), **found)


def check_other_carrier(profile: Profile) -> Finding:
    """Say how the connection stands that another program of the profile holds."""
    try:
        state = _connection(profile.store_path)
    except sqlite3.Error:
        return warn("carrier", "another program of this profile connects; what it says of that cannot be read")
    told, text = str(state["state"]), clean_line(str(state["text"]), 300)
    data: dict[str, Any] = {"other": True, "state": told}
    why = f": {text}" if text else ""
    if told == "connected":
        return ok("carrier", "another program of this profile carries its messages, and is connected", **data)
    if told == "refused":
        fix = "if this identity runs on another machine, let one of the two rest; else see the text"
        return fail(
            "carrier", f"another program of this profile is refused by the relay{why}", fix, Exit.REFUSED, **data
        )
    return warn("carrier", f"another program of this profile tries to connect ({told}){why}", **data)


def _connection(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)) as db:
        db.row_factory = sqlite3.Row
        return feed.connection(db)
