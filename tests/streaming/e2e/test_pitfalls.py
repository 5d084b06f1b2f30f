"""How systems of this kind confirm too early, freeze or leak, on a broker; each test is named after what happened elsewhere.

What has a place of its own is tested there: commits and the group in `test_confirming`, faults of the client in
`test_consumer`, waiting records in `stages/test_waiting`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.core.observability import EventKind, LifecycleEvent, ObservabilityRuntime, Scope
from loom.streaming import (
    ErrorKind,
    ExpandStep,
    Fork,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.bytewax import BytewaxRuntimeConfig
from loom.streaming.kafka import BrokerUnavailableError, CommitError, DeliveryFailedError, EmbeddedBroker, KafkaRecord
from loom.streaming.kafka.consumer import ConsumerClient
from loom.streaming.kafka.group_offsets import GroupOffsets
from loom.streaming.kafka.producer import TopicWriter
from tests.support.running import QUICK, all_done, config_for, content, keeping, positions, produce, run_all, run_until
from tests.support.waiting import LONG_S

pytestmark = pytest.mark.both_engines


class Number(LoomFrozenStruct):
    n: int


class Thrice(ExpandStep[Number, Number]):
    def execute(self, message: Message[Number]) -> Iterable[Number]:
        return [Number(message.payload.n * 10 + index) for index in range(3)]


@step
def same(number: Number) -> Number:
    return number


@step
def refused(number: Number) -> Number:
    raise ValueError("no")


def flow(*nodes: Any, **more: Any) -> StreamFlow[Any, Any]:
    options = {"output": IntoTopic("out"), **more}
    return StreamFlow("falling", FromTopic("numbers", Number), Process(*(nodes or (same,))), **options)


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    return broker.bootstrap


def config(bootstrap: str, **extra: Any) -> dict[str, Any]:
    return config_for(bootstrap, consumer={"delivery": "at_least_once"}, producer={"extra": {**QUICK, **extra}})


def write(bootstrap: str, *values: int) -> None:
    produce(bootstrap, "numbers", *(KafkaRecord("numbers", None, b'{"n":%d}' % n) for n in values))


class HeldBack:
    """Lets the first flush of the producers pass only when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flushing, self.go_on = threading.Event(), threading.Event()
        flush = TopicWriter.flush

        def held(writer: TopicWriter) -> int:
            self.flushing.set()
            assert self.go_on.wait(LONG_S)
            return flush(writer)

        monkeypatch.setattr(TopicWriter, "flush", held)


@pytest.mark.parametrize(
    ("declared", "topic", "results"),
    [
        # A record expanded to several results was confirmed when the first of them was written.
        (flow(Thrice), "out", 6),
        # A record diverted to a dead-letter topic was confirmed though that write was neither flushed nor checked.
        (flow(refused, errors=IntoTopic("errors")), "errors", 2),
    ],
    ids=["expanded", "dead-lettered"],
)
def test_nothing_is_confirmed_before_every_result_of_its_record_is_flushed(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch, declared: StreamFlow[Any, Any], topic: str, results: int
) -> None:
    held = HeldBack(monkeypatch)
    write(bootstrap, 1, 2)
    found = []

    def look() -> None:
        assert held.flushing.wait(LONG_S)
        found.append(positions(bootstrap, "numbers")[0])
        held.go_on.set()

    looker = threading.Thread(target=look)
    looker.start()
    run_all(declared, config(bootstrap), 2)
    looker.join()
    assert found == [0]
    assert len(content(bootstrap, topic)[topic]) == results
    assert positions(bootstrap, "numbers")[0] == 2


@pytest.mark.parametrize("topic", ["out", "errors"])
def test_a_write_that_fails_is_noticed_and_nothing_is_confirmed(bootstrap: str, topic: str) -> None:
    """Also that of a dead letter. The client refuses what is larger than it may send."""
    write(bootstrap, 1)
    produce(bootstrap, "numbers", b'{"n":2' + b" " * 3_000 + b"}")
    declared = flow(refused if topic == "errors" else same, errors=IntoTopic("errors"))
    if topic == "out":
        declared = flow(errors=IntoTopic("errors"))
        produce(bootstrap, "numbers", KafkaRecord("numbers", b"k" * 3_000, b'{"n":3}'))
    runner = StreamingRunner.from_dict(declared, config(bootstrap, **{"message.max.bytes": 2_000}))
    with pytest.raises(DeliveryFailedError, match=topic):
        # In one epoch: what a busy machine writes in an earlier one is committed, and rightly so.
        runner.run(runtime=BytewaxRuntimeConfig(epoch_interval_ms=3_600_000))
    assert positions(bootstrap, "numbers")[0] == 0


