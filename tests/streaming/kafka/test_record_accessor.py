"""An accessor reads a source's own objects and makes metadata or a record of them only on request."""

from __future__ import annotations

from operator import attrgetter

import msgspec
import pytest

from loom.streaming import Message, MessageMeta
from loom.streaming.kafka import Headers, KafkaRecord
from loom.streaming.kafka.record_accessor import RECORDS, RecordAccessor
from loom.streaming.record import TopicPartitionOffset

RECORD = KafkaRecord("orders", b"k", b"v", Headers([("a", b"1"), ("x-trace-id", b"t"), ("a", None)]), 3, 7, 99)

#: messages that a source of the author's own yields: there are no bytes, unless somebody encodes them
MESSAGES = RecordAccessor(
    value=lambda message: None,
    key=attrgetter("meta.key"),
    headers=attrgetter("meta.headers"),
    timestamp=lambda message: message.meta.produced_at_ms or 0,
    place=lambda message: TopicPartitionOffset(None, None, None),
    encoded=lambda message: message.payload.encode(),
)


@pytest.mark.parametrize("record", [RECORD, KafkaRecord("orders", None, None, Headers())])
def test_a_record_is_given_back_as_it_was_read(record: KafkaRecord) -> None:
    assert RECORDS.record(record) == record


def test_headers_are_given_back_as_pairs_in_whichever_form_they_came() -> None:
    assert RECORDS.pairs(RECORD) == (("a", b"1"), ("x-trace-id", b"t"), ("a", None))
    assert RECORDS.pairs(msgspec.structs.replace(RECORD, headers={"a": b"1"})) == (("a", b"1"),)
    assert RECORDS.pairs(msgspec.structs.replace(RECORD, headers={})) == ()


def test_metadata_tells_where_a_record_stands_and_what_its_headers_say() -> None:
    meta = RECORDS.meta(RECORD)
    assert (meta.message_id, meta.topic, meta.partition, meta.offset) == ("orders:3:7", "orders", 3, 7)
    assert (meta.key, meta.produced_at_ms, meta.trace_id, meta.headers) == (b"k", 99, "t", RECORD.headers)


def test_a_message_that_never_was_bytes_is_encoded_for_its_dead_letter() -> None:
    message = Message("text", MessageMeta("m", produced_at_ms=5, key=b"k", headers=Headers([("a", b"1")])))
    assert MESSAGES.record(message) == KafkaRecord("", b"k", b"text", Headers([("a", b"1")]), timestamp_ms=5)
