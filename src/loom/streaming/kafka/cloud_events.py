"""CloudEvents 1.0 in the headers of records: the binary mode of their Kafka binding. No client is imported here.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md. They are read from every
record, where our own headers say nothing, and written with `cloudevents: true`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote

from loom.streaming.kafka.record_accessor import RecordAccessor
from loom.streaming.kafka.record_headers import CE_TYPE, CONTENT_TYPE
from loom.streaming.message import has_message_type, loom_message_type

__all__ = ["event_headers"]

_VERSION = b"1.0"


def event_headers(
    step_id: str, name: str, content_type: str, view: RecordAccessor, indexes: Callable[[], tuple[int, ...]]
) -> Callable[[Any, Any], dict[str, bytes | None]]:
    """Makes the headers of an event, of a payload and the record that it was made of.

    The id is the place of that record, with the numbers of the children where it was expanded: the same when it is made once
    more, and with `ce_source`, which names the output, unique.

    Args:
        step_id: the output.
        name: its logical name, the type of an event whose payload has none.
        content_type: of the value.
        view: how the record is looked at.
        indexes: which child of an expansion is at work.
    """
    source = f"/{quote(step_id, safe='')}".encode()
    content = content_type.encode()

    @cache
    def type_of(payload_type: type) -> bytes:
        return (loom_message_type(payload_type) if has_message_type(payload_type) else name).encode()

    def make(payload: Any, origin: Any) -> dict[str, bytes | None]:
        topic, partition, offset = view.place(origin)
        child = "".join(f"/{index}" for index in indexes())
        time_ms = view.time(origin)
        return {
            "ce_specversion": _VERSION,
            "ce_id": f"{topic}:{partition}:{offset}{child}".encode(),
            "ce_source": source,
            CE_TYPE: type_of(payload.__class__),
            "ce_time": None if time_ms is None else _time(time_ms),
            CONTENT_TYPE: content,
        }

    return make


def _time(time_ms: int) -> bytes | None:
    try:
        text = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, OSError, ValueError):
        return None
    return text.replace("+00:00", "Z").encode()
