"""`blindrelay-mailbox` (`python -m peers.mailbox`): a mailbox, and the tools for what it holds."""

import os
import sys
from collections.abc import Sequence

from keys.errors import KeysError
from peers.client import ClientError
from peers.database import DatabaseError
from peers.mailbox.arguments import PROGRAM, parse
from peers.mailbox.store import StoreError
from peers.service.errors import ServiceError, ServiceFailed

_FAILED = 1
_UNUSABLE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (``sys.argv`` without its first, if None) and return the exit status.

    0: done; 1: it failed, and may not the next time (the relay refuses us, the port is taken, another mailbox runs);
    2: settings, keys or arguments that cannot be used; 130: interrupted.
    """
    try:
        arguments = parse(argv)
        from peers.mailbox import commands

        status = commands.COMMANDS[arguments.command](arguments, os.environ)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("starlette", "uvicorn", "httptools"):
            raise
        _tell(f"{missing} is missing, of the extra `mailbox`: pip install -c constraints.txt '.[mailbox]'")
        return _UNUSABLE
    except (ServiceFailed, ClientError, DatabaseError, StoreError) as error:
        _tell(str(error))
        return _FAILED
    except (ServiceError, KeysError) as error:
        _tell(str(error))
        return _UNUSABLE
    except BrokenPipeError:
        # Whoever read stdout has enough (`| head`). The interpreter flushes it once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    else:
        return status


def _tell(text: str) -> None:
    for line in text.splitlines():
        print(f"{PROGRAM}: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
