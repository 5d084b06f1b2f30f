"""A process that is a member of its group, on the in-process broker: what it commits, and in whose name."""

from __future__ import annotations

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import FromTopic, IntoTopic, Process, StreamFlow, step
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import config_for, content, positions, produce, run_all


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


FLOW = StreamFlow("sharing", FromTopic("numbers", Number), Process(same), IntoTopic("out"))


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n, partition=n % 4) for n in values))


def written(bootstrap: str) -> list[int]:
    return sorted(int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"])


@pytest.mark.both_engines
@pytest.mark.parametrize(("delivery", "workers"), [("at_least_once", 2), ("at_most_once", 1), (None, 1)])
def test_a_member_reads_every_partition_and_commits_it_before_it_leaves(
    broker: EmbeddedBroker, delivery: str | None, workers: int
) -> None:
    for topic in ("numbers", "out"):
        broker.create_topic(topic)
    config = config_for(
        broker.bootstrap,
        consumer={"delivery": delivery, "membership": "group"},
        runtime={"workers_per_process": workers},
    )
    write(broker.bootstrap, *range(8))
    run_all(FLOW, config, 8)
    assert positions(broker.bootstrap, "numbers") == dict.fromkeys(range(4), 2)
    assert written(broker.bootstrap) == list(range(8))
