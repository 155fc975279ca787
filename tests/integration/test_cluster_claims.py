"""All of :mod:`tests.integration.test_claims_process`, each client at another of three relays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.test_claims_process import (  # noqa: F401 - they are collected here too
    test_dead_holder_is_replaced,
    test_frames_that_waited_for_a_dead_holder_are_answered,
    test_id_is_free_when_its_holder_leaves_while_asked,
    test_later_newcomer_waits_for_the_earlier,
    test_living_holder_keeps_the_id,
    test_old_client_is_proven_by_a_command_it_never_sent_before,
    test_other_keys_with_the_same_id_are_always_refused,
    test_pong_that_nobody_asked_for_is_no_life,
    test_second_newcomer_moves_up_when_the_first_gives_up,
    test_two_newcomers_and_a_dead_holder,
    test_unproven_holder_yields_at_once,
    test_wrong_proof_proves_nothing,
)
from tests.support.nats_cluster import ClusterProcess, cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    limits = {"claim_wait": 0.3, "closing_deadline": 60}
    yield from cluster(tmp_path_factory.mktemp("hasty"), servers=1, limits=limits)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcess]:
    limits = {"claim_wait": 300, "claim_queue": 2}
    yield from cluster(tmp_path_factory.mktemp("patient"), servers=1, limits=limits)
