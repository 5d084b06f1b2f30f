"""An error is data that can be compared, read and sent on."""

from __future__ import annotations

import pytest

from loom.core.errors import LoomError
from loom.streaming import ErrorEnvelope, ErrorKind, ErrorMessage, ErrorMessageMeta, LoomStreamingError
from loom.streaming.kafka import KafkaRecord


@pytest.mark.parametrize("value", ["wire", "routing", "task", "business"])
def test_a_kind_is_its_text(value: str) -> None:
    assert ErrorKind(value) == value
    assert ErrorKind[value.upper()].value == value


def test_there_are_four_kinds() -> None:
    assert len(ErrorKind) == 4


def test_an_envelope_needs_a_kind_and_a_reason_alone() -> None:
    envelope = ErrorEnvelope[object](ErrorKind.WIRE, "no JSON")
    assert (envelope.payload_type, envelope.original_message, envelope.step_id) == (None, None, None)
    assert (envelope.path, envelope.error_type, envelope.source) == ((), None, None)


def test_an_envelope_holds_the_message_and_the_record() -> None:
    original = ErrorMessage(7, ErrorMessageMeta("orders:0:1", b"k", {"a": b"1"}, "orders", 0, 1))
    record = KafkaRecord("orders", b"k", b"7", {"a": b"1"}, 0, 1, 99)
    envelope = ErrorEnvelope(ErrorKind.TASK, "too small", "int", original, "f.s", (0, 2), "ValueError", record)
    assert envelope.original_message is not None
    assert envelope.original_message.payload == 7
    assert envelope.source == record


def test_our_errors_have_one_root() -> None:
    assert issubclass(LoomStreamingError, LoomError)
    assert issubclass(LoomError, Exception)
