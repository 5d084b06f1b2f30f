"""The limits of topics: the size and the timestamps of a record, and the client properties that follow.

No client is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loom.core.model import LoomFrozenStruct
from loom.streaming.kafka.settings import SEND_QUEUE_KBYTES

__all__ = ["MESSAGE_MAX_BYTES", "RECORD_OVERHEAD", "TimestampLimits", "producer_properties", "record_size"]

#: the client property that, set by hand, leaves it to the broker which records are too large
MESSAGE_MAX_BYTES = "message.max.bytes"
_QUEUE_KBYTES = "queue.buffering.max.kbytes"

#: what a record costs beyond its key, value and headers, in bytes; a batch adds 61 (Kafka protocol, record batch v2)
RECORD_OVERHEAD = 90
#: what a header costs beyond its name and value: two lengths
_HEADER_OVERHEAD = 4

_CLIENT_DEFAULT = 1_000_000
#: the largest value that the client takes for `message.max.bytes`; topics may take more
_CLIENT_MOST = 1_000_000_000
#: room in the queue beyond one record of the largest size
_QUEUE_SLACK_KBYTES = 64


class TimestampLimits(LoomFrozenStruct):
    """How far, in milliseconds, a record's timestamp may be behind and ahead of the broker's clock."""

    behind_ms: int
    ahead_ms: int

    def refusal(self, topic: str, timestamp_ms: int, now_ms: int) -> str | None:
        """Why the topic refuses this timestamp, or `None`.

        >>> TimestampLimits(1_000, 60_000).refusal("orders", 1_000_000, 800_000)
        'its timestamp (1000000 ms) is 200 s ahead of the clock; orders takes at most 60 s (message.timestamp.after.max.ms)'
        """
        ahead_ms = timestamp_ms - now_ms
        if ahead_ms > self.ahead_ms:
            return _told(topic, timestamp_ms, ahead_ms, "ahead of", self.ahead_ms, "message.timestamp.after.max.ms")
        if -ahead_ms > self.behind_ms:
            return _told(topic, timestamp_ms, -ahead_ms, "behind", self.behind_ms, "message.timestamp.before.max.ms")
        return None


def _told(topic: str, timestamp_ms: int, distance_ms: int, side: str, most_ms: int, name: str) -> str:
    return (
        f"its timestamp ({timestamp_ms} ms) is {distance_ms // 1000} s {side} the clock; "
        f"{topic} takes at most {most_ms // 1000} s ({name})"
    )


def producer_properties(config: Mapping[str, Any], max_message_bytes: Mapping[str, int]) -> dict[str, Any]:
    """A producer's properties, fitted to the largest records that its topics take. What was set by hand stays."""
    properties = dict(config)
    if max_message_bytes:
        # A batch is refused as one record would be, so it must fit the tightest topic; and the client must not
        # refuse by itself what a topic takes.
        largest = min(_CLIENT_MOST, max(_CLIENT_DEFAULT, *max_message_bytes.values()))
        properties.setdefault(MESSAGE_MAX_BYTES, largest)
        properties.setdefault("batch.size", max(1, min(_CLIENT_DEFAULT, *max_message_bytes.values())))
    if properties.get(_QUEUE_KBYTES) == SEND_QUEUE_KBYTES:
        # A queue that is smaller than a record never has room for it.
        largest_kbytes = int(properties.get(MESSAGE_MAX_BYTES, _CLIENT_DEFAULT)) // 1024 + _QUEUE_SLACK_KBYTES
        properties[_QUEUE_KBYTES] = max(SEND_QUEUE_KBYTES, largest_kbytes)
    return properties


def record_size(value: bytes | None, key: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None) -> int:
    """What a record's own parts take in its batch."""
    size = len(value or b"") + len(key or b"")
    if headers:
        size += sum(len(name.encode()) + len(content or b"") + _HEADER_OVERHEAD for name, content in headers)
    return size
