"""How to look at a record as its source hands it over, without converting it first. No client is imported here.

A source yields the client's own objects, or `KafkaRecord`s, or messages; the stage asks only for the parts it needs,
through callables that are resolved once. `RECORDS` views `KafkaRecord`s; the client's view stands in `consumer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.headers import HeaderPairs, Headers
from loom.streaming.kafka.record import KafkaRecord, RecordPlace
from loom.streaming.kafka.wire import meta_from_headers
from loom.streaming.message import MessageMeta

__all__ = ["RECORDS", "OriginView"]


class OriginView(LoomFrozenStruct, kw_only=True):
    """The parts of a record, each by a callable that takes the source's own object (the record's *origin*)."""

    value: Callable[[Any], bytes | None]
    key: Callable[[Any], bytes | None]
    #: the pairs, or something falsy where there are none
    headers: Callable[[Any], Any]
    #: milliseconds since the epoch; 0 or `None` where there is none
    timestamp: Callable[[Any], int | None]
    place: Callable[[Any], RecordPlace]
    #: the bytes of a record that has no `value` because it came as a message; for dead letters
    encoded: Callable[[Any], bytes | None] | None = None
    #: by part, what a generated loop may write in the place of a call: an expression of `origin` that says the same
    expressions: Mapping[str, str] = {}

    def pairs(self, origin: Any) -> HeaderPairs:
        """Every header pair, in order."""
        headers = self.headers(origin)
        return Headers.of(headers).pairs if headers else ()

    def meta(self, origin: Any) -> MessageMeta:
        """The record's metadata."""
        topic, partition, offset = self.place(origin)
        return meta_from_headers(
            f"{topic}:{partition}:{offset}",
            self.key(origin),
            self.pairs(origin),
            self.timestamp(origin) or None,
            topic,
            partition,
            offset,
        )

    def raw(self, origin: Any) -> bytes | None:
        """The record's bytes, as they were read or as they would have been."""
        return self.value(origin) if self.encoded is None else self.encoded(origin)

    def record(self, origin: Any) -> KafkaRecord:
        """The record as it was read."""
        topic, partition, offset = self.place(origin)
        return KafkaRecord(
            topic or "",
            self.key(origin),
            self.raw(origin),
            Headers(self.pairs(origin)),
            partition,
            offset,
            self.timestamp(origin) or None,
        )


def _place(record: KafkaRecord) -> RecordPlace:
    return RecordPlace(record.topic, record.partition, record.offset)


RECORDS = OriginView(
    value=attrgetter("value"),
    key=attrgetter("key"),
    headers=attrgetter("headers"),
    timestamp=attrgetter("timestamp_ms"),
    place=_place,
    expressions={
        "value": "origin.value",
        "key": "origin.key",
        "headers": "origin.headers",
        "timestamp": "origin.timestamp_ms",
    },
)
