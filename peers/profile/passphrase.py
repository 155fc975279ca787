"""Asking the person for a passphrase: from a file that a variable names, or at the terminal.

Never from an argument or from a variable itself: both can be read by others, and stay in histories and unit files.
"""

import getpass
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from keys import passphrase as pw
from peers.profile.errors import ProfileError

FILE_VARIABLE: Final = "BLINDRELAY_PASSPHRASE_FILE"
_PLAIN_VARIABLE: Final = "BLINDRELAY_PASSPHRASE"


def ask_passphrase(prompt: str, environ: Mapping[str, str], *, confirm: bool = False) -> str:
    """Return the passphrase as it was typed: 1 to 4096 bytes of UTF-8 in composed form (NFC).

    The file that BLINDRELAY_PASSPHRASE_FILE names is read, whatever its mode (container runtimes mount secrets so that
    all within can read them), and one line break at its end is not part of the passphrase. Without that variable the
    person is asked at the terminal. Waits: not on an event loop.

    Args:
        prompt: what to ask, such as "Passphrase: ".
        environ: the environment.
        confirm: ask twice at the terminal, for a passphrase that is to be set.

    Raises:
        ProfileError: there is none, it is empty or too long, the two differ, or there is no terminal.
    """
    if _PLAIN_VARIABLE in environ:
        # Ignored, it would leave a service waiting for a terminal, and somebody thinking that it is of use.
        raise ProfileError(
            f"{_PLAIN_VARIABLE} is not read: put the passphrase into a file and name it by {FILE_VARIABLE}"
        )
    if FILE_VARIABLE in environ:
        return _from_file(environ[FILE_VARIABLE])
    return _from_terminal(prompt, confirm=confirm)


def _from_file(name: str) -> str:
    if not name:
        raise ProfileError(f"{FILE_VARIABLE} is empty: name a file by it, or remove it")
    # The texts name the variable alone: what it holds may be the passphrase itself.
    try:
        with Path(name).open("rb") as file:
            raw = file.read(pw.MAX_PASSPHRASE + 3)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ProfileError(f"the file of {FILE_VARIABLE} cannot be read: {reason or 'not a file name'}") from None
    try:
        return _usable(raw.decode().removesuffix("\n").removesuffix("\r"))
    except (UnicodeDecodeError, ProfileError) as error:
        reason = "the passphrase is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ProfileError(f"the file of {FILE_VARIABLE}: {reason}") from None


def _from_terminal(prompt: str, *, confirm: bool) -> str:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would read stdin and show what is typed.
            warnings.simplefilter("error", getpass.GetPassWarning)
            typed = _usable(getpass.getpass(prompt))
            if confirm and getpass.getpass("Once more: ") != typed:
                raise ProfileError("the two passphrases differ")
    except (getpass.GetPassWarning, EOFError):
        raise ProfileError(
            f"there is no terminal to ask for the passphrase; put it into a file and name it by {FILE_VARIABLE}"
        ) from None
    return typed


def _usable(text: str) -> str:
    try:
        pw.encode_typed(text)
    except ValueError as error:
        raise ProfileError(str(error)) from None
    return text
