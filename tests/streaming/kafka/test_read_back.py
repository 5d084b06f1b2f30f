"""A dead letter read back tells what the failure told, the child's index included, also one written before there was an index."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loom.streaming import ErrorEnvelope, ErrorKind
from loom.streaming.kafka import KafkaRecord
from loom.streaming.kafka.dead_letter import dead_letter_writer
from loom.streaming.kafka.read_back import dead_letter_reader
from loom.streaming.kafka.settings import WireFormat
from tests.streaming.orders import Order

FAILURE: ErrorEnvelope[Any] = ErrorEnvelope(
    ErrorKind.TASK,
    "too small",
    None,
    None,
    "orders.price",
    (0, 1),
    "builtins.ValueError",
    KafkaRecord("orders.raw", b"k", b"?", {}, 3, 7, 99),
    "2.0",
)


@pytest.mark.parametrize("written", [WireFormat.JSON, WireFormat.ENVELOPE])
def test_it_is_what_was_written(written: WireFormat) -> None:
    record = dead_letter_writer(written)(FAILURE, "orders")
    found = dead_letter_reader(Order, None)(record)
    assert (found.kind, found.step_id, found.path, found.index) == (ErrorKind.TASK, "orders.price", (0, 1), "2.0")
    assert found.source is not None
    assert (found.source.topic, found.source.partition, found.source.offset) == ("orders.raw", 3, 7)


def test_an_envelope_without_an_index_is_read_as_one() -> None:
    record = dead_letter_writer(WireFormat.ENVELOPE)(FAILURE, "orders")
    fields = msgspec.msgpack.decode(record.value or b"")
    assert fields.pop("index") == "2.0"
    del fields["at"]
    older = msgspec.structs.replace(record, value=msgspec.msgpack.encode(fields), headers={})
    assert (older.value or b"")[:1] == b"\x88"
    found = dead_letter_reader(Order, None)(older)
    assert (found.step_id, found.index) == ("orders.price", "")
