"""Record headers to metadata, and metadata to record headers. No client is imported here.

Names and rules are those of the wire contract: a header is written if it adds information; one that already has the value
stays in place; unknown ones pass through in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from loom.core.tracing import parse_traceparent
from loom.streaming.headers import HeaderPairs, Headers
from loom.streaming.kafka.settings import HeaderPolicy
from loom.streaming.kafka.writable import writable_id
from loom.streaming.message import MessageMeta, has_message_type, loom_message_type, loom_message_version

__all__ = [
    "CE_TYPE",
    "CONTENT_TYPE",
    "ERROR_COUNT",
    "ERROR_HEADER_PREFIX",
    "MESSAGE_TYPE",
    "MESSAGE_VERSION",
    "REPLAY_OF",
    "REPLAY_PREFIX",
    "REPLAY_STEP",
    "TRACEPARENT",
    "LabelOf",
    "WantedHeaders",
    "is_labelled",
    "key_bytes",
    "label_function",
    "meta_from_headers",
    "rewritten",
    "wanted_from_meta",
    "whole_number",
]

CE_TYPE = "ce_type"
#: the extensions of CloudEvents for correlation and for distributed tracing
CE_CORRELATION_ID, CE_CAUSATION_ID, CE_TRACEPARENT = "ce_correlationid", "ce_causationid", "ce_traceparent"
CONTENT_TYPE = "content-type"
MESSAGE_TYPE = "x-message-type"
MESSAGE_VERSION = "x-message-version"
TRACE_ID = "x-trace-id"
PARENT_TRACE_ID = "x-parent-trace-id"
CORRELATION_ID = "x-correlation-id"
CAUSATION_ID = "x-causation-id"
TRACEPARENT = "traceparent"
ERROR_HEADER_PREFIX = "x-error-"
#: how often the record has failed
ERROR_COUNT = ERROR_HEADER_PREFIX + "count"
#: what `loom dlq replay` writes: which dead letter a record is, and the step that it enters instead of the first one
REPLAY_PREFIX = "x-loom-replay-"
REPLAY_OF = REPLAY_PREFIX + "of"
REPLAY_STEP = REPLAY_PREFIX + "step"
#: what fits a signed 64-bit integer
_MOST_DIGITS = 18

#: header name -> the value it must have in the end; `None`: it must not be there
WantedHeaders: TypeAlias = Mapping[str, bytes | None]
#: payload type -> the headers that label it
LabelOf: TypeAlias = Callable[[type], WantedHeaders]


def meta_from_headers(
    message_id: str,
    key: bytes | None,
    pairs: HeaderPairs,
    timestamp_ms: int | None,
    topic: str | None,
    partition: int | None,
    offset: int | None,
) -> MessageMeta:
    """The metadata of a record that was read.

    Ids come from its headers; a W3C `traceparent` fills in for `x-trace-id`, those of a CloudEvent for any that are not
    there. Whatever the headers hold, nothing raises.
    """
    if not pairs:
        return MessageMeta(
            message_id, None, None, None, None, timestamp_ms, None, None, topic, partition, offset, key, Headers()
        )
    headers = Headers(pairs)
    trace_id, parent_id = _trace(headers)
    return MessageMeta(
        message_id,
        _text(headers, CORRELATION_ID) or _text(headers, CE_CORRELATION_ID),
        trace_id,
        parent_id,
        _text(headers, CAUSATION_ID) or _text(headers, CE_CAUSATION_ID),
        timestamp_ms,
        _text(headers, MESSAGE_TYPE) or _text(headers, CE_TYPE),
        _number(headers, MESSAGE_VERSION),
        topic,
        partition,
        offset,
        key,
        headers,
    )


def is_labelled(payload_type: Any, policy: HeaderPolicy, *, several_types: bool) -> bool:
    """Whether a policy that writes headers at all names the type of such a payload in one."""
    named = getattr(payload_type, "__loom_message_type__", None) is not None
    return policy is HeaderPolicy.FULL or named or several_types


def label_function(policy: HeaderPolicy, content_type: str, *, several_types: bool) -> LabelOf:
    """The headers that label a payload of a given type under a policy; worked out once per type.

    `auto` labels a payload whose class names its type, and any where the output may hold several types. Where it does
    not label, the incoming label goes: it speaks of another payload.
    """
    labels: dict[type, WantedHeaders] = {}

    def label(payload_type: type) -> WantedHeaders:
        found = labels.get(payload_type)
        if found is None:
            found = labels[payload_type] = _label(payload_type)
        return found

    def _label(payload_type: type) -> WantedHeaders:
        if has_message_type(payload_type) and is_labelled(payload_type, policy, several_types=several_types):
            wanted: dict[str, bytes | None] = {
                MESSAGE_TYPE: loom_message_type(payload_type).encode(),
                MESSAGE_VERSION: str(loom_message_version(payload_type)).encode(),
            }
        else:
            wanted = {MESSAGE_TYPE: None, MESSAGE_VERSION: None}
        wanted[CONTENT_TYPE] = content_type.encode() if policy is HeaderPolicy.FULL else None
        return wanted

    return label


def wanted_from_meta(meta: MessageMeta, *, full: bool) -> dict[str, bytes | None]:
    """The ids that a message carries, as headers.

    An id that the headers say already is not among them: its pairs leave as they came, raw bytes, empty and repeated ones
    included. One that came from a `traceparent` alone is not written a second time under another name. `full` writes it
    all the same, and adds the causation: the message that this one was made of.
    """
    headers = meta.headers
    # A record without headers says nothing, which is quickly known.
    said = bool(headers)
    trace_id, parent_id = _trace(headers) if said else (None, None)
    wanted: dict[str, bytes | None] = {}
    if meta.correlation_id != (_text(headers, CORRELATION_ID) or _text(headers, CE_CORRELATION_ID) if said else None):
        wanted[CORRELATION_ID] = writable_id("correlation_id", meta.correlation_id)
    if meta.trace_id != trace_id or (full and TRACE_ID not in headers):
        wanted[TRACE_ID] = writable_id("trace_id", meta.trace_id)
    if meta.parent_trace_id != parent_id or (full and PARENT_TRACE_ID not in headers):
        wanted[PARENT_TRACE_ID] = writable_id("parent_trace_id", meta.parent_trace_id)
    if meta.trace_id != trace_id and TRACEPARENT in headers:
        parent = parse_traceparent(headers[TRACEPARENT])
        if parent is not None and parent.trace_id != meta.trace_id:
            # A step gave the message another trace; the old traceparent would contradict it.
            wanted[TRACEPARENT] = None
    causation_id = meta.causation_id
    if full and causation_id is None:
        wanted[CAUSATION_ID] = writable_id("message_id", meta.message_id)
    elif causation_id != (_text(headers, CAUSATION_ID) or _text(headers, CE_CAUSATION_ID) if said else None):
        wanted[CAUSATION_ID] = writable_id("causation_id", causation_id)
    return wanted


def rewritten(pairs: HeaderPairs, wanted: WantedHeaders) -> HeaderPairs:
    """These pairs with every wanted header saying what it must; one that does so already keeps its place.

    >>> rewritten((("a", b"1"), ("x-message-type", b"Old")), {"x-message-type": b"New"})
    (('a', b'1'), ('x-message-type', b'New'))
    """
    left = {name: value for name, value in wanted.items() if value is not None}
    kept = []
    for pair in pairs:
        name, value = pair
        if name not in wanted:
            kept.append(pair)
        elif value is not None and left.get(name) == value:
            kept.append(pair)
            del left[name]
    kept.extend(left.items())
    return tuple(kept)


def key_bytes(key: bytes | str | None) -> bytes | None:
    """A record key as it is written: text is UTF-8."""
    return key.encode() if isinstance(key, str) else key


def _trace(headers: Mapping[str, bytes]) -> tuple[str | None, str | None]:
    """Trace and parent id as the headers tell them; a W3C `traceparent` fills in for `x-trace-id`."""
    trace_id, parent_id = _text(headers, TRACE_ID), _text(headers, PARENT_TRACE_ID)
    found = headers.get(TRACEPARENT) or headers.get(CE_TRACEPARENT) or b""
    if trace_id is None and (parent := parse_traceparent(found)) is not None:
        return parent.trace_id, parent_id or parent.parent_id
    return trace_id, parent_id


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return value.decode("utf-8", "replace") if value else None


def _number(headers: Mapping[str, bytes], name: str) -> int | None:
    return whole_number(headers.get(name) or b"")


def whole_number(text: bytes) -> int | None:
    """A number in a header, or `None`. A text of thousands of digits, which anyone may send, would raise.

    >>> whole_number(b"12"), whole_number(b"many"), whole_number(b"9" * 5000)
    (12, None, None)
    """
    return int(text) if text.isdigit() and len(text) <= _MOST_DIGITS else None
