"""Dead letters: the record as its source read it, with headers that say what went wrong.

Written by error routes. No client is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from loom.streaming.errors import ErrorEnvelope, ErrorKind
from loom.streaming.formats.format import WholeErrors
from loom.streaming.formats.registry import find_format
from loom.streaming.formats.sealed import CUT, cut
from loom.streaming.headers import HeaderPairs, Headers
from loom.streaming.kafka.limits import record_size
from loom.streaming.kafka.record_headers import ERROR_COUNT, ERROR_HEADER_PREFIX, key_bytes, whole_number
from loom.streaming.record import KafkaRecord, TopicPartitionOffset

__all__ = ["DeadLetterWriter", "HeaderWriter", "dead_letter_writer", "error_headers", "header_writer", "shortened"]

#: (envelope, flow) -> the record to write; its topic is the caller's business
DeadLetterWriter: TypeAlias = Callable[[ErrorEnvelope[Any], str], KafkaRecord]

_REASON = ERROR_HEADER_PREFIX + "reason"
#: Reasons may quote a payload; a header of megabytes would make the dead letter itself too large.
_LONGEST_REASON = 2000


def dead_letter_writer(wire_format: str) -> DeadLetterWriter:
    """How an error topic of this format is written: original bytes, or where it has one of its own, the whole `ErrorEnvelope`."""
    whole = find_format(wire_format).whole_errors
    encode = whole.seal if whole is not None else None

    def write(envelope: ErrorEnvelope[Any], flow: str) -> KafkaRecord:
        source = envelope.source or KafkaRecord("", None, None)
        value = source.value if encode is None else encode(envelope)
        headers = error_headers(envelope, flow)
        # Without a timestamp: one that an output refuses would be refused here too, and the dead letter tells it.
        return KafkaRecord("", key_bytes(source.key), value, headers)

    return write


def error_headers(envelope: ErrorEnvelope[Any], flow: str) -> Headers:
    """The original headers, and what went wrong; the headers of an earlier failure are replaced, their count continues."""
    source = envelope.source or KafkaRecord("", None, None)
    write = header_writer(flow, envelope.kind, envelope.step_id, envelope.path)
    place = TopicPartitionOffset(source.topic, source.partition, source.offset)
    pairs = Headers.of(source.headers).pairs
    return Headers(
        write(
            envelope.reason,
            envelope.error_type,
            envelope.index,
            place,
            source.timestamp_ms,
            pairs,
            envelope.at,
            envelope.attempts,
        )
    )


#: (reason, type of the exception, child index, its position, its timestamp, its headers, the line that raised, the
#: calls that were made under a retry policy) -> headers
HeaderWriter: TypeAlias = Callable[
    [str, str | None, str, TopicPartitionOffset, int | None, HeaderPairs, str | None, int | None], HeaderPairs
]


def header_writer(flow: str, kind: ErrorKind, step_id: str | None, path: tuple[int, ...]) -> HeaderWriter:
    """What writes the headers of failures of one kind at one place; whatever is the same for all is encoded once."""
    kind_pair, flow_pair = _pair("kind", kind.value), _pair("flow", flow)
    step_pairs = () if step_id is None else (_pair("step", step_id),)
    path_pairs = (_pair("path", ".".join(map(str, path))),) if path else ()

    def write(
        reason: str,
        error_type: str | None,
        index: str,
        place: TopicPartitionOffset,
        timestamp_ms: int | None,
        original: HeaderPairs,
        at: str | None,
        attempts: int | None,
    ) -> HeaderPairs:
        told: list[tuple[str, bytes | None]] = []
        count = 0
        for pair in original:
            if not pair[0].startswith(ERROR_HEADER_PREFIX):
                told.append(pair)
            elif pair[0] == ERROR_COUNT:
                count = whole_number(pair[1] or b"") or 0
        told.append(kind_pair)
        if reason:
            told.append(_pair("reason", reason[:_LONGEST_REASON]))
        if error_type is not None:
            told.append(_pair("type", error_type))
        told.append(flow_pair)
        told += step_pairs
        topic, partition, offset = place
        if topic:
            told.append(_pair("topic", topic))
        if partition is not None:
            told.append(_pair("partition", str(partition)))
        if offset is not None:
            told.append(_pair("offset", str(offset)))
        if timestamp_ms is not None:
            told.append(_pair("timestamp", str(timestamp_ms)))
        told += path_pairs
        if index:
            told.append(_pair("index", index))
        if at is not None:
            told.append(_pair("at", at))
        if attempts is not None:
            told.append(_pair("attempts", str(attempts)))
        told.append(_pair("count", str(count + 1)))
        return tuple(told)

    return write


def shortened(
    value: bytes | None, headers: HeaderPairs, whole: WholeErrors | None, most: int
) -> tuple[bytes | None, HeaderPairs] | None:
    """Value and headers of a dead letter in at most so many bytes, or `None` where that cannot be.

    The reason is cut; a whole `ErrorEnvelope` loses its decoded message too, whose bytes are in its source.
    """
    if whole is None or value is None:
        return _with_cut_reason(value, headers, most)
    for shorter in whole.shortened(value):
        found = _with_cut_reason(shorter, headers, most)
        if found is not None:
            return found
    return None


def _with_cut_reason(value: bytes | None, headers: HeaderPairs, most: int) -> tuple[bytes | None, HeaderPairs] | None:
    excess = record_size(value, None, headers) - most
    reason = dict(headers).get(_REASON) or b""
    left = len(reason) - excess
    if excess > 0 and left < len(CUT.encode()):
        return None
    left_of_it = reason if excess <= 0 else cut(reason.decode("utf-8", "ignore"), left).encode()
    return value, tuple((name, left_of_it if name == _REASON else content) for name, content in headers)


def _pair(name: str, value: str) -> tuple[str, bytes]:
    return ERROR_HEADER_PREFIX + name, value.encode("utf-8", "replace")
