"""`blindrelay-notifier` (`python -m peers.notifier`): the notifier of a relay, and the tools for its registry."""

import os
import sys
from collections.abc import Sequence

from peers.notifier.arguments import PROGRAM, parse
from peers.notifier.errors import NotifierError
from peers.service.program import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (``sys.argv`` without its first, if None) and return the exit status, as
    :func:`peers.service.program.run_program` has it; also 1 where a push was not taken."""

    def work() -> int:
        arguments = parse(argv)
        try:
            from peers.notifier import commands
        except ModuleNotFoundError as error:
            raise NotifierError(
                f"{error.name} is not installed; it comes with the extra `notifier`: "
                "pip install -c constraints.txt '.[notifier]'"
            ) from None
        return commands.COMMANDS[arguments.command](arguments, os.environ)

    return run_program(PROGRAM, work)


if __name__ == "__main__":
    sys.exit(main())
