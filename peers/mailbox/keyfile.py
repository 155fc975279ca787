"""Who the mailbox is: `mailbox.keys` in its data directory, mode 0600.

Deposits are sealed for these keys, and they stand in the cards that people gave each other: with new ones it would be
another mailbox, and what it holds could be opened by nobody.
"""

from pathlib import Path
from typing import Final

from keys.files import ClientKeys, read_identity, write_identity
from keys.identity import Identity
from peers.service.errors import ServiceError

KEY_FILE: Final = "mailbox.keys"
NICKNAME: Final = "mailbox"
"""What it calls itself when it introduces itself to a client of the web app."""


def mint(directory: Path) -> bool:
    """Make the key file, and the directory, if it is missing; tell whether it was.

    Raises:
        KeyFileError: it cannot be written.
    """
    path = directory / KEY_FILE
    if path.exists():
        return False
    write_identity(path, ClientKeys(Identity.generate(), NICKNAME))
    return True


def read_mailbox_identity(directory: Path) -> Identity:
    """Read the key file.

    Raises:
        KeyFileError: it cannot be used.
        ServiceError: it is not there.
    """
    path = directory / KEY_FILE
    # Said here, because the text of read_private names the program that makes a relay's keys.
    if not path.exists():
        raise ServiceError(f"there is no key file {path}; `blindrelay-mailbox keygen` makes it")
    return read_identity(path).identity
