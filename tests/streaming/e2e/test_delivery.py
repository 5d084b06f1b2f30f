"""What each delivery promises, on a broker: when a position is confirmed, and what the next run reads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    Fork,
    FromTopic,
    IntoTopic,
    Process,
    StreamFlow,
    StreamingRunner,
    step,
)
from loom.streaming.bytewax import UnroutedRecordError
from loom.streaming.kafka import EmbeddedBroker, KafkaRecord
from tests.support.running import all_done, config_for, content, positions, produce, run_all, run_until

pytestmark = pytest.mark.both_engines


class Number(LoomFrozenStruct):
    n: int


@step
def same(number: Number) -> Number:
    return number


@step
def below_hundred(number: Number) -> Number:
    if number.n >= 100:
        raise ValueError("too much")
    return number


@step
def nothing(number: Number) -> Number | None:
    return None


def flow(*nodes: Any, **more: Any) -> StreamFlow[Any, Any]:
    return StreamFlow(
        "delivering", FromTopic("numbers", Number), Process(*(nodes or (same,))), IntoTopic("out"), **more
    )


@pytest.fixture
def bootstrap(broker: EmbeddedBroker) -> str:
    for topic in ("numbers", "out", "errors"):
        broker.create_topic(topic)
    return broker.bootstrap


def write(bootstrap: str, *values: int) -> None:
    """Each to the partition that its remainder names."""
    produce(
        bootstrap,
        "numbers",
        *(KafkaRecord("numbers", b"%d" % n, b'{"n":%d}' % n, partition=n % 4) for n in values),
    )


def written(bootstrap: str, topic: str = "out") -> Counter[int]:
    return Counter(int((record.value or b"")[5:-1]) for record in content(bootstrap, topic)[topic])


EVERY_DELIVERY = pytest.mark.parametrize(
    "consumer",
    [
        {"delivery": "at_least_once"},
        {"delivery": "at_most_once"},
        {"enable_auto_commit": False},
        {},
    ],
    ids=["at-least-once", "at-most-once", "auto-commit-off", "auto-commit"],
)


@EVERY_DELIVERY
def test_after_an_orderly_stop_the_next_run_reads_on_without_a_gap_or_a_repetition(
    bootstrap: str, consumer: dict[str, Any]
) -> None:
    config = config_for(bootstrap, consumer=consumer)
    write(bootstrap, *range(40))
    run_all(flow(), config, 40)
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 10)
    write(bootstrap, *range(40, 60))
    run_all(flow(), config, 20)
    assert written(bootstrap) == Counter(range(60))
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 15)


@pytest.mark.parametrize("consumer", [{"delivery": "at_least_once"}, {"enable_auto_commit": False}])
def test_at_least_once_confirms_each_epoch_while_it_runs(bootstrap: str, consumer: dict[str, Any]) -> None:
    write(bootstrap, *range(8))
    runner = StreamingRunner.from_dict(flow(), config_for(bootstrap, consumer=consumer))
    # The run is stopped only after the positions are there.
    run_until(runner, lambda _: sum(positions(bootstrap, "numbers").values()) == 8)
    assert written(bootstrap) == Counter(range(8))


@pytest.mark.parametrize("failing", ["positions-kept", "positions-moved"])
def test_a_failed_run_repeats_under_at_least_once_and_skips_under_at_most_once(bootstrap: str, failing: str) -> None:
    delivery = "at_least_once" if failing == "positions-kept" else "at_most_once"
    config = config_for(bootstrap, consumer={"delivery": delivery})
    write(bootstrap, 0, 4, 100, 8)
    with pytest.raises(UnroutedRecordError, match=r"numbers\[0\]@2"):
        StreamingRunner.from_dict(flow(below_hundred), config).run()
    assert positions(bootstrap, "numbers")[0] == (0 if delivery == "at_least_once" else 4)
    write(bootstrap, 12)
    seen = []

    @step
    def look(number: Number) -> Number:
        seen.append(number.n)
        return number

    run_all(flow(look), config, 5 if delivery == "at_least_once" else 1)
    assert seen == ([0, 4, 100, 8, 12] if delivery == "at_least_once" else [12])


def test_under_at_most_once_a_position_is_confirmed_before_its_record_is_worked_on(bootstrap: str) -> None:
    write(bootstrap, 0, 4, 8)
    found = []

    @step
    def look(number: Number) -> Number:
        found.append(positions(bootstrap, "numbers")[0])
        return number

    run_all(flow(look), config_for(bootstrap, consumer={"delivery": "at_most_once"}), 3)
    assert found == [3, 3, 3]


def test_under_at_least_once_a_position_is_not_confirmed_before_its_record_is_written(bootstrap: str) -> None:
    write(bootstrap, 0, 4, 8)
    found = []

    @step
    def look(number: Number) -> Number:
        found.append((number.n, positions(bootstrap, "numbers")[0], sum(written(bootstrap).values())))
        return number

    config = config_for(bootstrap, consumer={"delivery": "at_least_once", "batch_size": 1})
    run_all(flow(look), config, 3)
    assert all(confirmed <= durable for _, confirmed, durable in found)


@pytest.mark.parametrize("how", ["dropped", "failed", "unrouted"])
def test_positions_move_though_nothing_is_written_to_the_output(bootstrap: str, how: str) -> None:
    declared = {
        "dropped": flow(nothing),
        "failed": flow(below_hundred, errors=IntoTopic("errors")),
        "unrouted": flow(below_hundred, unrouted="drop"),
    }[how]
    write(bootstrap, *range(100, 108))
    run_all(declared, config_for(bootstrap, consumer={"delivery": "at_least_once"}), 8)
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 2)
    assert written(bootstrap) == Counter()
    assert len(content(bootstrap, "errors")["errors"]) == (8 if how == "failed" else 0)


def test_an_idle_run_leaves_the_positions_where_they_are(bootstrap: str) -> None:
    config = config_for(bootstrap, consumer={"delivery": "at_least_once"})
    write(bootstrap, *range(8))
    run_all(flow(), config, 8)
    run_all(flow(), config, 0)
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 2)
    assert written(bootstrap) == Counter(range(8))


def test_every_output_of_a_flow_counts_for_its_position(bootstrap: str, broker: EmbeddedBroker) -> None:
    broker.create_topic("odd")

    def parity(number: Number) -> int:
        return number.n % 2

    fork = Fork.by(parity, {0: Process(IntoTopic("out")), 1: Process(IntoTopic("odd"))})
    forked = StreamFlow("delivering", FromTopic("numbers", Number), Process(fork))
    write(bootstrap, *range(20))
    counts = run_all(forked, config_for(bootstrap, consumer={"delivery": "at_least_once"}), 20)
    assert (written(bootstrap), written(bootstrap, "odd")) == (Counter(range(0, 20, 2)), Counter(range(1, 20, 2)))
    assert counts.outputs == {"out": 10, "odd": 10}
    assert positions(bootstrap, "numbers") == dict.fromkeys(range(4), 5)


def test_two_groups_read_each_for_itself(bootstrap: str) -> None:
    write(bootstrap, *range(4))
    for group in ("one", "two"):
        run_all(flow(), config_for(bootstrap, consumer={"delivery": "at_least_once", "group_id": group}), 4)
    assert written(bootstrap) == Counter(list(range(4)) * 2)


def test_records_of_a_partition_stay_in_order(bootstrap: str) -> None:
    write(bootstrap, *range(200))
    run_all(flow(), config_for(bootstrap, consumer={"delivery": "at_least_once", "batch_size": 7}), 200)
    by_key: dict[int, list[int]] = {}
    for record in content(bootstrap, "out")["out"]:
        number = int((record.value or b"")[5:-1])
        by_key.setdefault(record.partition, []).append(number)
    for lane in by_key.values():
        for source in range(4):
            found = [n for n in lane if n % 4 == source]
            assert found == sorted(found)


def test_an_unknown_number_of_empty_polls_is_no_harm(bootstrap: str) -> None:
    """Records that come while the flow runs and idles are read like those that stood there at its start."""
    runner = StreamingRunner.from_dict(flow(), config_for(bootstrap, consumer={"delivery": "at_least_once"}))
    sent = []

    def done(counts: Any) -> bool:
        if len(sent) < 3 and counts.accounted == len(sent) and counts.durable == len(sent):
            sent.append(len(sent))
            write(bootstrap, sent[-1])
        return all_done(3)(counts)

    run_until(runner, done)
    assert written(bootstrap) == Counter([0, 1, 2])
