"""``blindrelay-keygen``: mints key files, and prints the public halves of them.

Secrets go into files of mode 0600 and nowhere else: not to stdout, not into error texts, and no option takes one, since
the arguments of a process can be read by everybody on the machine. What is printed is TOML.
"""

import argparse
import getpass
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

import tomli_w

from keys import passphrase as pw
from keys.errors import KeysError, OpenError
from keys.files import ClientKeys, ServerKeys, read_keys, write_identity, write_server_keys
from keys.identity import ID_SIZE, Identity
from keys.invite import RelayCard
from keys.private_file import refuse_existing

PROGRAM: Final = "blindrelay-keygen"
DEFAULT_URL: Final = "ws://127.0.0.1:8090/ws"
"""Where a relay listens that nobody configured."""
_SERVER_FILE: Final = Path("relay.keys")
_CLIENT_FILE: Final = Path("client.keys")
_FAILED: Final = 2
_INTERRUPTED: Final = 130

_DESCRIPTION: Final = """\
Mints the keys of a relay (or, with --client, of a person) into a file of mode 0600, and prints their public halves as
TOML together with the relay card R0… (or the invite K0…) that others need. Secrets are never printed."""
_EPILOG: Final = """\
examples:
  blindrelay-keygen --out relay.keys --url wss://relay.example.org/ws
  blindrelay-keygen --public relay.keys
  blindrelay-keygen --client --nickname Alice --passphrase"""


