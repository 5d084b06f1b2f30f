"""A flow that has nothing to do for longer than a broker remembers it by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apache_kafka import ApacheKafka
from tests.support.broker import Broker, FreshTopics
from tests.support.one_way import OneWay, running
from tests.support.waiting import until

#: seconds after which the broker forgets a transactional id, and between two looks for such ids
EXPIRES, LOOKS = 5.0, 0.5


@pytest.fixture
def forgetful(kafka: Broker, tmp_path: Path) -> Iterator[OneWay]:
    if not isinstance(kafka, ApacheKafka):
        pytest.skip("starts a broker of its own")
    properties = {
        "transactional.id.expiration.ms": f"{EXPIRES * 1000:.0f}",
        "transaction.remove.expired.transaction.cleanup.interval.ms": f"{LOOKS * 1000:.0f}",
    }
    with ApacheKafka(tmp_path / "kafka", properties) as broker:
        yield OneWay(broker, FreshTopics(broker))


def test_a_quiet_flow_keeps_its_transactional_id_known(forgetful: OneWay) -> None:
    with running(forgetful.runner(delivery="exactly_once")) as raised:
        forgetful.write(1)
        until(lambda: forgetful.written() == [0])
        # Nothing happens, which is what is tried.
        assert not threading.Event().wait(EXPIRES + 4 * LOOKS)
        forgetful.write(1, start=1)
        until(lambda: forgetful.written() == [0, 1])
    assert not raised