def test_what_flush_leaves_is_not_ignored(bootstrap: str, broker: EmbeddedBroker) -> None:
    """With the broker away the flow must not end normally with nothing delivered."""
    write(bootstrap, 1, 2)

    @step
    def lonely(number: Number) -> Number:
        if number.n == 1:
            broker.close()
        return number

    with pytest.raises(BrokerUnavailableError, match="not delivered"):
        run_until(
            StreamingRunner.from_dict(flow(lonely), config(bootstrap, **{"message.timeout.ms": 700})),
            lambda _: False,
        )


def test_a_full_queue_is_no_delivery_error_but_makes_the_source_wait(bootstrap: str) -> None:
    write(bootstrap, *range(300))
    run_all(flow(), config(bootstrap, **{"queue.buffering.max.messages": 3}), 300)
    found = [int((record.value or b"")[5:-1]) for record in content(bootstrap, "out")["out"]]
    assert sorted(found) == list(range(300))


def test_undecodable_records_do_not_vanish_when_no_route_takes_them(bootstrap: str) -> None:
    produce(bootstrap, "numbers", b"{")
    counts = run_all(flow(unrouted="drop"), config(bootstrap), 1)
    assert counts.failed == {ErrorKind.WIRE: 1}
    assert positions(bootstrap, "numbers")[0] == 1


@pytest.mark.parametrize("how", ["tombstone", "no-branch", "dropping-sink"])
def test_no_kind_of_record_holds_its_position_for_ever(bootstrap: str, how: str) -> None:
    write(bootstrap, 1)
    declared, more = flow(), {}
    if how == "tombstone":
        produce(bootstrap, "numbers", KafkaRecord("numbers", b"k", None))
    elif how == "no-branch":
        declared = flow(Fork.by(lambda number: number.n, {7: Process(IntoTopic("out"))}), output=None, unrouted="drop")
    else:
        # A sink of the user's that takes no part in anything.
        declared, more = flow(refused), {"error_sinks": {kind: keeping([]) for kind in ErrorKind}}
    inputs = 2 if how == "tombstone" else 1
    run_all(declared, config(bootstrap), inputs, **more)
    assert positions(bootstrap, "numbers")[0] == inputs


@pytest.mark.parametrize("fault", [CommitError("too late"), RuntimeError("of the client's")])
def test_a_failing_final_commit_does_not_skip_closing_the_consumer(
    bootstrap: str, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    write(bootstrap, 1, 2, 3)
    seen: list[LifecycleEvent] = []
    closed: list[ConsumerClient] = []

    class Recorder:
        def on_event(self, event: LifecycleEvent) -> None:
            if event.scope is Scope.TRANSPORT:
                seen.append(event)

    runner = StreamingRunner.from_dict(
        flow(), config(bootstrap), observability_runtime=ObservabilityRuntime([Recorder()])
    )
    answers, close = GroupOffsets.commit_answers, ConsumerClient.close

    def failing(group: GroupOffsets) -> Any:
        if runner._prepared is not None and runner._prepared.built.state.stop.requested:
            raise fault
        return answers(group)

    def noted(reader: ConsumerClient) -> None:
        closed.append(reader)
        close(reader)

    monkeypatch.setattr(GroupOffsets, "commit_answers", failing)
    monkeypatch.setattr(ConsumerClient, "close", noted)
    with pytest.raises(Exception, match=str(fault)):
        run_until(runner, all_done(3))
    assert len(closed) == 1
    opened = [event.name for event in seen if event.kind is EventKind.START]
    assert sorted(opened) == sorted(event.name for event in seen if event.kind is EventKind.END)
