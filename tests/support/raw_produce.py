"""Records that no client of ours can write: header names that are not UTF-8, timestamps below zero. By a hand-made request.

Kafka protocol: Produce version 3, record batch version 2, one batch to one partition.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["RawRecord", "produce_raw"]

_PRODUCE, _VERSION, _MAGIC = 0, 3, 2
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RawRecord:
    """A record in bytes, header names included."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    timestamp_ms: int = 1_700_000_000_000


def produce_raw(bootstrap: str, topic: str, *records: RawRecord, partition: int = 0) -> None:
    """Write records to a partition whose leader is at `bootstrap`; raises `OSError` when they are refused."""
    batch = _batch(records)
    body = struct.pack(">hhi", -1, -1, int(_TIMEOUT_S * 1000)) + struct.pack(">i", 1) + _text(topic)
    body += struct.pack(">iii", 1, partition, len(batch)) + batch
    request = struct.pack(">hhi", _PRODUCE, _VERSION, 1) + _text("raw") + body
    host, _, port = bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), _TIMEOUT_S) as connection, connection.makefile("rb") as answers:
        connection.sendall(struct.pack(">i", len(request)) + request)
        (length,) = struct.unpack(">i", answers.read(4))
        answer = answers.read(length)
    # Correlation id, number of topics, topic, number of partitions, partition, and then the error.
    (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic.encode()) + 4 + 4)
    if error:
        raise OSError(f"the broker refused the records: Kafka error code {error}")


def _batch(records: Sequence[RawRecord]) -> bytes:
    first = min(record.timestamp_ms for record in records)
    last = max(record.timestamp_ms for record in records)
    checked = struct.pack(">hiqqqhii", 0, len(records) - 1, first, last, -1, -1, -1, len(records))
    checked += b"".join(_record(record, at, first) for at, record in enumerate(records))
    after_length = struct.pack(">ibI", -1, _MAGIC, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(after_length)) + after_length


def _record(record: RawRecord, at: int, first_ms: int) -> bytes:
    content = b"\0" + _number(record.timestamp_ms - first_ms) + _number(at) + _bytes(record.key) + _bytes(record.value)
    content += _number(len(record.headers))
    content += b"".join(_bytes(name) + _bytes(value) for name, value in record.headers)
    return _number(len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _bytes(value: bytes | None) -> bytes:
    return _number(-1) if value is None else _number(len(value)) + value


def _number(value: int) -> bytes:
    """A zigzag varint."""
    left, encoded = (value << 1) ^ (value >> 63), bytearray()
    while left > 0x7F:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes((*encoded, left))


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
