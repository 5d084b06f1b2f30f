"""The table of delivery modes: whole, and each row consistent in itself."""

from __future__ import annotations

import pytest

from loom.streaming.kafka.delivery import Delivery, DeliveryMode, mode_of

MODES = [mode_of(None), *map(mode_of, Delivery)]


@pytest.mark.parametrize("delivery", Delivery)
def test_every_delivery_has_a_mode_of_its_name(delivery: Delivery) -> None:
    assert mode_of(delivery).delivery is delivery
    assert mode_of(delivery).label == mode_of(delivery).summary == delivery.value


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.label)
def test_positions_are_committed_in_one_way(mode: DeliveryMode) -> None:
    ways = (mode.transaction, mode.commits_before_work, mode.commits_behind_mark, mode.commits_by_client)
    assert sum(ways) == 1


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.label)
def test_what_is_committed_regardless_of_results_may_be_lost_and_is_not_left_at_a_stop(mode: DeliveryMode) -> None:
    regardless = mode.commits_before_work or mode.commits_by_client
    assert (mode.may_lose, mode.emits_kept_on_stop) == (regardless, regardless)


@pytest.mark.parametrize("delivery", Delivery)
def test_a_delivery_that_is_set_rules_over_auto_commit(delivery: Delivery) -> None:
    assert mode_of(delivery, auto_commit=True) == mode_of(delivery, auto_commit=False)


def test_without_auto_commit_positions_are_kept_as_under_at_least_once() -> None:
    assert mode_of(None, auto_commit=False) == mode_of(Delivery.AT_LEAST_ONCE)
