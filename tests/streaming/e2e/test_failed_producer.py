"""A producer that has failed for good ends no run under at-least-once: another one writes what it could not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError

from loom.cli.exit_codes import Exit, exit_for
from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    CollectBatch,
    ForEach,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    StreamingRunner,
)
from loom.streaming.kafka import KafkaRecord, ProducerFailedError
from tests.support.refusing_broker import PRODUCE, RefusingBroker
from tests.support.running import config_for, content, positions, produce, run_until
from tests.support.waiting import LONG_S

pytestmark = pytest.mark.both_engines

#: what the broker says when it has lost its place in what an idempotent producer writes
LOST_PLACE = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER


class Number(LoomFrozenStruct):
    n: int


class Refused(RecordStep[Number, Number]):
    """Passes numbers on. From `at` on, once `armed`, the broker refuses what is written next, as often as `times` says."""

    def __init__(self, broker: RefusingBroker, at: int, times: int = 1) -> None:
        self.broker, self.at, self.times = broker, at, times
        #: set when the input stands there: the client that writes it is not to be refused
        self.armed = threading.Event()
        self.refused = threading.Event()

    def reset(self) -> None:
        """It remembers nothing of what it saw."""

    def execute(self, message: Message[Number]) -> Number:
        number = message.payload
        if number.n >= self.at and not self.refused.is_set():
            assert self.armed.wait(LONG_S)
            self.refused.set()
            self.broker.refuse(PRODUCE, LOST_PLACE, self.times)
        return number


class Counted(RecordStep[Number, Number]):
    """Given as an instance, so that it outlives the attempts of a run."""

    def __init__(self) -> None:
        self.seen = 0

    def execute(self, message: Message[Number]) -> Number:
        self.seen += 1
        return message.payload


@pytest.fixture
def broker() -> Iterator[RefusingBroker]:
    with RefusingBroker() as running:
        for topic in ("numbers", "out"):
            running.create_topic(topic, 4)
        yield running


def flow(*nodes: Any) -> StreamFlow[Any, Any]:
    return StreamFlow("failing", FromTopic("numbers", Number), Process(*nodes), IntoTopic("out"))


def write(broker: RefusingBroker, *values: int) -> None:
    records = (KafkaRecord("numbers", b"%d" % n, b'{"n":%d}' % n, partition=n % 4) for n in values)
    produce(broker.bootstrap, "numbers", *records)


def written(broker: RefusingBroker) -> Counter[int]:
    return Counter(int((record.value or b"")[5:-1]) for record in content(broker.bootstrap, "out")["out"])


def config(broker: RefusingBroker, runtime: dict[str, Any] | None = None, **consumer: Any) -> dict[str, Any]:
    return config_for(
        broker.bootstrap,
        consumer={"delivery": "at_least_once", "auto_offset_reset": "earliest", **consumer},
        runtime=runtime,
    )


def run_through_a_failure(
    broker: RefusingBroker, step: Refused, flow: StreamFlow[Any, Any], config: dict[str, Any], count: int
) -> None:
    """Run until `count` numbers are written and confirmed; the producer fails behind those below `step.at`."""
    write(broker, *range(step.at))
    runner = StreamingRunner.from_dict(flow, config)

    def done(counts: Any) -> bool:
        if not step.armed.is_set():
            if sum(positions(broker.bootstrap, "numbers").values()) == step.at:
                write(broker, *range(step.at, count))
                step.armed.set()
            return False
        return step.refused.is_set() and sum(positions(broker.bootstrap, "numbers").values()) == count

    run_until(runner, done)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("membership", ["fixed", "group"])
def test_a_run_goes_on_with_another_producer_and_repeats_only_what_was_not_durable(
    broker: RefusingBroker, membership: str, workers: int
) -> None:
    refused = Refused(broker, at=100)
    settings = config(broker, {"workers_per_process": workers}, membership=membership, batch_size=20)

    run_through_a_failure(broker, refused, flow(refused), settings, 300)

    found = written(broker)
    assert found.keys() == set(range(300))
    assert {n: often for n, often in found.items() if n < 100 and often > 1} == {}


def test_steps_that_were_given_as_instances_have_seen_nothing_when_a_run_goes_on(broker: RefusingBroker) -> None:
    refused, counted = Refused(broker, at=100), Counted()

    run_through_a_failure(broker, refused, flow(counted, refused), config(broker, batch_size=20), 300)

    assert counted.seen <= 200


def test_what_a_node_keeps_is_read_again(broker: RefusingBroker) -> None:
    refused = Refused(broker, at=100)
    batched = flow(refused, CollectBatch(max_records=7, timeout_ms=50), ForEach())

    run_through_a_failure(broker, refused, batched, config(broker, batch_size=20), 300)

    assert written(broker).keys() == set(range(300))


@pytest.mark.parametrize(
    ("recoveries", "times"), [pytest.param(0, 1, id="not-allowed"), pytest.param(2, 1_000, id="without-progress")]
)
def test_a_run_that_may_not_go_on_any_more_ends_with_what_its_producer_has_failed_with(
    broker: RefusingBroker, recoveries: int, times: int
) -> None:
    refused = Refused(broker, at=100, times=times)
    settings = config(broker, batch_size=20)
    settings["streaming"]["supervision"] = {"recoveries": recoveries}

    with pytest.raises(ProducerFailedError, match="sequence") as ended:
        run_through_a_failure(broker, refused, flow(refused), settings, 300)

    assert exit_for(ended.value) is Exit.RESTART
    assert sum(positions(broker.bootstrap, "numbers").values()) < 300


def test_a_run_that_has_committed_ahead_ends_since_it_could_not_read_again(broker: RefusingBroker) -> None:
    refused = Refused(broker, at=100)

    with pytest.raises(ProducerFailedError):
        run_through_a_failure(broker, refused, flow(refused), config(broker, delivery="at_most_once"), 300)


@pytest.mark.parametrize("membership", ["fixed", "group"])
def test_a_run_that_is_stopped_while_its_producer_fails_leaves_the_rest_to_the_next_one(
    broker: RefusingBroker, membership: str
) -> None:
    refused = Refused(broker, at=100)
    settings = config(broker, membership=membership, batch_size=20)
    write(broker, *range(300))
    refused.armed.set()

    run_until(StreamingRunner.from_dict(flow(refused), settings), lambda _: refused.refused.is_set())
    run_until(
        StreamingRunner.from_dict(flow(Counted()), settings),
        lambda _: sum(positions(broker.bootstrap, "numbers").values()) == 300,
    )

    assert written(broker).keys() == set(range(300))
