"""`blindrelay-mailbox` (`python -m peers.mailbox`): a mailbox, and the tools for what it holds."""

import os
import sys
from collections.abc import Sequence

from peers.mailbox.arguments import PROGRAM, parse
from peers.mailbox.store import StoreError
from peers.service.errors import ServiceError
from peers.service.program import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (``sys.argv`` without its first, if None) and return the exit status, as
    :func:`peers.service.program.run_program` has it."""

    def work() -> int:
        arguments = parse(argv)
        try:
            from peers.mailbox import commands

            return commands.COMMANDS[arguments.command](arguments, os.environ)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in ("starlette", "uvicorn", "httptools"):
                raise
            raise ServiceError(
                f"{missing} is missing, of the extra `mailbox`: pip install -c constraints.txt '.[mailbox]'"
            ) from None

    return run_program(PROGRAM, work, StoreError)


if __name__ == "__main__":
    sys.exit(main())
