"""Commands that keep a profile alive: export, import, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from peers.chat.commands.frame import PROFILE, Call, command


@command("export", panel=PROFILE)
def export(
    call: Call,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")],
    telefon: Annotated[
        bool, typer.Option("--telefon", help="Write a telefon-account.json for the web app: keys, nickname, contacts.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="With --telefon: without a passphrase, the secret keys in clear.")
    ] = False,
) -> int:
    """Write a backup of the profile, sealed under a passphrase: keys, settings, contacts, history and received files.

    Asks for the passphrase twice, or reads the file that BLINDRELAY_PASSPHRASE_FILE names. Other programs may use the
    profile meanwhile.
    """
    from peers.chat import transfer

    return transfer.export(transfer.ExportOptions(path, call.profile_name, telefon, plain, json=call.out.json))


@command("import", panel=PROFILE)
def import_(
    call: Call,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What export wrote, or a telefon-account.json.")],
    telefon: Annotated[bool, typer.Option("--telefon", help="The file is an account of the telefon web app.")] = False,
    relay: Annotated[
        str | None,
        typer.Option("--relay", metavar="R0…", help="With --telefon: the relay card, for the account names no relay."),
    ] = None,
    contacts_only: Annotated[
        bool, typer.Option("--contacts-only", help="With --telefon: add its contacts to a profile that exists.")
    ] = False,
    seal: Annotated[
        bool, typer.Option("--passphrase", help="With --telefon: seal the keys of the new profile under a passphrase.")
    ] = False,
) -> int:
    """Make a profile of a backup, or of an account of the telefon web app.

    A profile that exists is never changed; choose the name of the new one with --profile.
    """
    from peers.chat import transfer

    return transfer.import_(
        transfer.ImportOptions(path, call.profile_name, telefon, relay, contacts_only, seal, json=call.out.json)
    )


@command("doctor", panel=PROFILE)
def doctor(
    call: Call,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="How long each step may take.")
    ] = 10.0,
) -> int:
    """Look at the profile and its relay, and say how each thing stands and what to do about it.

    If no other program of the profile connects, this one does for a moment.
    """
    from peers.chat.doctor import DoctorOptions, run

    return run(DoctorOptions(call.profile_name, json=call.out.json, timeout=timeout))
