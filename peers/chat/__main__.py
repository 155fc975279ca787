"""``blindrelay-chat``, also ``python -m peers.chat``."""

import sys
from collections.abc import Sequence
from typing import Final

from peers.chat.pipes import hold_standard_streams

_EXTRA: Final = frozenset({"typer", "rich", "textual", "platformdirs"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status (:class:`peers.chat.exits.Exit`)."""
    hold_standard_streams()
    try:
        from peers.chat.cli import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(
            f"blindrelay-chat: {error.name} is missing: install the extra that has it, "
            "python -m pip install 'blindrelay[chat]'",
            file=sys.stderr,
        )
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