class _UsageError(Exception):
    """The arguments make no sense, or something beside the key files fails; the text is for the person."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # Of --passphrase=hunter2 argparse would repeat the value.
        message = re.sub(r"ignored explicit argument .*", "takes no value", message, flags=re.DOTALL)
        raise _UsageError(f"{message} (see --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (``sys.argv`` without its first, if None) and return the exit status.

    0: done; 2: refused or failed, with one line on stderr that says why; 130: interrupted.
    """
    try:
        arguments = _parse(argv)
        if arguments.public is not None:
            printed = _public(arguments)
        elif arguments.client:
            printed = _mint_client(arguments)
        else:
            printed = _mint_server(arguments)
        sys.stdout.write(tomli_w.dumps(printed))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (KeysError, _UsageError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return _FAILED
    except OSError as error:
        print(f"{PROGRAM}: cannot print: {error.strerror}", file=sys.stderr)
        # What could not be written is still in the buffer: at exit Python would try again and change the status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--public", metavar="FILE", type=Path, help="print the public halves of an existing key file")
    what.add_argument("--client", action="store_true", help="mint the keys of a person instead of a relay")
    add("--out", metavar="FILE", type=Path, help=f"where to write ({_SERVER_FILE}, for a client {_CLIENT_FILE})")
    add("--force", action="store_true", help="replace the file if it exists: the keys in it are then lost")
    add("--url", help=f"the relay's address as clients reach it, for its card (the relay's default, {DEFAULT_URL})")
    add("--notifier-id", metavar="HEX16", help="the client id of the push notifier, written into a relay's file")
    add("--nickname", help="how a client calls itself, at most 256 bytes (none)")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument(
        "--passphrase", action="store_true", help="ask for a passphrase and seal a client's file with it"
    )
    secret.add_argument(
        "--passphrase-file", metavar="FILE", help="read it from a file instead, from stdin if FILE is -"
    )
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        # argparse would repeat them, and somebody may have typed a passphrase.
        options = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        parser.error(f"there is no option {options[0]}" if options else "an argument without an option before it")
    _refuse_nonsense(parser, arguments)
    return arguments


def _refuse_nonsense(parser: _Parser, arguments: argparse.Namespace) -> None:
    mode = "--public" if arguments.public is not None else "--client" if arguments.client else "a relay's keys"
    senseless = {
        "--public": ("out", "force", "notifier_id", "nickname"),
        "--client": ("url", "notifier_id"),
        "a relay's keys": ("nickname", "passphrase", "passphrase_file"),
    }[mode]
    for name in senseless:
        if getattr(arguments, name) not in (None, False):
            parser.error(f"--{name.replace('_', '-')} does not go with {mode}")


def _public(arguments: argparse.Namespace) -> dict[str, str]:
    path: Path = arguments.public
    try:
        keys = read_keys(path, _passphrase_source(arguments, confirm=False) or (lambda: _ask(confirm=False)))
    except OpenError:
        raise _UsageError(f"the passphrase of {path} is wrong, or the file has been changed") from None
    if isinstance(keys, ServerKeys):
        return _public_server(keys, arguments.url)
    if arguments.url is not None:
        raise _UsageError(f"--url goes with a relay's keys, and {path} is the key file of a client")
    return _public_client(keys)


def _mint_server(arguments: argparse.Namespace) -> dict[str, str]:
    keys = ServerKeys(Identity.generate(), _notifier_id(arguments.notifier_id))
    printed = _public_server(keys, arguments.url)  # before writing: a bad address must leave nothing behind
    path: Path = arguments.out or _SERVER_FILE
    write_server_keys(path, keys, overwrite=arguments.force)
    _tell_written(path)
    return printed


def _mint_client(arguments: argparse.Namespace) -> dict[str, str]:
    keys = ClientKeys(Identity.generate(), arguments.nickname or "")
    printed = _public_client(keys)
    path: Path = arguments.out or _CLIENT_FILE
    if not arguments.force:
        refuse_existing(path)
    source = _passphrase_source(arguments, confirm=True)
    write_identity(path, keys, passphrase=source() if source else None, overwrite=arguments.force)
    _tell_written(path)
    return printed


def _public_server(keys: ServerKeys, url: str | None) -> dict[str, str]:
    card = RelayCard(keys.identity.public, DEFAULT_URL if url is None else url)
    return {**_halves(keys.identity), "relay_card": card.text}


def _public_client(keys: ClientKeys) -> dict[str, str]:
    return {**_halves(keys.identity), "invite": keys.invite.text}


def _halves(identity: Identity) -> dict[str, str]:
    return {"x25519_public": identity.public.x_pub.hex(), "ed25519_public": identity.public.ed_pub.hex()}


def _notifier_id(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not re.fullmatch(f"[0-9a-fA-F]{{{2 * ID_SIZE}}}", text):
        raise _UsageError(f"--notifier-id must be {2 * ID_SIZE} hex digits")
    return bytes.fromhex(text)


def _passphrase_source(arguments: argparse.Namespace, *, confirm: bool) -> Callable[[], bytes] | None:
    if arguments.passphrase_file is not None:
        return lambda: _read_passphrase(arguments.passphrase_file)
    return (lambda: _ask(confirm=confirm)) if arguments.passphrase else None


def _ask(*, confirm: bool) -> bytes:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would read stdin and show what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            typed = getpass.getpass("Passphrase: ")
            if confirm and getpass.getpass("Once more: ") != typed:
                raise _UsageError("the two passphrases differ")
    except (getpass.GetPassWarning, EOFError):
        raise _UsageError("there is no terminal to ask for the passphrase; give it with --passphrase-file") from None
    return _usable(typed)


def _read_passphrase(name: str) -> bytes:
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(pw.MAX_PASSPHRASE + 3)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(pw.MAX_PASSPHRASE + 3)
        text = raw.decode()
    except OSError as error:
        raise _UsageError(f"cannot read the passphrase from {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _UsageError("the passphrase is not UTF-8 text") from None
    return _usable(text.removesuffix("\n").removesuffix("\r"))


def _usable(text: str) -> bytes:
    try:
        return pw.encode_typed(text)
    except ValueError as error:
        raise _UsageError(str(error)) from None


def _tell_written(path: Path) -> None:
    print(f"{PROGRAM}: wrote {path}; keep a copy of it in a safe place", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
