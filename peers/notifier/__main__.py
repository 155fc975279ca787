"""`blindrelay-notifier` (`python -m peers.notifier`): the notifier of a relay, and the tools for its registry."""

import os
import sys
from collections.abc import Sequence

from keys.errors import KeysError
from peers.client import ClientError
from peers.database import DatabaseError
from peers.notifier.arguments import PROGRAM, parse
from peers.notifier.errors import NotifierError, NotifierFailed

_FAILED = 1
_UNUSABLE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (``sys.argv`` without its first, if None) and return the exit status.

    0: done; 1: it failed, and may not the next time (the relay refuses us, the port is taken, a push was not taken);
    2: settings, keys or arguments that cannot be used; 130: interrupted.
    """
    try:
        arguments = parse(argv)
        try:
            from peers.notifier import commands
        except ModuleNotFoundError as error:
            print(
                f"{PROGRAM}: {error.name} is not installed; it comes with the extra `notifier`: "
                "pip install -c constraints.txt '.[notifier]'",
                file=sys.stderr,
            )
            return _UNUSABLE
        return commands.COMMANDS[arguments.command](arguments, os.environ)
    except (NotifierFailed, ClientError, DatabaseError) as error:
        _tell(str(error))
        return _FAILED
    except (NotifierError, KeysError) as error:
        _tell(str(error))
        return _UNUSABLE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _tell(text: str) -> None:
    for line in text.splitlines():
        print(f"{PROGRAM}: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
