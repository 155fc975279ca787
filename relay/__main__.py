"""`python -m relay`: run the relay."""

import asyncio
import os
import sys
from collections.abc import Sequence

import uvloop

from keys.errors import KeysError
from relay import log
from relay.app import raise_file_limit, run
from relay.heap import keep_heap
from relay.listen import CannotListenError
from relay.own_keys import find_keys
from relay.settings import BadSettings, load
from relay.tls import BadCertificate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit status: 0, or 2 when the settings or keys cannot be used, or 1."""
    try:
        settings = load(sys.argv[1:] if arguments is None else arguments, os.environ)
        found = find_keys(settings, os.environ)
    except (BadSettings, KeysError) as error:
        print(f"blindrelay: {error}", file=sys.stderr)
        return 2
    log.configure(settings.log_level)
    raise_file_limit()
    keep_heap()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, found))
    except BadCertificate as error:
        print(f"blindrelay: {error}", file=sys.stderr)
        return 2
    except CannotListenError as error:
        print(f"blindrelay: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
