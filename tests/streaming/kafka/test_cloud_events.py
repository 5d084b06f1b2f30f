"""CloudEvents in headers: read where ours say nothing, written beside what `headers` says, with ids that stay the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from loom.core.model import LoomFrozenStruct
from loom.streaming import (
    ExpandStep,
    FromMultiTypeTopic,
    FromTopic,
    IntoTopic,
    Message,
    Process,
    RecordStep,
    StreamFlow,
    step,
)
from loom.streaming.kafka import KafkaRecord
from loom.streaming.testing import StreamingTestRunner
from tests.streaming.kafka.records import SPAN, TRACE, TRACEPARENT


class Placed(LoomFrozenStruct):
    __loom_message_type__ = "shop.placed"

    id: int


class Cancelled(LoomFrozenStruct):
    __loom_message_type__ = "shop.cancelled"

    id: int


@step
def keep(event: Placed | Cancelled) -> Placed | Cancelled:
    return event


@step
def accept(event: Placed) -> Placed:
    return event


class Twice(ExpandStep[Placed, Placed]):
    def execute(self, message: Message[Placed]) -> Iterable[Placed]:
        return [message.payload, message.payload]


def written(flow: StreamFlow[Any, Any], *records: KafkaRecord, **producer: Any) -> list[dict[str, bytes]]:
    config = {"kafka": {"producers": {"out": {"cloudevents": True, **producer}}}}
    runner = StreamingTestRunner.from_flow(flow, config).with_records(records).run()
    return [dict(record.headers) for record in runner.written("out")]


def record(*headers: tuple[str, bytes], time_ms: int | None = 1_700_000_000_123) -> KafkaRecord:
    return KafkaRecord("in", None, b'{"id":7}', dict(headers), 2, 40, time_ms)


SINGLE = StreamFlow("shop", FromTopic("in", Placed), Process(accept), IntoTopic("out", Placed))


def test_an_event_has_what_the_specification_requires() -> None:
    (headers,) = written(SINGLE, record())
    assert headers.pop("x-message-type") == b"shop.placed"
    headers.pop("x-message-version")
    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"in:2:40",
        "ce_source": b"/shop.output",
        "ce_type": b"shop.placed",
        "ce_time": b"2023-11-14T22:13:20.123Z",
        "content-type": b"application/json",
    }


def test_headers_none_leaves_those_of_the_event_alone() -> None:
    (headers,) = written(SINGLE, record(("own", b"1"), time_ms=None), headers="none")
    assert set(headers) == {"ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"}


def test_an_event_that_comes_in_goes_out_as_another_one_and_keeps_its_extensions() -> None:
    (headers,) = written(SINGLE, record(("ce_id", b"theirs"), ("ce_type", b"their.type"), ("ce_own", b"x")))
    assert headers["ce_id"] == b"in:2:40"
    assert headers["ce_type"] == b"shop.placed"
    assert headers["ce_own"] == b"x"


def test_children_of_one_record_have_ids_of_their_own_that_are_the_same_each_time() -> None:
    flow = StreamFlow("shop", FromTopic("in", Placed), Process(Twice), IntoTopic("out", Placed))
    for _ in range(2):
        assert [headers["ce_id"] for headers in written(flow, record())] == [b"in:2:40/0", b"in:2:40/1"]


@pytest.mark.parametrize("own", [None, b"shop.cancelled"])
def test_the_type_of_an_event_tells_a_source_of_several_types_what_it_reads(own: bytes | None) -> None:
    flow = StreamFlow("shop", FromMultiTypeTopic("in", (Placed, Cancelled)), Process(keep), IntoTopic("out"))
    ours = [("x-message-type", own)] if own is not None else []
    (headers,) = written(flow, record(*ours, ("ce_type", b"shop.placed")))
    assert headers["ce_type"] == (own or b"shop.placed")


def test_the_extensions_for_correlation_and_tracing_become_metadata() -> None:
    seen: list[Message[Placed]] = []

    class Look(RecordStep[Placed, Placed]):
        def execute(self, message: Message[Placed]) -> Placed:
            seen.append(message)
            return message.payload

    flow = StreamFlow("shop", FromTopic("in", Placed), Process(Look), IntoTopic("out", Placed))
    came = record(
        ("ce_correlationid", b"c"),
        ("ce_causationid", b"d"),
        ("ce_traceparent", TRACEPARENT),
        ("ce_type", b"shop.placed"),
    )
    (headers,) = written(flow, came)
    meta = seen[0].meta
    assert (meta.correlation_id, meta.causation_id, meta.trace_id, meta.parent_trace_id) == ("c", "d", TRACE, SPAN)
    assert meta.message_type == "shop.placed"
    # What the headers say already is not said again under another name.
    assert not {"x-correlation-id", "x-causation-id", "x-trace-id"} & set(headers)


def test_without_the_setting_no_event_is_written() -> None:
    runner = StreamingTestRunner.from_flow(SINGLE).with_records([record()]).run()
    assert not any(name.startswith("ce_") for name in dict(runner.written("out")[0].headers))
