"""Commands about a profile and who its owner is: init, me, profiles, status."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keys.errors import BadInvite, BadKey
from keys.files import ClientKeys
from keys.identity import Identity, PublicIdentity
from keys.invite import RelayCard
from keys.primitives import KEY_SIZE
from keys.safety import fingerprint, grouped
from peers.chat.commands.frame import PROFILE, Call, UsageError, command
from peers.chat.exits import Exit
from peers.chat.text import clean_line
from peers.profile import Profile, ProfileError, ask_passphrase, list_profiles

if TYPE_CHECKING:
    from peers.database import Database


@command("init", panel=PROFILE)
def init(
    call: Call,
    relay: Annotated[str | None, typer.Option("--relay", metavar="R0…", help="The relay card.")] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Without a card: the relay's address, ws:// or wss://.")
    ] = None,
    x_pub: Annotated[str | None, typer.Option("--x-pub", metavar="HEX", help="and its X25519 public key")] = None,
    ed_pub: Annotated[str | None, typer.Option("--ed-pub", metavar="HEX", help="and its Ed25519 public key.")] = None,
    name: Annotated[str, typer.Option("--name", help="What you call yourself; others see it.")] = "",
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Seal the keys: asks, or reads the file BLINDRELAY_PASSPHRASE_FILE.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Where the relay's admission token is, if it asks for one.")
    ] = None,
) -> int:
    """Make a profile with new keys, and print its invite for others to add you."""
    import os

    card = _card(relay, url, x_pub, ed_pub)
    profile = call.profile()
    if profile.exists:
        raise ProfileError(f"the profile {profile.name} exists in {profile.directory}; choose another with --profile")
    if token_file is not None and not token_file.is_file():
        raise UsageError(f"--token-file: there is no file {token_file}")
    keys = ClientKeys(Identity.generate(), name)
    secret = ask_passphrase("New passphrase: ", os.environ, confirm=True) if passphrase else None
    where = None if token_file is None else token_file.absolute()
    made = Profile.create(call.profile_name, keys, card, secret, token_file=where)
    if where is not None:
        try:
            made.read_token()
        except ProfileError as error:
            call.out.warn(f"the profile is made, but its token cannot be used yet: {error}")
    _show_me(call, made, keys, card)
    call.out.hint("Others add you by this invite: blindrelay-chat add K0…")
    return Exit.DONE


@command("me", panel=PROFILE)
def me(
    call: Call,
    qr: Annotated[bool | None, typer.Option("--qr/--no-qr", help="With the QR code; by default on a terminal.")] = None,
) -> int:
    """Show your invite, as text and as a QR code, and your half of every safety number."""
    import os

    profile = call.profile()
    card = profile.settings().relay
    keys = profile.read_keys(lambda: ask_passphrase(f"Passphrase of the profile {profile.name}: ", os.environ))
    _show_me(call, profile, keys, card)
    if not call.out.json and (sys.stdout.isatty() if qr is None else qr):
        _print_qr(keys.invite.text)
    return Exit.DONE


@command("profiles", panel=PROFILE)
def profiles(call: Call) -> int:
    """List the profiles that there are."""
    used = call.profile().name
    rows = [Profile.locate(name) for name in list_profiles()]
    if call.out.json:
        for row in rows:
            call.out.show({"profile": row.name, "directory": str(row.directory), "used": row.name == used}, "")
    else:
        mark = {True: "*", False: ""}
        call.out.table(
            ["profile", "used", "directory"],
            [[row.name, mark[row.name == used], clean_line(str(row.directory))] for row in rows],
        )
        if not rows:
            call.out.hint("There is no profile yet: blindrelay-chat init --relay R0…")
    return Exit.DONE


@command("status", panel=PROFILE)
def status(call: Call) -> int:
    """Tell whether a program of this profile is connected, and what waits."""
    profile = call.profile()
    carried = is_carried(profile)

    async def read(store: "Database") -> int:
        record = await store.read(_status, profile, carried)
        lines = [
            f"profile     {profile.name} in {clean_line(str(profile.directory))}",
            f"relay       {clean_line(record['relay'])}",
            f"connection  {_connection(record)}",
            f"to be sent  {record['unacknowledged']}",
            f"left        {record['left']} in mailboxes of their recipients",
            f"unread      {record['unread']}",
            f"mailboxes   {_mailboxes(record['mailboxes'])}",
        ]
        call.out.show(record, "\n".join(lines))
        return Exit.DONE

    return call.with_store(read)


def is_carried(profile: Profile) -> bool:
    """Tell whether any process carries the messages of a profile now."""
    profile.check_closed()
    lock = profile.lock()
    if lock.acquire():
        lock.release()
        return False
    return True


def _status(db: Any, profile: Profile, carried: bool) -> dict[str, Any]:
    from peers.chat.views import mailbox_record, stamp
    from peers.store import feed, mailboxes, messages, parcels

    link = feed.connection(db)
    # Whoever wrote it may have been killed since: without a carrier there is no connection.
    state = link["state"] if carried or link["state"] == "refused" else "closed"
    return {
        "profile": profile.name,
        "directory": str(profile.directory),
        "relay": profile.settings().relay.url,
        "carried": carried,
        "connection": state,
        "text": link["text"] if state == link["state"] else "",
        "since": stamp(link["at"] or None),
        "unacknowledged": messages.unacknowledged(db),
        "left": parcels.lying(db),
        "unread": sum(messages.unread(db).values()),
        "mailboxes": [mailbox_record(own) for own in mailboxes.own(db)],
        "cursor": feed.last(db),
    }


def _mailboxes(records: list[dict[str, Any]]) -> str:
    if not records:
        return "none"
    failing = [record for record in records if record["trouble"]]
    return f"{len(records)}" + (f", of which {len(failing)} cannot be reached" if failing else "")


def _connection(record: dict[str, Any]) -> str:
    text = f": {clean_line(record['text'])}" if record["text"] else ""
    if not record["carried"]:
        return f"no program of this profile runs{' (the last one was refused' + text + ')' if text else ''}"
    return f"{record['connection']}{text}"


def _show_me(call: Call, profile: Profile, keys: ClientKeys, card: RelayCard) -> None:
    public = keys.identity.public
    record = {
        "profile": profile.name,
        "nickname": keys.nickname,
        "peer_id": public.id.hex(),
        "invite": keys.invite.text,
        "fingerprint": fingerprint(public),
        "relay": card.url,
    }
    if call.out.quiet:
        call.out.show(record, keys.invite.text)
        return
    lines = [
        f"profile      {profile.name}",
        f"nickname     {clean_line(keys.nickname) or '(none)'}",
        f"relay        {clean_line(card.url)}",
        f"fingerprint  {grouped(fingerprint(public))}",
        f"invite       {keys.invite.text}",
    ]
    call.out.show(record, "\n".join(lines))


def _print_qr(text: str) -> None:
    import segno

    try:
        segno.make(text, error="l", micro=False).terminal(compact=True, border=2)
    except UnicodeEncodeError:
        print("(the terminal cannot show a QR code: its encoding has no block characters)", file=sys.stderr)


def _card(relay: str | None, url: str | None, x_pub: str | None, ed_pub: str | None) -> RelayCard:
    apart = (url, x_pub, ed_pub)
    if relay is not None and apart == (None, None, None):
        return RelayCard.parse(relay)
    if relay is not None or None in apart:
        raise UsageError(
            "which relay? --relay R0…, the card that its operator gives out, or all of --url, --x-pub and --ed-pub"
        )
    try:
        return RelayCard(PublicIdentity(_key("--x-pub", x_pub), _key("--ed-pub", ed_pub)), url or "")
    except (BadKey, BadInvite) as error:
        raise UsageError(f"that is no relay: {error}") from None


def _key(option: str, text: str | None) -> bytes:
    try:
        key = bytes.fromhex(text or "")
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise UsageError(f"{option} is a key of {2 * KEY_SIZE} hex digits")
    return key
