"""Dead letters as an operator looks at them: what failed, where and why, and the record that it was.

Reads those of Loom (headers, or a whole `ErrorEnvelope`), of Kafka Streams (KIP-1034) and of Kafka Connect (KIP-298). No
client is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from loom.core.model import LoomFrozenStruct
from loom.streaming.errors import ErrorEnvelope, ErrorMessage
from loom.streaming.formats.registry import WireFormat, find_format
from loom.streaming.headers import Headers
from loom.streaming.kafka.read_back import NoDeadLetterError, dead_letter_reader
from loom.streaming.kafka.record_headers import (
    ERROR_COUNT,
    ERROR_HEADER_PREFIX,
    REPLAY_PREFIX,
    REPLAY_STEP,
    whole_number,
)
from loom.streaming.record import KafkaRecord

__all__ = ["DeadLetter", "letter_reader", "replayed_headers"]

_STREAMS, _CONNECT = "__streams.errors.", "__connect.errors."


class DeadLetter(LoomFrozenStruct):
    """One dead letter."""

    #: where it is, as it is
    record: KafkaRecord
    #: who wrote it: `loom`, `kafka streams`, `kafka connect`; `unknown` for a record that says nothing
    written_by: str
    #: the record that failed, without what was said of the failure
    original: KafkaRecord
    kind: str | None = None
    step: str | None = None
    path: tuple[int, ...] = ()
    reason: str = ""
    error_type: str | None = None
    #: `file:line` that raised
    at: str | None = None
    flow: str | None = None
    #: which child of the record failed, after an expansion
    index: str = ""
    #: how often the record has failed
    count: int = 1
    stack: str | None = None
    #: what the failing step was given, where the letter is a whole envelope that holds it
    message: ErrorMessage[Any] | None = None
    #: the step that the record had entered, where it was replayed into one: its bytes are what that step takes
    entered: str | None = None


def letter_reader(payload_of: Callable[[str | None], Any] = lambda _: Any) -> Callable[[KafkaRecord], DeadLetter]:
    """What reads one dead letter.

    `payload_of` names the payload type that a step takes, as which the message in a whole envelope is decoded.
    """
    # What the original bytes hold is not asked here: of a letter that is not whole they are the record as it was read.
    from_headers = dead_letter_reader((bytes,), "bytes")
    whole = find_format(WireFormat.ENVELOPE).whole_errors
    assert whole is not None

    def opened(value: bytes) -> ErrorEnvelope[Any] | None:
        """The whole envelope in these bytes, if they hold one; bytes of another format may begin as one does."""
        if not whole.recognises(value):
            return None
        try:
            step = whole.open(value, lambda _, __: None).step_id
            decode = whole.payload_decoder(payload_of(step), None)
            return whole.open(value, lambda found, _: decode(found))
        except (msgspec.MsgspecError, ValueError):
            return None

    def read(record: KafkaRecord) -> DeadLetter:
        headers = Headers.of(record.headers)
        envelope = opened(record.value) if record.value is not None else None
        if envelope is not None:
            return _of_loom(record, headers, envelope, envelope.original_message)
        if ERROR_HEADER_PREFIX + "kind" not in headers and any(
            name.startswith((_STREAMS, _CONNECT)) for name in headers
        ):
            return _of_kafka(record, headers)
        try:
            return _of_loom(record, headers, from_headers(record), None)
        except NoDeadLetterError:
            return DeadLetter(record, "unknown", record)

    return read


def _of_loom(
    record: KafkaRecord, headers: Headers, envelope: ErrorEnvelope[Any], message: ErrorMessage[Any] | None
) -> DeadLetter:
    original = envelope.source or record
    entered = Headers.of(original.headers).get(REPLAY_STEP)
    return DeadLetter(
        record,
        "loom",
        original,
        envelope.kind.value,
        envelope.step_id,
        envelope.path,
        envelope.reason,
        envelope.error_type,
        envelope.at,
        _text(headers, ERROR_HEADER_PREFIX + "flow"),
        envelope.index,
        whole_number(headers.get(ERROR_COUNT) or b"") or 1,
        None,
        message,
        entered.decode("utf-8", "replace") if entered is not None else None,
    )


def _of_kafka(record: KafkaRecord, headers: Headers) -> DeadLetter:
    connect = any(name.startswith(_CONNECT) for name in headers)
    prefix = _CONNECT if connect else _STREAMS

    def said(name: str) -> str | None:
        return _text(headers, prefix + name)

    kept = [pair for pair in headers.pairs if not pair[0].startswith((_STREAMS, _CONNECT))]
    partition, offset = (whole_number(headers.get(prefix + name) or b"") for name in ("partition", "offset"))
    original = KafkaRecord(
        said("topic") or "", record.key, record.value, Headers(kept), partition, offset, record.timestamp_ms
    )
    count = whole_number(headers.get(ERROR_COUNT) or b"") or 1
    if not connect:
        return DeadLetter(
            record,
            "kafka streams",
            original,
            reason=said("message") or "",
            error_type=said("exception"),
            count=count,
            stack=said("stacktrace"),
        )
    return DeadLetter(
        record,
        "kafka connect",
        original,
        (said("stage") or "").lower() or None,
        said("class.name"),
        (),
        said("exception.message") or "",
        said("exception.class.name"),
        None,
        said("connector.name"),
        count=count,
        stack=said("exception.stacktrace"),
    )


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return value.decode("utf-8", "replace") if value is not None else None


def replayed_headers(letter: DeadLetter, replay: Mapping[str, bytes]) -> Headers:
    """The headers that a replayed record has: the original ones, how often it has failed, and what the replay says."""
    gone = (ERROR_HEADER_PREFIX, REPLAY_PREFIX)
    kept = [pair for pair in Headers.of(letter.original.headers).pairs if not pair[0].startswith(gone)]
    return Headers([*kept, (ERROR_COUNT, b"%d" % letter.count), *replay.items()])
