"""What the kit says comes out of a flow is what stands on a broker when the runner has run it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from loom.streaming import StreamFlow, compile_flow
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import BrokerTopics, StreamingTestRunner
from tests.streaming.testing.flows import FLOWS

#: values of every fate: results, drops, each kind of error, a tombstone, headers, no key
VALUES: list[bytes | None] = [
    *(b'{"n":%d,"country":"%s"}' % (n, country) for n in range(15) for country in (b"ES", b"UK", b"FR")),
    b"no json",
    b'{"n":"text"}',
    None,
    b'{"n":4}',
]

#: flows in which records of several partitions come to have one key
REKEYED = {"steps", "a key policy"}


def _records() -> list[KafkaRecord]:
    return [
        KafkaRecord(
            "raw",
            None if index % 5 == 0 else b"%d" % (index % 4),
            value,
            {"trace": b"t%d" % index} if index % 3 == 0 else {},
            timestamp_ms=1_700_000_000_000 + index,
        )
        for index, value in enumerate(VALUES)
    ]


def _topics(flow: StreamFlow[Any, Any]) -> set[str]:
    config = {
        "kafka": {"consumer": {"brokers": ["none:1"], "group_id": "g"}, "producer": {"brokers": ["none:1"]}},
    }
    return {output.topic for output in compile_flow(flow, config=config).topics()}


def _comparable(records: Iterable[KafkaRecord]) -> list[tuple[Any, ...]]:
    """What of a record does not hang on the partition that it was given."""
    shown = [(_time(r), r.value or b"", r.value is None, r.key or b"", r.headers.pairs) for r in records]  # type: ignore[attr-defined]
    return sorted(shown)


def _time(record: KafkaRecord) -> int | None:
    """Dead letters are dated when they are written, and tell the time of what they were."""
    original = record.headers.get("x-error-timestamp")
    return record.timestamp_ms if original is None else int(original)


def _in_order(records: Iterable[KafkaRecord]) -> dict[bytes, list[tuple[Any, ...]]]:
    """The records of each key in order: they come from one partition, and keep their order."""
    by_key: dict[bytes, list[tuple[Any, ...]]] = {}
    for record in records:
        if record.key is not None:
            by_key.setdefault(record.key, []).append((_time(record), record.value))
    return by_key


@pytest.mark.parametrize("name", FLOWS)
def test_what_is_written_is_what_the_runner_writes_to_a_broker(name: str, loom_topics: BrokerTopics) -> None:
    flow = FLOWS[name]
    topics = _topics(flow)
    loom_topics.create("raw", *topics)
    loom_topics.produce_records(_records())
    # As the source reads them, so that dead letters name the same places.
    given = loom_topics.read("raw")
    assert len(given) == len(VALUES)

    ran = loom_topics.run(flow, inputs=len(given))
    kit = StreamingTestRunner.from_flow(flow).with_records(given).run()

    for topic in topics:
        read, written = loom_topics.read(topic), kit.written(topic)
        assert _comparable(written) == _comparable(read)
        if name not in REKEYED:
            assert _in_order(written) == _in_order(read)
    assert (kit.counts.drops, kit.counts.errors) == (ran.drops, ran.errors)
    assert (kit.counts.read, kit.counts.written, kit.counts.dropped) == (ran.read, ran.written, ran.dropped)
    assert kit.counts.failed == ran.failed
    assert kit.counts.outputs == ran.outputs
    assert kit.counts.durable == ran.durable


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_is_left_out_of_the_account(name: str) -> None:
    kit = StreamingTestRunner.from_flow(FLOWS[name]).with_records(_records()).run()
    assert kit.counts.read == kit.counts.accounted == len(VALUES)
    messages = [*kit.output, *(m for path in kit.plan.terminal_sinks for m in kit.terminal(path))]
    routed = sum(len(envelopes) for envelopes in kit.errors.values())
    assert len(messages) + routed == sum(kit.counts.outputs.values())
