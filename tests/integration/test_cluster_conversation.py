"""The conversations of :mod:`tests.integration.test_conversation`, each client at another of three relays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.test_conversation import (  # noqa: F401 - they are collected here too
    test_another_version_is_told_ours,
    test_handshake_for_another_relay,
    test_handshake_is_accepted_once,
    test_introduction_carries_the_keys_of_the_session,
    test_no_handshake_no_answer,
    test_offline_error_names_target_and_nonce,
    test_one_may_write_to_oneself,
    test_order_is_kept_and_packets_are_untouched,
    test_presence,
    test_proof_of_other_bytes_changes_nothing_visible,
    test_same_id_is_not_the_same_key,
    test_those_online_are_told_in_one_frame,
    test_two_talk,
    test_what_a_client_may_say_for_nothing,
)
from tests.support.nats_cluster import ClusterProcess, cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    yield from cluster(tmp_path_factory.mktemp("cluster"))
