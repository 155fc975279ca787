"""`python -m relay`: run the relay, look at its settings (`… config …`), mint a cluster secret."""

import asyncio
import os
import signal
import sys
from functools import partial

import uvloop

from keys.errors import KeysError
from relay import config, log
from relay.app import raise_file_limit, run
from relay.backplane.options import ClusterError
from relay.cluster import mint
from relay.heap import keep_heap
from relay.listen import CannotListenError
from relay.own_keys import find_keys
from relay.settings import BadSettings, load
from relay.tls import BadCertificate
from relay.usable import check_usable


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; returns the exit status: 0, or 2 when the settings or keys cannot be used, or 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["config"]:
        return config.main(arguments[1:], os.environ)
    if arguments[:1] == ["cluster-secret"]:
        return mint(arguments[1:])
    try:
        settings = load(arguments, os.environ)
        admission = check_usable(settings)
        # Last: it may mint keys, and a relay that cannot start must not leave any.
        found = find_keys(settings, os.environ)
    except (BadSettings, KeysError) as error:
        return _failed(error, 2)
    log.configure(settings.log_level)
    raise_file_limit()
    keep_heap()
    # Until there is a handler: it would end the process before it had begun.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            read = partial(load, arguments, dict(os.environ))
            if settings.workers > 1:
                # Only here: a relay of one process has nothing of it.
                from relay.workers import supervise

                return runner.run(supervise(settings, found, admission, tuple(arguments), read))
            runner.run(run(settings, found, admission, read))
    except (BadCertificate, KeysError) as error:
        return _failed(error, 2)
    except (CannotListenError, ClusterError) as error:
        return _failed(error, 1)
    return 0


def _failed(error: Exception, status: int) -> int:
    for line in str(error).splitlines():
        print(f"blindrelay: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
