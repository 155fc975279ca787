"""The program of a service: what it did as an exit status, and its errors as lines for people."""

import os
import sys
from collections.abc import Callable
from typing import Final

from keys.errors import KeysError
from peers.client import ClientError
from peers.database import DatabaseError
from peers.service.errors import ServiceError, ServiceFailed

_FAILED: Final = 1
_UNUSABLE: Final = 2
_INTERRUPTED: Final = 130


def run_program(program: str, work: Callable[[], int], *failures: type[Exception]) -> int:
    """Do the work, and return the exit status.

    What `work` returns, when it is done; 1: it failed, and may not the next time (the relay refuses us, the port is
    taken, another one runs); 2: settings, keys or arguments that cannot be used; 130: interrupted.

    Args:
        program: its name, which begins each line about an error.
        failures: further errors that are told, with status 1.
    """
    told: tuple[type[Exception], ...] = (ServiceFailed, ClientError, DatabaseError, *failures)
    try:
        status = work()
        sys.stdout.flush()
    except told as error:
        _tell(program, str(error))
        return _FAILED
    except (ServiceError, KeysError) as error:
        _tell(program, str(error))
        return _UNUSABLE
    except BrokenPipeError:
        # Whoever read stdout has enough (`| head`). The interpreter flushes it once more as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _tell(program: str, text: str) -> None:
    for line in text.splitlines():
        print(f"{program}: {line}", file=sys.stderr)
