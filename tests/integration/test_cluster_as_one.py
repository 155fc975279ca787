"""What else is tested of one relay, run against several, as far as it has a meaning there and takes little time.

Not here is what a node does by itself whatever the others do (listening, TLS, pages, openings, files, its own end), and
what counts on it that each 0x03 comes before that to a later frame: in a cluster those of one recipient come in order,
while those of two come from two nodes.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_abrupt_loss import test_reconnect_storm_after_a_kill  # noqa: F401 - collected here too
from tests.integration.test_limits_process import (  # noqa: F401
    test_commands_that_do_not_open_are_malformed,
    test_fragments_add_up_to_the_same_limit,
    test_largest_frame_and_one_byte_more,
    test_malformed_frames_are_forgiven_up_to_a_number,
)
from tests.integration.test_stalled import test_stalled_reader_costs_only_itself  # noqa: F401
from tests.integration.test_throughput_integrity import test_every_frame_once_and_in_order  # noqa: F401
from tests.integration.test_wake import (  # noqa: F401
    NOTIFIER,
    test_message_does_not_wake_the_active_but_a_call_does,
    test_push_registration_carries_the_id_of_the_session,
    test_wakes_are_limited_per_pair,
    test_wakes_for_the_absent_are_forwarded_as_they_came,
)
from tests.support.nats_cluster import ClusterProcess, cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    yield from cluster(tmp_path_factory.mktemp("cluster"), servers=1, notifier_id=NOTIFIER.id)


@pytest.fixture
def start_relay(tmp_path: Path) -> Iterator[Callable[..., ClusterProcess]]:
    """Start two relays that are one."""
    running = contextmanager(cluster)
    with ExitStack() as stack:

        def start(**how: Any) -> ClusterProcess:
            return stack.enter_context(running(tmp_path, count=2, servers=1, **how))

        yield start
