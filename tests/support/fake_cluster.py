"""A cluster that joins nothing: a connection to NATS as the backplane has one, for the tests of what stands around it.

    python tests/support/fake_cluster.py [the relay's flags]

is the relay with `--workers`, whose processes join that. With `--fail` the second cannot; with `--hurry` the parent
waits for nobody at the end.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import nats

from relay.backplane.options import ClusterError

if TYPE_CHECKING:
    from nats.aio.client import Client

    from relay.backplane.options import ClusterOptions
    from relay.core import Core

WORKER: Final = "--worker"


class Joined:
    """Knows whether NATS can be reached, and no more."""

    def __init__(self, connection: Client) -> None:
        self._connection = connection

    @property
    def degraded(self) -> bool:
        return not self._connection.is_connected

    async def close(self) -> None:
        await self._connection.close()


async def join(_core: Core, options: ClusterOptions) -> Joined:
    """Connect, as the backplane does."""
    if options.node == "worker-2" and "--fail" in sys.argv:
        raise ClusterError("the second worker was told not to join")
    connection = await nats.connect(
        list(options.servers),
        user=options.user,
        password=options.password,
        reconnect_time_wait=0.05,
        max_reconnect_attempts=-1,
        error_cb=_ignore,
    )
    return Joined(connection)


async def _ignore(_error: Exception) -> None:
    """Of a server that is gone it tells at each attempt."""


def main() -> int:
    """Run the relay, or one of its processes."""
    fake = ModuleType("relay.backplane")
    fake.__path__ = [str(Path(__file__).resolve().parents[2] / "relay" / "backplane")]
    fake.join = join  # type: ignore[attr-defined]
    sys.modules["relay.backplane"] = fake
    if WORKER in sys.argv:
        from relay import worker

        return worker.main()
    from relay import __main__ as start
    from relay import workers

    extra = [flag for flag in sys.argv[1:] if flag == "--fail"]
    workers.command = (sys.executable, "-P", __file__, WORKER, *extra)
    if "--hurry" in sys.argv:
        workers.late = 0.1
    return start.main([flag for flag in sys.argv[1:] if flag not in ("--fail", "--hurry")])


if __name__ == "__main__":
    sys.exit(main())
