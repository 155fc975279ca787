"""What the commands do. Each takes the arguments and the environment, and returns the exit status."""

import argparse
import asyncio
import signal
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import uvloop

from peers.database import copy_database
from peers.mailbox.access import new_token, read_access, read_tokens, revoke_token
from peers.mailbox.arguments import FLAGS, PROGRAM
from peers.mailbox.keyfile import KEY_FILE, mint, read_mailbox_identity
from peers.mailbox.process import open_store, run
from peers.mailbox.settings import NAMES, Settings, database_of, load
from peers.mailbox.sqlite_schema import SCHEMA
from peers.service import config, log
from peers.service.errors import BadSettings, ServiceError, ServiceFailed
from peers.service.listening import ask_health, parse_listen

Command = Callable[[argparse.Namespace, Mapping[str, str]], int]


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    return load(arguments.settings, environ).settings


def _keygen(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = _settings(arguments, environ)
    settings.ways()  # or it would fail with keys that it wrote before
    if mint(settings.data_dir):
        path = settings.data_dir / KEY_FILE
        print(f"{PROGRAM}: wrote {path}; keep a copy of it in a safe place", file=sys.stderr)
    return _print_cards(settings)


def _card(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _print_cards(_settings(arguments, environ))


def _print_cards(settings: Settings) -> int:
    for card in settings.cards(read_mailbox_identity(settings.data_dir).public):
        print(card.text)
    return 0


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # What it asks for is still to be read; `run` heeds it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = _settings(arguments, environ)
    log.configure(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))
    return 0


def _health(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    place = parse_listen(_settings(arguments, environ).admin)
    if place is None:
        raise BadSettings(["admin is off, so nobody can be asked"])
    return ask_health(place, "the mailbox")


# --- What it holds ---------------------------------------------------------------------------------------------------


def _existing(settings: Settings) -> Path:
    if settings.store != "sqlite":
        raise ServiceError(
            "what this mailbox holds is in a stream of NATS: look after it there, as docs/mailbox.md says"
        )
    path = database_of(settings)
    if not path.exists():
        raise ServiceError(f"there is no {path} yet: the mailbox makes it when it runs")
    return path


def _stats(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    path = _existing(_settings(arguments, environ))
    # A reader of its own: the running mailbox holds the lock of the store, and goes on meanwhile.
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != SCHEMA.application_id:
                raise ServiceError(f"{path} is no mailbox's database")
            items, size, markers = db.execute("SELECT items, size, markers FROM mailbox").fetchone()
            (recipients,) = db.execute("SELECT count(*) FROM recipients").fetchone()
    except sqlite3.Error as error:
        raise ServiceFailed(f"cannot read {path}: {getattr(error, 'sqlite_errorname', 'it is damaged')}") from None
    print(f"items: {items}\nbytes: {size}\nrecipients: {recipients}\nwith_refusals: {markers}")
    print(f"file_bytes: {sum(each.stat().st_size for each in path.parent.glob(f'{path.name}*') if each.is_file())}")
    return 0


def _prune(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = _settings(arguments, environ)
    path = _existing(settings)

    async def prune() -> int:
        store = await open_store(settings, settings.limits.rules(), read_mailbox_identity(settings.data_dir))
        try:
            # By the mailbox's own time as it was saved, and not by the machine's: see peers.mailbox.clock.
            now = await store.saved_time() or 0
            erased = 0
            while batch := await store.expire(now):
                erased += batch
            return erased
        finally:
            await store.close()

    print(f"erased: {asyncio.run(prune())}")
    before = path.stat().st_size
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "it is damaged")
        raise ServiceFailed(f"cannot rewrite {path} ({name}): it takes as much free disk again as it holds") from None
    print(f"given_back_bytes: {max(0, before - path.stat().st_size)}")
    return 0


def _backup(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = _settings(arguments, environ)
    copy_database(_existing(settings), arguments.to)
    print(f"{PROGRAM}: the keys are not in it: keep a copy of {settings.data_dir / KEY_FILE} too", file=sys.stderr)
    return 0


# --- Tokens ----------------------------------------------------------------------------------------------------------


def _token_new(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = _settings(arguments, environ)
    print(new_token(settings.data_dir, arguments.label))
    told = "" if settings.tokens else "; tokens are not asked for yet: set tokens (--tokens)"
    print(f"{PROGRAM}: this is shown once. A running mailbox learns of it at SIGHUP{told}", file=sys.stderr)
    return 0


def _token_list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    for token in read_tokens(_settings(arguments, environ).data_dir):
        print(f"{token.name} {token.label}".rstrip())
    return 0


def _token_revoke(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    token = revoke_token(_settings(arguments, environ).data_dir, arguments.digest)
    if token is None:
        raise ServiceFailed("there is no such token: `token list` has them")
    print(f"{PROGRAM}: revoked {token.name} {token.label}".rstrip(), file=sys.stderr)
    return 0


# --- Settings --------------------------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = _settings(arguments, environ)
    cards = settings.cards(read_mailbox_identity(settings.data_dir).public)
    rule = read_access(settings)
    served = "everybody" if rule.recipients is None else f"{len(rule.recipients)} recipients"
    print(f"ways: {', '.join('relay' if card.by_relay else 'http' for card in cards)}")
    print(f"serves: {served}{f', {len(rule.tokens)} tokens' if rule.tokens else ''}\nok")
    return 0


def _show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    sys.stdout.write(config.show(NAMES, load(arguments.settings, environ)))
    return 0


def _template(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    sys.stdout.write(config.template(NAMES, FLAGS))
    return 0


def _doc(_arguments: argparse.Namespace, _environ: Mapping[str, str]) -> int:
    sys.stdout.write(FLAGS.table())
    return 0


COMMANDS: Final[Mapping[str, Command]] = {
    "keygen": _keygen,
    "card": _card,
    "run": _run,
    "health": _health,
    "stats": _stats,
    "prune": _prune,
    "backup": _backup,
    "token new": _token_new,
    "token list": _token_list,
    "token revoke": _token_revoke,
    "config check": _check,
    "config show": _show,
    "config template": _template,
    "config doc": _doc,
}
