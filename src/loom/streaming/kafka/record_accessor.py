"""Access to a record in the form in which its source yields it, without converting it. No client is imported here.

A source yields the client's own objects, or `KafkaRecord`s, or messages; the stage asks only for the parts it needs,
through callables that are resolved once. `RECORDS` views `KafkaRecord`s; the client's records have one in `client_records.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, length_hint
from typing import Any

from loom.core.errors import LoomError
from loom.core.model import LoomFrozenStruct
from loom.streaming.headers import HeaderPairs, Headers
from loom.streaming.kafka.record_headers import meta_from_headers
from loom.streaming.message import MessageMeta
from loom.streaming.record import NO_TIMESTAMP, KafkaRecord, TopicPartitionOffset

__all__ = ["RECORDS", "BatchHeaders", "LostHeaders", "RecordAccessor", "UnreadableHeadersError"]


class UnreadableHeadersError(LoomError):
    """The client cannot return the headers of a record, because the name of one is not UTF-8."""

    def __init__(self) -> None:
        super().__init__(LOST)


#: the error text for a record without readable headers
LOST = "the name of a header is not UTF-8, so the client cannot read the record's headers; they are left out here"


class LostHeaders(list[Any]):
    """Takes the place of headers that the client cannot return. Not empty, so it is not mistaken for no headers."""


_LOST = LostHeaders([("", None)])
#: the error was reported already
_TOLD = LostHeaders([("", None)])


class BatchHeaders:
    """What one has found out about the headers of a batch, for those who ask next about it or a part of it."""

    __slots__ = ("absent",)

    def __init__(self) -> None:
        #: no record of the batch at work has any
        self.absent = False


class RecordAccessor(LoomFrozenStruct, kw_only=True):
    """The parts of a record, each by a callable that takes the source's own object (the record's *origin*)."""

    value: Callable[[Any], bytes | None]
    key: Callable[[Any], bytes | None]
    #: the pairs, or something falsy where there are none; a `SystemError` has to be followed by `lose`, at once
    headers: Callable[[Any], Any]
    #: the same for `map`, where there is a faster one
    mapped_headers: Callable[[Any], Any] | None = None
    #: whether any of several records has headers, where there is a faster way than to map
    any_of: Callable[[Sequence[Any]], bool] | None = None
    #: what is known of a batch already; `None` where nobody asks before the loop does
    known: BatchHeaders | None = None
    #: gives the source's object other headers; `None` where headers can always be read
    set_headers: Callable[[Any, LostHeaders], object] | None = None
    #: milliseconds since the epoch; `NO_TIMESTAMP` or `None` where there is none
    timestamp: Callable[[Any], int | None]
    place: Callable[[Any], TopicPartitionOffset]
    #: the same as a plain tuple, which is made in a fraction of the time; `place` where there is no such way
    coordinates: Callable[[Any], tuple[str | None, int | None, int | None]] | None = None
    #: the bytes of a record that has no `value` because it came as a message; for dead letters
    encoded: Callable[[Any], bytes | None] | None = None
    #: whether the source's objects may be `Message`s, which are not decoded
    may_be_messages: bool = False
    #: by part, an expression of `origin` that generated code can use in place of the call
    expressions: Mapping[str, str] = {}

    def time(self, origin: Any) -> int | None:
        """The record's timestamp in milliseconds since the epoch, `None` where it has none."""
        found = self.timestamp(origin)
        return None if found == NO_TIMESTAMP else found

    def pairs(self, origin: Any) -> HeaderPairs:
        """Every header pair, in order. Raises `UnreadableHeadersError`."""
        try:
            headers = self.headers(origin)
        except SystemError:
            headers = self.lose(origin)
        if headers.__class__ is LostHeaders:
            raise UnreadableHeadersError
        return Headers.of(headers).pairs if headers else ()

    def lose(self, origin: Any) -> LostHeaders:
        """Note that the client could not return the headers of a record: a second request would crash the process."""
        if self.set_headers is not None:
            self.set_headers(origin, _LOST)
        return _LOST

    def any_headers(self, origins: Sequence[Any]) -> bool:
        """Whether a record of a batch has headers; cheaper than to ask each from a loop."""
        if self.known is not None and self.known.absent:
            return False
        if self.any_of is not None:
            return self.any_of(origins)
        records = iter(origins)
        try:
            return any(map(self.mapped_headers or self.headers, records))
        except SystemError:
            # The iterator is past the record that failed.
            self.lose(origins[len(origins) - length_hint(records) - 1])
            return True

    def has_headers(self, origin: Any) -> bool:
        """Whether the record has headers, those that cannot be read included."""
        try:
            return bool(self.headers(origin))
        except SystemError:
            return bool(self.lose(origin))

    def has_lost(self, origin: Any) -> bool:
        """Whether the record's headers cannot be read."""
        try:
            return self.headers(origin).__class__ is LostHeaders
        except SystemError:
            return bool(self.lose(origin))

    def tell_lost(self, origin: Any) -> bool:
        """Whether lost headers still have to become an error, which they do once for each record."""
        if self.headers(origin) is _TOLD:
            return False
        if self.set_headers is not None:
            self.set_headers(origin, _TOLD)
        return True

    def pairs_left(self, origin: Any) -> HeaderPairs:
        """Every header pair; none if the headers cannot be read."""
        return () if self.has_lost(origin) else self.pairs(origin)

    def meta(self, origin: Any) -> MessageMeta:
        """The record's metadata. Raises `UnreadableHeadersError`."""
        return self._meta(origin, self.pairs(origin))

    def meta_left(self, origin: Any) -> MessageMeta:
        """The record's metadata, without headers that cannot be read."""
        return self._meta(origin, self.pairs_left(origin))

    def _meta(self, origin: Any, pairs: HeaderPairs) -> MessageMeta:
        topic, partition, offset = self.place(origin)
        return meta_from_headers(
            f"{topic}:{partition}:{offset}",
            self.key(origin),
            pairs,
            self.time(origin),
            topic,
            partition,
            offset,
        )

    def raw(self, origin: Any) -> bytes | None:
        """The record's bytes, as they were read or as they would have been."""
        return self.value(origin) if self.encoded is None else self.encoded(origin)

    def size(self, origins: Sequence[Any]) -> int:
        """The bytes of the values of some records."""
        return sum(map(len, filter(None, map(self.value, origins))))

    def record(self, origin: Any) -> KafkaRecord:
        """The record as it was read. Raises `UnreadableHeadersError`."""
        return self._record(origin, self.pairs(origin))

    def record_left(self, origin: Any) -> KafkaRecord:
        """The record as it was read, without headers that cannot be read."""
        return self._record(origin, self.pairs_left(origin))

    def _record(self, origin: Any, pairs: HeaderPairs) -> KafkaRecord:
        topic, partition, offset = self.place(origin)
        return KafkaRecord(
            topic or "",
            self.key(origin),
            self.raw(origin),
            Headers(pairs),
            partition,
            offset,
            self.time(origin),
        )


def _any_headers(records: Sequence[KafkaRecord]) -> bool:
    # A loop is quicker here than `map` with a getter.
    for record in records:  # noqa: SIM110
        if record.headers:
            return True
    return False


def _place(record: KafkaRecord) -> TopicPartitionOffset:
    return TopicPartitionOffset(record.topic, record.partition, record.offset)


RECORDS = RecordAccessor(
    value=attrgetter("value"),
    key=attrgetter("key"),
    headers=attrgetter("headers"),
    any_of=_any_headers,
    timestamp=attrgetter("timestamp_ms"),
    place=_place,
    coordinates=attrgetter("topic", "partition", "offset"),
    expressions={
        "value": "origin.value",
        "key": "origin.key",
        "headers": "origin.headers",
        "timestamp": "origin.timestamp_ms",
    },
)
