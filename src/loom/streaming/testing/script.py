"""What a test gives a flow to read, as a script of records and moments. Made by the runner, read by the source in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from msgspec.structs import replace

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.record_headers import key_bytes
from loom.streaming.message import Message, MessageMeta
from loom.streaming.record import KafkaRecord
from loom.streaming.testing.in_memory import Advance

__all__ = ["Key", "Script"]

Key: TypeAlias = bytes | str | None


class _Payload(LoomFrozenStruct):
    """A payload that is no message yet: its topic is known when the flow is compiled."""

    payload: Any
    index: int
    key: bytes | None

    def message(self, topic: str) -> Message[Any]:
        meta = MessageMeta(f"test-{self.index}", topic=topic, partition=0, offset=self.index, key=self.key)
        return Message(self.payload, meta)


class Script:
    """Collects the input of a run. Keys are bytes, as on a broker."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._payloads = 0
        #: the next offset of each partition, for records without a position
        self._offsets: Counter[tuple[str, int]] = Counter()

    def add_payloads(self, payloads: Iterable[Any], key: Callable[[Any], Key] | None) -> None:
        """Payloads, with ids of their own, in partition 0."""
        for payload in payloads:
            found = key_bytes(key(payload)) if key is not None else None
            self._items.append(_Payload(payload, self._payloads, found))
            self._payloads += 1

    def add_messages(self, messages: Iterable[Message[Any]]) -> None:
        """Messages as they are, each an object of its own, as it is when a broker hands it over."""
        for message in messages:
            if not isinstance(message, Message):
                raise TypeError(f"with_messages takes Messages, not {type(message).__qualname__}; see with_payloads")
            self._items.append(Message(message.payload, replace(message.meta, key=key_bytes(message.meta.key))))

    def add_records(self, records: Iterable[KafkaRecord]) -> None:
        """Records as bytes; one without a position is given the next of its partition."""
        for record in records:
            if not isinstance(record, KafkaRecord):
                raise TypeError(f"with_records takes KafkaRecords, not {type(record).__qualname__}")
            partition = record.partition or 0
            place = (record.topic, partition)
            offset = self._offsets[place] if record.offset is None else record.offset
            self._offsets[place] = offset + 1
            self._items.append(replace(record, partition=partition, offset=offset))

    def advance(self, ms: int) -> None:
        """A moment at which time moves on."""
        if ms < 1:
            raise ValueError(f"advance() takes at least 1 millisecond, not {ms}")
        self._items.append(Advance(ms))

    def take(self, topic: str) -> list[Any]:
        """What has been collected since the last call; the payloads come from this topic."""
        items, self._items = self._items, []
        return [item.message(topic) if isinstance(item, _Payload) else item for item in items]
