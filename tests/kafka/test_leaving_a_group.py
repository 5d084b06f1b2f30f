"""How a member leaves its group on Apache Kafka while the group is being balanced: nobody waits for a session that is over."""

from __future__ import annotations

import pytest
from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription

from tests.support.group_member import Heard, joined
from tests.support.one_way import OneWay
from tests.support.waiting import LONG_S, until

#: milliseconds, of which a revocation may take a third: longer than the client is given where no rebalance is in progress
LONG_SESSION = 20_000


def described(one_way: OneWay) -> ConsumerGroupDescription:
    admin = AdminClient({"bootstrap.servers": one_way.bootstrap})
    return admin.describe_consumer_groups([one_way.group])[one_way.group].result(LONG_S)


def test_a_member_that_has_joined_again_leaves_when_the_slowest_has_given_its_partitions_up(
    one_way: OneWay, capfd: pytest.CaptureFixture[str]
) -> None:
    source = one_way.fresh.create("six", 6)
    leaving, slowest, newer = Heard(), Heard(gives_up=False), Heard()
    settings = {"source": source, "session_timeout_ms": LONG_SESSION}
    with joined(one_way, leaving, **settings) as member, joined(one_way, slowest, **settings):
        until(lambda: len(leaving.has) == len(slowest.has) == 3)
        with joined(one_way, newer, **settings):
            until(lambda: leaving.joins_again and len(leaving.has) == 2)
            until(lambda: described(one_way).state is ConsumerGroupState.PREPARING_REBALANCING)
            # The broker reads nothing of its connection until the slowest has joined again, too.
            assert [what for what, _ in slowest.told][-1] == "revoking"
            member.close()
            assert len(described(one_way).members) == 2
            slowest.gives_up = True
            until(lambda: len(slowest.has) == len(newer.has) == 3)
    assert "consumer_abandoned" not in capfd.readouterr().err
